import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import fc from 'fast-check'
import { bpfDir, compile } from '../compile.ts'
import type { Service } from '../datapath.ts'
import { decodeEvent } from '../events/event.ts'
import { type Layout, type Member, readLayouts } from '../layouts.ts'
import { encodeConfig } from '../object.ts'
import { decodeAddress, encodeAddress } from './address.ts'
import { addressFlags } from './addresses.ts'
import { directions, readCounters, reasons } from './counters.ts'
import { decodeEndpoint, encodeEndpoint } from './endpoints.ts'
import { decodeSweep, decodeTuple, encodeSweep, encodeTuple, flowFlags, readFlows } from './flows.ts'
import { IdentityMap } from './identities.ts'
import { decodePeer, encodePeer } from './peer.ts'
import { PeerTable } from './peer-table.ts'
import { PolicyMaps } from './policy.ts'
import { frontendFlags, ServiceMaps } from './services.ts'
import { RunAllocator } from './slots.ts'
import {
  decodeTranslation,
  decodeTranslationSweep,
  encodeStale,
  encodeTranslationSweep,
  rewriteFlags,
  writeExclusions,
} from './translations.ts'
import { asMap, SmallMap } from './trial.ts'

let layouts: ReadonlyMap<string, Layout>
test.before(async () => {
  layouts = readLayouts(await compile({ cacheDir: '/var/cache/weft/bpf' }))
})

function layout(name: string): Layout {
  const found = layouts.get(name)
  if (found === undefined) throw new Error(`no object has struct ${name}`)
  return found
}
const hex = (address: string): string => encodeAddress(address).toString('hex')
/** The bytes are such a struct with these members, and nothing is beside them. */
function isStruct(t: ExecutionContext, name: string, bytes: Buffer | undefined, members: Record<string, Member>): void {
  t.deepEqual(layout(name).read(bytes ?? Buffer.alloc(0)), members, name)
  t.deepEqual(bytes, layout(name).write(members), `${name}: padding`)
}
const written = (map: SmallMap): { readonly key: Buffer; readonly value: Buffer } => {
  const [first] = map.entries()
  if (first === undefined) throw new Error('nothing was written')
  return first
}

const v4 = '10.1.2.3'
const v6 = 'fd00::1:2'
const tuple = { source: v4, destination: v6, sourcePort: 0x1234, destinationPort: 0x5678, protocol: 6 }
const tupleMembers = {
  source: hex(v4),
  destination: hex(v6),
  source_port: 0x1234,
  destination_port: 0x5678,
  protocol: 6,
}

test('struct tuple, struct flow', (t) => {
  isStruct(t, 'tuple', encodeTuple(tuple), tupleMembers)
  t.deepEqual(decodeTuple(layout('tuple').write(tupleMembers)), tuple)
  const flows = new SmallMap(1)
  flows.update(
    encodeTuple(tuple),
    layout('flow').write({
      ...{ seen: 1n, timeout: 2n, born: 3n, epoch: 4, flags: flowFlags.clientLower, number: 5 },
      ...{ client_identity: 6, server_identity: 7, egress_rule: 8, ingress_rule: 9 },
      ...{ packets: [10n, 11n], bytes: [12n, 13n] },
    }),
  )
  t.deepEqual(readFlows(asMap(flows), asMap(new SmallMap(1))), [
    {
      ...{ tuple, seen: 1n, timeout: 2n, born: 3n, epoch: 4, flags: flowFlags.clientLower, number: 5 },
      client: { identity: 6, packets: 10, bytes: 12 },
      server: { identity: 7, packets: 11, bytes: 13 },
      ...{ egressRule: 8, ingressRule: 9 },
    },
  ])
})

test('struct endpoint, struct identity', (t) => {
  const common = { number: 4095, identity: 256, since: 9, owner: 0xffff_fffe }
  const endpoint = { ...common, ifindex: 70_000, mac: '02:aa:bb:cc:dd:ee', egressSet: 7, ingressSet: 8 }
  const bytes = encodeEndpoint(endpoint)
  isStruct(t, 'endpoint', bytes, {
    ...{ ...common, ifindex: 70_000, mac: '02aabbccddee', egress_set: 7, ingress_set: 8 },
  })
  t.deepEqual(decodeEndpoint(bytes), endpoint)
  const map = new SmallMap(1)
  const identities = new IdentityMap(asMap(map))
  const entry = { identity: 256, node: 2, tunnel: '172.30.0.12', since: 9, owner: 10 }
  identities.set(v4, entry)
  t.is(written(map).key.toString('hex'), hex(v4))
  isStruct(t, 'identity', written(map).value, { identity: 256, node: 2, tunnel: 0xac1e_000c, since: 9, owner: 10 })
  t.deepEqual(identities.get(v4), entry)
})

