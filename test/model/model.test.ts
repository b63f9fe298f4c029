import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import fc from 'fast-check'
import { formatAcross, narrateAcross, parseAcross } from './across.ts'
import { addressBytes, addressText, contains, familyOf } from './address.ts'
import type { Cluster } from './cluster.ts'
import { etherBytes, frameLength, sum, writeFrame } from './frame.ts'
import { narrate } from './narrate.ts'
import { NodeModel } from './node.ts'
import { type Packet, protocolOf, reversed, tupleOf, withEnds } from './packet.ts'
import { formatPacket, parsePacket } from './packet-text.ts'
import { Player } from './player.ts'
import { judgePolicy } from './policy.ts'
import { changed, emptyCluster, formatStep, parseScenario, type Step } from './scenario.ts'
import { allowedBySecond } from './second.ts'
import {
  namespaces,
  nodes,
  outside,
  ownNode,
  podArbitrary,
  policyArbitrary,
  ports,
  serviceArbitrary,
  slots,
} from './universe.ts'

/** The model by itself: what it would be wrong in here it would blame the kernel for. */

const materialsArbitrary = fc.record({
  pods: fc.array(podArbitrary, { minLength: 4, maxLength: 6 }),
  policies: fc.array(policyArbitrary, { minLength: 1, maxLength: 6 }),
  services: fc.array(serviceArbitrary, { maxLength: 5 }),
})

/** A cluster with these objects, and the player who made it. */
function clusterOf(materials: Parameters<typeof playerOf>[0]): { cluster: Cluster; player: Player } {
  const player = playerOf(materials)
  let cluster = emptyCluster
  for (const node of nodes) cluster = changed(cluster, { do: 'node', node })
  for (const namespace of namespaces) cluster = changed(cluster, { do: 'namespace', namespace })
  for (const [i, slot] of slots.entries()) {
    const step = player.podFor(slot, i)
    if (step.do === 'pod') cluster = changed(cluster, step)
  }
  for (const [i, policy] of materials.policies.entries())
    cluster = changed(cluster, { do: 'policy', policy: { ...policy, name: `n${i}` } })
  return { cluster, player }
}
const playerOf = (materials: ConstructorParameters<typeof Player>[0]): Player => new Player(materials)

/** Steps as a history would have them, each with what the model said. */
function* play(materials: Parameters<typeof playerOf>[0], numbers: readonly number[]): Generator<Step> {
  const { cluster, player } = clusterOf(materials)
  const model = new NodeModel(ownNode, cluster)
  let now = 1e7
  for (const number of numbers) {
    const step = player.step(model.cluster, number)
    if (step === undefined) continue
    yield step
    if (step.do === 'wait') now += step.ms
    else if (step.do === 'send') player.saw(step.hook, step.packet, model.judge(step.hook, step.packet, ++now))
    else model.change(changed(model.cluster, step))
  }
}
const numbersArbitrary = fc.array(fc.nat({ max: 2 ** 31 - 1 }), { minLength: 60, maxLength: 60, size: 'max' })

test('addresses: text and bytes are inverse, and networks contain what they should', (t) => {
  for (const text of ['10.0.0.1', '::', '::1', 'fd00:10:244:1::2', '2001:db8::1:0:0:1', 'ff02::fb'])
    t.is(addressText(addressBytes(text)), text)
  t.true(contains('10.244.1.0/29', '10.244.1.7'))
  t.false(contains('10.244.1.0/29', '10.244.1.8'))
  t.false(contains('0.0.0.0/0', '::1'))
  t.true(contains('::/0', 'fd00::1'))
})

test('every step that a history can have is written and read back as itself', (t) => {
  fc.assert(
    fc.property(materialsArbitrary, numbersArbitrary, (materials, numbers) => {
      for (const step of play(materials, numbers)) {
        t.deepEqual(parseScenario(formatStep(step)).steps, [step])
        if (step.do === 'send') t.deepEqual(parsePacket(formatPacket(step.packet)), step.packet)
      }
    }),
    { numRuns: 60 },
  )
})

test('frames are as long as they say, and their checksums are right', (t) => {
  const frame = Buffer.alloc(4096)
  const mac = Buffer.alloc(6)
  fc.assert(
    fc.property(materialsArbitrary, numbersArbitrary, (materials, numbers) => {
      for (const step of play(materials, numbers)) {
        if (step.do !== 'send') continue
        const { packet } = step
        const length = writeFrame(frame, packet, mac, mac)
        t.is(length, Math.min(frameLength(packet), packet.cut ?? Number.POSITIVE_INFINITY))
        if (packet.lie !== undefined || packet.cut !== undefined) continue
        if (familyOf(packet.source) === 4) {
          const header = ((frame[etherBytes] ?? 0) & 15) * 4
          t.is(sum(frame, etherBytes, etherBytes + header, 0), 0xffff)
          t.is(frame.readUInt16BE(etherBytes + 2), length - etherBytes)
        } else t.is(frame.readUInt16BE(etherBytes + 4), length - etherBytes - 40)
        t.true(upperLayerSums(frame, length, packet))
      }
    }),
    { numRuns: 60 },
  )
})

