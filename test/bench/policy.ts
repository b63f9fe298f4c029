import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { PolicyState } from '#agent/policy/state.ts'
import type { NetworkPolicy } from '#api/gen/networking-v1.ts'
import { Program } from '#kernel/bpf/program.ts'
import { PolicyWorld } from '../cluster/policy-world.ts'
import { inPod, load, serve, type TestNode, type TestPod, Topology } from '../packets/topology.ts'
import { median, type Row } from './row.ts'

/**
 * 1 to 10,000 policies on one pod, each with a peer and a port of its own: what it takes to compile them and write them to the
 * kernel, all of them and one that changed, and what a packet of an established connection pays for them (kernel.bpf_stats).
 */
const counts = [0, 1, 10, 100, 1_000, 10_000] as const
const identities = 200
const changes = 101
const flips = 200
const enforcedMs = 30
const packetNs = 10
const runMs = 150
const rounds = 7
const port = 9000
const statsPath = '/proc/sys/kernel/bpf_stats_enabled'

interface Measured {
  readonly all: number
  readonly change: readonly number[]
  readonly entries: number
  readonly packetNs: number
}

export async function run(): Promise<Row[]> {
  await using topology = await Topology.create({ label: 'bench-policy', direct: 'programs' })
  const node = topology.node(1)
  const client = await node.addPod()
  const server = await node.addPod()
  await using _ = await serve({ ...inPod(server), cpu: 0 }, server.v4, port)
  const stats = readFileSync(statsPath, 'utf8')
  writeFileSync(statsPath, '1')
  try {
    const measured = new Map<number, Measured>()
    for (const count of counts) measured.set(count, await measure(node, client, server, count))
    for (const [count, { all, change, entries, packetNs }] of measured) {
      const words = `${count} policies: ${entries} entries in ${all.toFixed(1)} ms, a change in ${median(change).toFixed(2)} ms`
      process.stderr.write(
        `  ${words} (p99 ${percentile(change, 0.99).toFixed(2)}), packet ${packetNs.toFixed(0)} ns\n`,
      )
    }
    const at = (count: number): Measured => {
      const found = measured.get(count)
      if (found === undefined) throw new RangeError(`${count} was not measured`)
      return found
    }
    return [
      {
        name: `a policy made through the API, to the first refusal, p99 of ${enforcedMs} ms`,
        ratio: (await enforcement()) / enforcedMs,
        goal: 1,
        atMost: true,
      },
      {
        name: `a change of one of 10,000 policies in the kernel, p99 of ${enforcedMs} ms`,
        ratio: percentile(at(10_000).change, 0.99) / enforcedMs,
        goal: 1,
        atMost: true,
      },
      {
        name: `a change of one of 100 policies in the kernel, p99 of ${enforcedMs} ms`,
        ratio: percentile(at(100).change, 0.99) / enforcedMs,
        goal: 1,
        atMost: true,
      },
      {
        name: '10,000 policies compiled and written, of a second',
        ratio: at(10_000).all / 1_000,
        goal: 1,
        atMost: true,
      },
      {
        name: 'established packet, 10,000 policies to 1',
        ratio: at(10_000).packetNs / at(1).packetNs,
        goal: 1.05,
        atMost: true,
      },
      {
        name: `established packet, what policies add, of ${packetNs} ns`,
        ratio: (at(1).packetNs - at(0).packetNs) / packetNs,
        goal: 1,
        atMost: true,
      },
    ]
  } finally {
    writeFileSync(statsPath, stats)
  }
}

/** From the call that makes a policy until a new connection to the other node's pod is refused, in a cluster; 99th percentile, ms. */
async function enforcement(): Promise<number> {
  const world = await PolicyWorld.up('bench-policy')
  try {
    const question = [{ protocol: 'tcp', address: world.addressOf('x/a', 4), port: 80 }] as const
    const client = world.prober('y/b')
    const until = async (wanted: string): Promise<void> => {
      let [answer] = await client.ask(question)
      while (answer !== wanted) [answer] = await client.ask(question)
    }
    const took: number[] = []
    for (let i = 0; i < flips; i++) {
      await until('open')
      const start = performance.now()
      const made = world.policy('x', `deny-${i}`, { podSelector: {}, policyTypes: ['Ingress'] })
      await until('refused')
      took.push(performance.now() - start)
      await made
      await world.clear()
    }
    const words = `median ${median(took).toFixed(1)} ms, p99 ${percentile(took, 0.99).toFixed(1)} ms`
    process.stderr.write(`  a policy made through the API, to the first refusal: ${words}\n`)
    return percentile(took, 0.99)
  } finally {
    world.down()
  }
}