test('struct policy_key, policy_value, network_key, policy_state', (t) => {
  const [policy, networks, state] = [new SmallMap(1), new SmallMap(1), new SmallMap(1)]
  const maps = new PolicyMaps({ policy: asMap(policy), networks: asMap(networks), state: asMap(state) })
  const entry = { set: 1, peer: 2, protocol: 6, port: 0x1230, portBits: 12, rule: 3 }
  maps.add([entry])
  isStruct(t, 'policy_key', written(policy).key, { prefix: 92, set: 1, peer: 2, protocol: 6, port: 0x1230 })
  isStruct(t, 'policy_value', written(policy).value, { rule: 3 })
  t.deepEqual(maps.entries(), [entry])
  maps.setNetwork('10.1.0.0/16', 7)
  isStruct(t, 'network_key', written(networks).key, { prefix: 112, address: hex('10.1.0.0') })
  isStruct(t, 'network_value', written(networks).value, { class: 7 })
  t.deepEqual([...maps.networks()], [['10.1.0.0/16', 7]])
  t.is(maps.networkCount, 1)
  // Counted and not read again: with ten thousand networks each change would take the node 0.1 s.
  networks.entries = () => {
    throw new Error('read again')
  }
  t.is(maps.networkCount, 1)
  maps.removeNetwork('10.1.0.0/16')
  t.is(maps.networkCount, 0)
  maps.state = { epoch: 5, networks: 1 }
  isStruct(t, 'policy_state', written(state).value, { epoch: 5, networks: 1 })
  t.deepEqual(maps.state, { epoch: 5, networks: 1 })
})

test('struct frontend_key, backend, frontend, source_range_key, member_key', (t) => {
  const peer = { address: v6, port: 0x1234, protocol: 'UDP' } as const
  for (const name of ['frontend_key', 'backend'])
    isStruct(t, name, encodePeer(peer), { address: hex(v6), port: 0x1234, protocol: 17 })
  const kernel = {
    ...{ frontends: new SmallMap(1), slots: new SmallMap(9), backends: new SmallMap(9) },
    ...{ sourceRanges: new SmallMap(1), members: new SmallMap(3) },
  }
  const other = { address: v4, port: 8080, protocol: 'UDP' } as const
  const service: Service = {
    ...{ frontend: peer, backends: [peer], outside: { backends: [peer, other], ranges: ['10.1.0.0/16'] } },
    ...{ number: '123456789abcdef0', port: 0x2345, affinitySeconds: 77 },
  }
  new ServiceMaps(kernel, () => 0).change([service], [])
  const { key, value } = written(kernel.frontends)
  t.deepEqual(decodePeer(key), peer)
  const { first = -1, outside_first = -1, ...rest } = layout('frontend').read(value)
  t.deepEqual(rest, {
    ...{ service: 0x1234_5678_9abc_def0n, count: 1, outside_count: 2, affinity: 77, port: 0x2345 },
    flags: frontendFlags.outside | frontendFlags.ranges,
  })
  const behind = (slot: number): string => {
    const index = Buffer.alloc(4)
    index.writeUInt32LE(slot)
    return decodePeer(kernel.backends.lookup(kernel.slots.lookup(index) ?? index) ?? Buffer.alloc(20)).address
  }
  t.deepEqual([behind(Number(first)), behind(Number(outside_first)), behind(Number(outside_first) + 1)], [v6, v6, v4])
  t.deepEqual(new ServiceMaps(kernel, () => 0).list(), [service])
  isStruct(t, 'source_range_key', written(kernel.sourceRanges).key, {
    ...{ prefix: 64 + 112, service: [0x9abc_def0, 0x1234_5678], address: hex('10.1.0.0') },
  })
  const members = kernel.members.entries().map((entry) => layout('member_key').read(entry.key))
  const common = { service: 0x1234_5678_9abc_def0n, port: 0x2345, protocol: 17 }
  t.deepEqual(members, [
    { ...common, backend: hex(v6), outside: 0 },
    { ...common, backend: hex(v6), outside: 1 },
    { ...common, backend: hex(v4), outside: 1 },
  ])
})