function upperLayerSums(frame: Buffer, length: number, packet: Packet): boolean {
  const { layer4, extensions = [], options = 0, fragment, short } = packet
  if (layer4.kind === 'opaque' || layer4.kind === 'sctp' || short !== undefined) return true
  const six = familyOf(packet.source) === 6
  const start = six
    ? 54 + extensions.reduce((n, e) => n + (e === 'authentication' ? 16 : 8), fragment === undefined ? 0 : 8)
    : 34 + options
  if (layer4.kind === 'udp' && layer4.unsummed === true) return frame.readUInt16BE(start + 6) === 0
  const ends = six ? sum(frame, 22, 54, 0) : sum(frame, 26, 34, 0)
  const pseudo = !six && protocolOf(packet) === 1 ? 0 : ends + protocolOf(packet) + length - start
  return sum(frame, start, length, pseudo) === 0xffff
}

test('policy: the model and a second reading of the specification agree', (t) => {
  let allowed = 0
  let denied = 0
  fc.assert(
    fc.property(materialsArbitrary, fc.nat(), (materials, seed) => {
      const { cluster } = clusterOf(materials)
      const pods = [...cluster.pods.values()]
      for (let i = 0; i < 40; i++) {
        const n = (seed + i * 7919) >>> 0
        const pod = pods[n % pods.length]
        const other = pods[(n >>> 3) % pods.length]
        if (pod === undefined || other === undefined) continue
        const isPod = i % 3 !== 0
        const peer = isPod ? other : undefined
        const family = i % 2
        const address = peer?.addresses[family] ?? outside[family === 0 ? 4 : 6][n % 4] ?? ''
        const protocol = [6, 17, 132, 1, 47][(n >>> 5) % 5] ?? 6
        const hasPorts = protocol === 6 || protocol === 17 || protocol === 132
        const port = hasPorts ? (ports[(n >>> 7) % ports.length] ?? 80) : -1
        const direction = i % 4 < 2 ? 'ingress' : 'egress'
        const second = allowedBySecond(cluster, { direction, pod, peer, address, protocol, port }, ports)
        const asked = { protocol, port: hasPorts ? port : undefined }
        const first = judgePolicy(cluster, direction, pod, { address, pod: peer }, asked)
        if (first.isolated) first.allowed ? allowed++ : denied++
        t.is(first.allowed, second, `${direction} ${pod.name} ${address} ${protocol}/${port}`)
      }
    }),
    { numRuns: 300 },
  )
  t.true(allowed > 500 && denied > 500, `${allowed} allowed, ${denied} denied`)
})

test('an answer to what was allowed always passes, and nothing without a policy is denied', (t) => {
  let answers = 0
  fc.assert(
    fc.property(materialsArbitrary, numbersArbitrary, (materials, numbers) => {
      const { cluster, player } = clusterOf(materials)
      const open = { ...cluster, policies: new Map() }
      const [model, unguarded] = [new NodeModel(ownNode, cluster), new NodeModel(ownNode, open)]
      let now = 1e7
      for (const number of numbers) {
        const step = player.step(cluster, number)
        if (step?.do !== 'send') continue
        t.not(unguarded.judge(step.hook, step.packet, now).reason, 'policy denied')
        const outcome = model.judge(step.hook, step.packet, now)
        player.saw(step.hook, step.packet, outcome)
        const { packet } = outcome
        if (outcome.end !== 'pod' || packet?.layer4.kind !== 'udp' || packet.fragment !== undefined) continue
        const tuple = tupleOf(packet)
        if (tuple === undefined || outcome.pod === undefined) continue
        const back = withEnds({ ...packet, hops: 64 }, reversed(tuple))
        const answer = model.judge({ from: 'pod', pod: outcome.pod }, back, ++now)
        t.is(answer.reason, 'forwarded', `${formatPacket(packet)} was let through, ${formatPacket(back)} was not`)
        answers++
      }
    }),
    { numRuns: 100 },
  )
  t.true(answers > 200, `only ${answers} answers`)
})

const scenarios = join(import.meta.dirname, 'scenarios')
for (const file of readdirSync(scenarios).filter((name) => name.endsWith('.txt')))
  test(`scenario ${file} is told as it is written`, (t) => {
    const text = readFileSync(join(scenarios, file), 'utf8')
    const told = narrate(text)
    // WEFT_REWRITE=1 writes the answers of the model into the file: read the difference as prose.
    if (process.env.WEFT_REWRITE === '1') writeFileSync(join(scenarios, file), told)
    else t.is(told, text)
    t.pass()
  })

const across = join(scenarios, 'across')
for (const file of readdirSync(across))
  test(`scenario across/${file} is told as it is written`, (t) => {
    const text = readFileSync(join(across, file), 'utf8')
    const told = narrateAcross(text)
    if (process.env.WEFT_REWRITE === '1') writeFileSync(join(across, file), told)
    else t.is(told, text)
    for (const line of text.split('\n')) {
      const one = parseAcross(line)
      if (one !== undefined) t.deepEqual(parseAcross(formatAcross(one)), one)
    }
  })