/** An agent that starts with so many policies, then one of them changing again and again, then packets under all of them. */
async function measure(node: TestNode, client: TestPod, server: TestPod, count: number): Promise<Measured> {
  const state = new PolicyState({ datapath: node.datapath, nodeName: 'node1', now: () => performance.now() })
  state.setNamespace('default', {})
  for (let i = 0; i < identities; i++) {
    const pod = i === 0 ? client : undefined
    const addresses = pod === undefined ? [`10.244.2.${i + 1}`] : [pod.v4, pod.v6]
    const labels = { app: `a${i}` }
    const key = `default/p${i}`
    state.setPeer(key, { key, uid: key, namespace: 'default', labels, ports: [], addresses, identity: 256 + i })
  }
  const key = 'default/server'
  const labels = { app: 'server' }
  const addresses = [server.v4, server.v6]
  state.setPeer(key, { key, uid: key, namespace: 'default', labels, ports: [], addresses, identity: 255 + 256 })
  for (const pod of [client, server]) {
    const podKey = pod === server ? key : 'default/p0'
    state.setEndpoint(pod.name, { id: pod.name, podKey, addresses: [pod.v4, pod.v6] })
    state.setLocalPod(pod.name, { namespace: 'default', labels: pod === server ? labels : { app: 'a0' }, ports: [] })
  }
  // Numbers and relevance as they are in a cluster that has policies already.
  state.setPolicy('default/np', policy('np', 0, 1))
  state.write()
  state.setPolicy('default/np', undefined)
  state.write()

  const start = performance.now()
  for (let i = 0; i < count; i++) state.setPolicy(`default/np${i}`, policy(`np${i}`, i, 1))
  state.write()
  const all = performance.now() - start
  const { entries } = state.status
  const change: number[] = []
  for (let i = 0; i < (count === 0 ? 0 : changes); i++) {
    const which = (i * 7919) % count
    const begin = performance.now()
    state.setPolicy(`default/np${which}`, policy(`np${which}`, which, i + 2))
    state.write()
    change.push(performance.now() - begin)
    for (const number of state.compiler.unused()) node.datapath.removePolicyEntries(state.compiler.drop(number) ?? [])
  }
  const packet: number[] = []
  for (let round = 0; round < rounds; round++) {
    const before = programTime(node)
    await load({ ...inPod(client), cpu: 0 }, 'rr', server.v4, port, runMs)
    const after = programTime(node)
    packet.push((after.nanoseconds - before.nanoseconds) / (after.runs - before.runs))
  }
  // The next agent starts with nothing left of this one.
  for (let i = 0; i < count; i++) state.setPolicy(`default/np${i}`, undefined)
  state.write()
  for (const number of state.compiler.unused()) node.datapath.removePolicyEntries(state.compiler.drop(number) ?? [])
  return { all, change: change.length > 0 ? change : [0], entries, packetNs: median(packet) }
}

/** The first lets the client in on any port; each of the others another peer on another port. */
const policy = (name: string, i: number, generation: number): NetworkPolicy =>
  ({
    metadata: { namespace: 'default', name, uid: name, generation },
    spec: {
      podSelector: { matchLabels: { app: 'server' } },
      policyTypes: ['Ingress'],
      ingress: [
        {
          from: [{ podSelector: { matchLabels: { app: `a${i % identities}` } } }],
          ...(i === 0 ? {} : { ports: [{ protocol: 'TCP', port: 10_000 + i }] }),
        },
      ],
    },
  }) as unknown as NetworkPolicy

function programTime(node: TestNode): { readonly runs: number; readonly nanoseconds: number } {
  const dir = join(node.pinDir, 'programs')
  const version = readdirSync(dir).find((entry) => entry.startsWith('from_container-')) ?? ''
  using program = Program.openPin(join(dir, version, 'from_container'))
  if (program === undefined) throw new Error('from_container is not pinned')
  const { runs, runNanoseconds } = program.info
  return { runs, nanoseconds: runNanoseconds }
}

function percentile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b)
  const value = sorted[Math.ceil(sorted.length * share) - 1]
  if (value === undefined) throw new RangeError('there are no values')
  return value
}