test('struct rewrite, stale_key, exclusion_key', (t) => {
  const rewrite = { service: 0xabcn, seen: 4, flags: rewriteFlags.out }
  const to = encodeTuple({ ...tuple, sourcePort: 9 })
  t.deepEqual(decodeTranslation(encodeTuple(tuple), layout('rewrite').write({ ...rewrite, to: to.toString('hex') })), {
    from: tuple,
    to: { ...tuple, sourcePort: 9 },
    service: 'abc',
    seen: 4,
    flags: rewriteFlags.out,
  })
  isStruct(t, 'stale_key', encodeStale({ address: v4, port: 0x1234, protocol: 'TCP', service: 'abc' }), {
    ...{ service: 0xabcn, backend: hex(v4), port: 0x1234, protocol: 6 },
  })
  const exclusions = new SmallMap(1)
  writeExclusions(asMap(exclusions), ['10.1.0.0/16'])
  isStruct(t, 'exclusion_key', written(exclusions).key, { prefix: 112, address: hex('10.1.0.0') })
})

test('struct sweep, translation_sweep, counter, event, and the networks of the configuration', (t) => {
  isStruct(t, 'sweep', encodeSweep(7), { now: 0n, endpoint: 7, kept: 0, removed: 0 })
  t.deepEqual(decodeSweep(layout('sweep').write({ kept: 1, removed: 2 })), { kept: 1, removed: 2 })
  isStruct(t, 'translation_sweep', encodeTranslationSweep(true), { now: 0, stale: 1, kept: 0, removed: 0 })
  const swept = decodeTranslationSweep(layout('translation_sweep').write({ kept: 1, removed: 2 }))
  t.deepEqual(swept, { kept: 1, removed: 2 })
  const counters = new SmallMap(1)
  const perCpu = [1n, 10n].map((packets) => layout('counter').write({ packets, bytes: packets * 2n }))
  counters.update(Buffer.from([3, 0, 0, 0]), Buffer.concat(perCpu))
  t.deepEqual(readCounters(asMap(counters))[3], {
    ...{ reason: reasons[1], direction: directions[1], packets: 11, bytes: 22 },
  })
  const event = layout('event').write({
    ...{ time: 1n, tuple: encodeTuple(tuple).toString('hex'), frontend: hex('10.96.0.1'), frontend_port: 80 },
    ...{ kind: 2, direction: 1, ifindex: 3, source_identity: 4, destination_identity: 5, rule: 6, reason: 7 },
    ...{ tcp_flags: 8, is_reply: 1, length: 9, set: 10 },
  })
  t.deepEqual(decodeEvent(event), {
    ...{ ...tuple, time: 1n, frontend: { address: '10.96.0.1', port: 80 }, kind: 'drop', direction: directions[1] },
    ...{ ifindex: 3, sourceIdentity: 4, destinationIdentity: 5, rule: 6, reason: 'Policy denied', tcpFlags: 8 },
    ...{ isReply: true, length: 9, set: 10 },
  })
  const [uplinkMac, gatewayMac] = ['02:00:00:00:00:02', '02:00:00:00:00:01']
  const config = encodeConfig({ serviceCidrs: ['10.96.0.0/16'], gatewayMac, uplinkMac })
  isStruct(t, 'network', config.get('cfg_service_network4'), {
    base: hex('10.96.0.0'),
    mask: `${'f'.repeat(28)}0000`,
  })
  t.is(config.get('cfg_gateway_mac')?.length, layout('mac').size)
})

test('reasons and directions have the words for the numbers that programs count', (t) => {
  const header = readFileSync(join(bpfDir, 'abi/drop.h'), 'utf8')
  const numbered = [...header.matchAll(/REASON_(\w+) = (\d+)/g)].filter(([, name]) => name !== 'MAX')
  t.deepEqual(
    numbered.map(([, , number]) => Number(number)),
    reasons.map((_, i) => i),
  )
  t.is<number, number>(directions.length, Number(/DIRECTION_MAX = (\d+)/.exec(header)?.[1]))
})

test('flags have the bits and names of the headers', (t) => {
  const inHeader = (file: string, prefix: string): Record<string, number> => {
    const found = readFileSync(join(bpfDir, 'maps', file), 'utf8').matchAll(
      new RegExp(`^\\s*${prefix}_([A-Z_]+) = 1 << (\\d+)`, 'gm'),
    )
    const nameOf = (text: string): string => text.toLowerCase().replaceAll(/_(.)/g, (_, c: string) => c.toUpperCase())
    return Object.fromEntries([...found].map(([, name = '', bit]) => [nameOf(name), 1 << Number(bit)]))
  }
  const ours: readonly (readonly [Readonly<Record<string, number>>, string, string])[] = [
    [flowFlags, 'flows.h', 'FLOW'],
    [frontendFlags, 'services.h', 'FRONTEND'],
    [addressFlags, 'services.h', 'ADDRESS'],
    [rewriteFlags, 'translations.h', 'REWRITE'],
  ]
  for (const [flags, file, prefix] of ours) t.deepEqual(flags, inHeader(file, prefix))
})

