import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import fc from 'fast-check'
import { bpfDir, type CompiledObject, compile } from './compile.ts'
import { testDatapath } from './conformance.ts'
import { FakeDatapath, FakeKernel } from './fake.ts'
import { addressSize, decodeAddress, encodeAddress } from './maps/address.ts'
import { addressFlags } from './maps/addresses.ts'
import { directions, reasons } from './maps/counters.ts'
import { decodeEndpoint, encodeEndpoint } from './maps/endpoints.ts'
import { encodeSweep, flowFlags, flowSize, tupleSize } from './maps/flows.ts'
import { identitySize } from './maps/identities.ts'
import { decodePeer, encodePeer, peerSize } from './maps/peer.ts'
import { PeerTable } from './maps/peer-table.ts'
import { encodeNetworkKey, encodePolicyState } from './maps/policy.ts'
import type { ServiceMap } from './maps/service-map.ts'
import { frontendFlags, frontendSize, ServiceMaps } from './maps/services.ts'
import { RunAllocator } from './maps/slots.ts'
import { rewriteFlags, rewriteSize } from './maps/translations.ts'
import { encodeConfig } from './object.ts'

testDatapath(test, 'fake', async () => {
  const kernel = new FakeKernel()
  return { datapath: new FakeDatapath(kernel), devices: [5, 6], reopen: async () => new FakeDatapath(kernel) }
})

/** What clang made of the headers: struct name -> size and member offsets in bytes. */
interface Layout {
  readonly size: number
  readonly members: ReadonlyMap<string, number>
}
let objects: readonly CompiledObject[] = []
let layouts: ReadonlyMap<string, Layout> = new Map()

test.before(async () => {
  objects = await compile({ cacheDir: '/var/cache/weft/bpf' })
  const dir = mkdtempSync(join(tmpdir(), 'weft-btf-'))
  const structs = new Map<string, Layout>()
  try {
    for (const { name, elf } of objects) {
      const file = join(dir, `${name}.o`)
      writeFileSync(file, elf)
      const btf = JSON.parse(execFileSync('bpftool', ['-j', 'btf', 'dump', 'file', file], { encoding: 'utf8' })) as {
        types: BtfType[]
      }
      for (const type of btf.types) {
        if (type.kind === 'STRUCT')
          structs.set(type.name, {
            size: type.size ?? 0,
            members: new Map((type.members ?? []).map((m) => [m.name, m.bits_offset / 8])),
          })
      }
    }
  } finally {
    rmSync(dir, { recursive: true })
  }
  layouts = structs
})

interface BtfType {
  readonly kind: string
  readonly name: string
  readonly size?: number
  readonly members?: readonly { readonly name: string; readonly bits_offset: number }[]
}

function layout(name: string): Layout {
  const found = layouts.get(name)
  if (found === undefined) throw new Error(`no object has struct ${name}`)
  return found
}

const endpointEntry = {
  ifindex: 70_000,
  mac: '02:aa:bb:cc:dd:ee',
  number: 4095,
  identity: 256,
  egressSet: 7,
  ingressSet: 8,
  since: 9,
  owner: 0xffff_fffe,
}

test('codecs write the structs that clang laid out', (t) => {
  t.is(layout('address').size, addressSize)
  t.is(layout('endpoint').size, encodeEndpoint(endpointEntry).length)
  t.deepEqual([...layout('endpoint').members.keys()].slice(0, 2), ['ifindex', 'mac'])
  t.is(layout('endpoint').members.get('mac'), 4)
  t.is(layout('endpoint').members.get('number'), 10)
  t.is(layout('endpoint').members.get('owner'), 28)
  t.is(layout('identity').size, identitySize)
  t.deepEqual([...layout('identity').members.values()], [0, 4, 8, 12, 16])
  t.is(layout('tuple').size, tupleSize)
  t.deepEqual([...layout('tuple').members.values()], [0, 16, 32, 34, 36, 37])
  t.is(layout('flow').size, flowSize)
  t.deepEqual(
    ['seen', 'timeout', 'born', 'epoch', 'flags', 'number', 'client_identity', 'egress_rule', 'packets', 'bytes'].map(
      (name) => layout('flow').members.get(name),
    ),
    [0, 8, 16, 24, 28, 30, 32, 40, 64, 80],
  )
  t.deepEqual([...layout('policy_key').members.values()], [0, 4, 8, 12, 13, 14])
  t.is(layout('network_key').size, encodeNetworkKey('10.0.0.0/8').length)
  t.is(layout('sweep').size, encodeSweep().length)
  t.deepEqual(
    ['endpoint', 'kept', 'removed'].map((name) => layout('sweep').members.get(name)),
    [8, 12, 16],
  )
  t.is(layout('policy_state').size, encodePolicyState({ epoch: 1, networks: 0 }).length)
  for (const name of ['frontend_key', 'backend']) {
    t.is(layout(name).size, peerSize)
    t.is(layout(name).members.get('port'), 16)
    t.is(layout(name).members.get('protocol'), 18)
  }
  t.is(layout('frontend').size, frontendSize)
  t.deepEqual([...layout('frontend').members.values()], [0, 8, 12, 16, 20, 24, 28, 30])
  t.deepEqual([...layout('source_range_key').members.values()], [0, 4, 12])
  t.deepEqual([...layout('member_key').members.values()], [0, 8, 24, 26, 27, 28])
  t.is(layout('rewrite').size, rewriteSize)
  t.deepEqual([...layout('rewrite').members.values()], [0, 40, 48, 52, 56, 60])
  t.deepEqual([...layout('stale_key').members.values()], [0, 8, 24, 26, 27])
  t.is(layout('counter').size, 16)
  t.is(layout('counter').members.get('bytes'), 8)
  const config = encodeConfig({
    serviceCidrs: ['10.96.0.0/16'],
    gatewayMac: '02:00:00:00:00:01',
    uplinkMac: '02:00:00:00:00:02',
  })
  t.is(config.get('cfg_service_network4')?.length, layout('network').size)
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

test('encodeConfig() masks networks as the programs compare them', (t) => {
  const network = encodeConfig({
    serviceCidrs: ['fd00:10:96::/112', '10.96.0.0/16'],
    gatewayMac: '02:00:00:00:00:01',
    uplinkMac: '02:00:00:00:00:01',
  })
  t.is(network.get('cfg_service_network4')?.toString('hex'), `${'0'.repeat(20)}ffff0a600000${'f'.repeat(28)}0000`)
  t.is(network.get('cfg_service_network6')?.toString('hex'), `fd00001000960000${'0'.repeat(16)}${'f'.repeat(28)}0000`)
})

const ip4 = fc.ipV4()
const ip6 = fc.ipV6().filter((text) => !text.includes('.') && !/^(0*:)*:?ffff:/i.test(text) && !text.startsWith('::'))

test('addresses, endpoints, and the peers that frontends and backends are named by, come back as they were written', (t) => {
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
  const endpoint = endpointEntry
  t.deepEqual(decodeEndpoint(encodeEndpoint(endpoint)), endpoint)
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

test('compile() takes objects from the cache, also where there is no clang, and says what is missing', async (t) => {
  t.deepEqual(
    (await compile({ cacheDir: '/var/cache/weft/bpf', clang: 'clang-that-is-not-there' })).map((o) => o.hash),
    objects.map((o) => o.hash),
  )
  await t.throwsAsync(compile({ cacheDir: '/nonexistent', clang: 'clang-that-is-not-there' }), {
    message: /install clang/,
  })
})

/** A map in memory that fills up. */
class SmallMap implements ServiceMap {
  readonly entriesMax: number
  readonly #entries = new Map<string, Buffer>()

  constructor(entriesMax: number) {
    this.entriesMax = entriesMax
  }

  lookup(key: Uint8Array): Buffer | undefined {
    return this.#entries.get(Buffer.from(key).toString('hex'))
  }

  update(key: Uint8Array, value: Uint8Array): void {
    const name = Buffer.from(key).toString('hex')
    if (!this.#entries.has(name) && this.#entries.size >= this.entriesMax) throw new Error('E2BIG')
    this.#entries.set(name, Buffer.from(value))
  }

  updateBatch(keys: Uint8Array, values: Uint8Array, count: number): void {
    const [keySize, valueSize] = [keys.length / count, values.length / count]
    for (let i = 0; i < count; i++)
      this.update(keys.subarray(i * keySize, (i + 1) * keySize), values.subarray(i * valueSize, (i + 1) * valueSize))
  }

  delete(key: Uint8Array): boolean {
    return this.#entries.delete(Buffer.from(key).toString('hex'))
  }

  entries(): { readonly key: Buffer; readonly value: Buffer }[] {
    return [...this.#entries].map(([key, value]) => ({ key: Buffer.from(key, 'hex'), value }))
  }
}

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