const ip4 = fc.ipV4()
const ip6 = fc.ipV6().filter((text) => !text.includes('.') && !/^(0*:)*:?ffff:/i.test(text) && !text.startsWith('::'))

test('addresses and peers come back as they were written', (t) => {
  fc.assert(
    fc.property(
      fc.oneof(ip4, ip6),
      fc.integer({ min: 1, max: 65535 }),
      fc.constantFrom('TCP', 'UDP'),
      (ip, port, protocol) => {
        const address = decodeAddress(encodeAddress(ip))
        t.is(decodeAddress(encodeAddress(address)), address)
        t.deepEqual(decodePeer(encodePeer({ address, port, protocol: protocol as 'TCP' })), {
          address,
          port,
          protocol,
        } as never)
      },
    ),
    { numRuns: 200 },
  )
})

test('an IPv4-mapped address is refused: it would pass for IPv4', (t) => {
  t.throws(() => encodeAddress('::ffff:10.0.0.1'), { instanceOf: RangeError, message: /write it as IPv4/ })
  t.throws(() => encodeAddress('10.0.0'), { instanceOf: RangeError })
})

test('RunAllocator never hands out a run that is in use or resting, whatever the order', (t) => {
  const command = fc.oneof(
    fc.record({ take: fc.integer({ min: 1, max: 9 }) }),
    fc.record({ give: fc.nat() }),
    fc.record({ pass: fc.integer({ min: 1, max: 900 }) }),
    fc.constant({ restart: true }),
  )
  fc.assert(
    fc.property(fc.array(command, { maxLength: 60 }), (commands) => {
      let now = 0
      const restMs = 1_000
      const create = (): RunAllocator => new RunAllocator({ limit: 128, restMs, now: () => now })
      let allocator = create()
      let used: { first: number; count: number }[] = []
      let resting: { first: number; count: number; until: number }[] = []
      for (const step of commands) {
        if ('take' in step) {
          const first = allocator.take(step.take)
          if (first === undefined) continue
          const end = first + step.take
          const busy = [...used, ...resting.filter((r) => r.until > now)]
          if (first < 0 || end > 128 || busy.some((r) => first < r.first + r.count && r.first < end))
            throw new Error(`run ${first}+${step.take} overlaps`)
          used.push({ first, count: step.take })
        } else if ('give' in step && used.length > 0) {
          const [run] = used.splice(step.give % used.length, 1)
          if (run === undefined) continue
          allocator.give(run.first, run.count)
          resting.push({ ...run, until: now + restMs })
        } else if ('pass' in step) {
          now += step.pass
        } else if ('restart' in step) {
          // A new agent takes longer to start than anything rests.
          allocator = create()
          allocator.restore(used)
          resting = []
        }
      }
      used = []
    }),
    { numRuns: 500 },
  )
  t.pass()
})

test('RunAllocator says that it is full, and has room again after what was given back has rested', (t) => {
  let now = 0
  const allocator = new RunAllocator({ limit: 4, restMs: 1_000, now: () => now })
  t.is(allocator.take(4), 0)
  t.is(allocator.take(1), undefined)
  allocator.give(0, 4)
  t.is(allocator.take(1), undefined)
  now = 1_000
  t.is(allocator.take(1), 0)
  t.is(allocator.take(2), 1)
})

test('PeerTable has what a Map by text would have, also of several ports at one address', (t) => {
  const peer = fc.record({
    address: fc.constantFrom('10.0.0.1', '10.0.0.2', 'fd00::1'),
    port: fc.integer({ min: 1, max: 3 }),
    protocol: fc.constantFrom('TCP' as const, 'UDP' as const),
  })
  fc.assert(
    fc.property(fc.array(fc.tuple(peer, fc.option(fc.nat())), { maxLength: 40 }), (steps) => {
      const table = new PeerTable<number>()
      const model = new Map<string, number>()
      for (const [who, value] of steps) {
        const name = `${who.address} ${who.port} ${who.protocol}`
        const old = value === null ? table.delete(who) : table.set(who, value)
        const expected = model.get(name)
        if (value === null) model.delete(name)
        else model.set(name, value)
        if (old !== expected || table.get(who) !== model.get(name)) return false
      }
      return String([...table.values()].toSorted()) === String([...model.values()].toSorted())
    }),
  )
  t.pass()
})

test('L4: at each write of a change a packet finds all of the old backends or all of the new ones', (t) => {
  let look = (): void => {}
  /** Packets come between any two writes. */
  class Watched extends SmallMap {
    override update(key: Uint8Array, value: Uint8Array): void {
      super.update(key, value)
      look()
    }
    override delete(key: Uint8Array): boolean {
      const was = super.delete(key)
      look()
      return was
    }
  }
  let now = 0
  const kernel = { frontends: new Watched(5), slots: new Watched(64), backends: new Watched(32) }
  const maps = new ServiceMaps(kernel, () => now)
  const frontend = { address: '10.96.0.1', port: 80, protocol: 'TCP' as const }
  const service = (...last: readonly number[]): Service => ({
    frontend,
    backends: last.map((i) => ({ address: `10.0.0.${i}`, port: 8080, protocol: 'TCP' as const })),
  })
  /** As the programs go: frontend, slots, backends. */
  const found = (): string => {
    const row = kernel.frontends.lookup(encodePeer(frontend))
    if (row === undefined) return 'none'
    const number = (n: number): Buffer => {
      const bytes = Buffer.alloc(4)
      bytes.writeUInt32LE(n)
      return bytes
    }
    return Array.from({ length: row.readUInt32LE(12) }, (_, i) => {
      const slot = kernel.slots.lookup(number(row.readUInt32LE(8) + i))
      const backend = slot === undefined ? undefined : kernel.backends.lookup(number(slot.readUInt32LE(0)))
      return backend === undefined ? 'missing' : decodePeer(backend).address.slice('10.0.0.'.length)
    }).join()
  }
  let looks = 0
  const seen: string[] = []
  look = () => {
    looks++
    if (seen.at(-1) !== found()) seen.push(found())
  }
  // Twelve at once go in one call, three in one each.
  const many = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
  for (const backends of [[1, 2, 3], [3, 4], many, [13], [14, 15, 16], [1]]) {
    // Sooner than what a change gave up may be used again.
    now += 10
    maps.change([service(...backends)], [])
  }
  maps.change([], [frontend])
  t.deepEqual(seen, ['none', '1,2,3', '3,4', many.join(), '13', '14,15,16', '1', 'none'])
  t.true(looks > 40)
})

test('ServiceMaps: whatever fits or does not, the kernel has what was said, and a restart reads the same', (t) => {
  const frontend = fc
    .integer({ min: 1, max: 8 })
    .map((i) => ({ address: `10.96.0.${i}`, port: 80, protocol: 'TCP' as const }))
  const backend = fc
    .integer({ min: 1, max: 9 })
    .map((i) => ({ address: `10.0.0.${i}`, port: 8080, protocol: 'TCP' as const }))
  const service = fc.record({
    frontend,
    backends: fc.uniqueArray(backend, { maxLength: 6, selector: (b) => b.address }),
  })
  const change = fc.record({
    upserts: fc.uniqueArray(service, { maxLength: 4, selector: (s) => s.frontend.address }),
    removals: fc.array(frontend, { maxLength: 2 }),
  })
  const text = (maps: ServiceMaps): string =>
    JSON.stringify(maps.list().toSorted((a, b) => (a.frontend.address < b.frontend.address ? -1 : 1)))
  let refused = 0
  fc.assert(
    fc.property(fc.array(change, { maxLength: 30 }), (changes) => {
      let now = 0
      const kernel = { frontends: new SmallMap(5), slots: new SmallMap(16), backends: new SmallMap(8) }
      const open = (): ServiceMaps => new ServiceMaps(kernel, () => now)
      const maps = open()
      for (const { upserts, removals } of changes) {
        now += 400
        const before = text(maps)
        const gone = removals.filter((f) => !upserts.some((s) => s.frontend.address === f.address))
        try {
          maps.change(upserts, gone)
          for (const wanted of upserts)
            if (!text(maps).includes(JSON.stringify(wanted))) throw new Error('a change was taken and is not there')
        } catch (error) {
          if (!/E2BIG|in use/.test(String(error))) throw error
          refused++
          if (text(maps) !== before) throw new Error('a refused change left something behind')
        }
        if (text(open()) !== text(maps)) throw new Error('the kernel has something else')
      }
      // Nothing leaked: everything can be taken away and filled again.
      const eight = Array.from({ length: 8 }, (_, i) => ({ address: `10.1.0.${i}`, port: 1, protocol: 'TCP' as const }))
      const full = { frontend: { address: '10.96.1.1', port: 1, protocol: 'TCP' as const }, backends: eight }
      const all = maps.list().map((s) => s.frontend)
      maps.change([], all)
      now += 10_000
      maps.change([full], [])
    }),
    { numRuns: 300 },
  )
  t.true(refused > 10, `${refused} changes were refused`)
})
