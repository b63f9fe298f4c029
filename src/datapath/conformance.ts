import type { ExecutionContext, TestFn } from 'ava'
import type { Datapath, Endpoint, KnownAddress, Service } from './datapath.ts'
import { frontendName } from './frontend.ts'

/** One datapath and what it stands on. */
export interface DatapathUnderTest {
  readonly datapath: Datapath
  /** Devices that exist: attaching to another fails. */
  readonly devices: readonly number[]
  /** The agent ends and another comes: a new datapath on what the old one left. */
  reopen(): Promise<Datapath>
}

const service = (address: string, port: number, ...backends: readonly string[]): Service => ({
  frontend: { address, port, protocol: 'TCP' },
  backends: backends.map((backend) => ({ address: backend, port: 8080, protocol: 'TCP' })),
})

const names = (services: readonly Service[]): string[] =>
  services
    .map(({ frontend, backends }) => `${frontendName(frontend)} -> ${backends.map(frontendName).join(' ')}`)
    .toSorted()

/** What every datapath promises. Tests run one after the other on one datapath; each leaves it as it found it. */
export function testDatapath(
  test: TestFn,
  name: string,
  create: (t: ExecutionContext) => Promise<DatapathUnderTest>,
): void {
  const check = (title: string, body: (t: ExecutionContext, under: DatapathUnderTest) => Promise<void>): void => {
    test.serial(`${name}: ${title}`, async (t) => body(t, await create(t)))
  }
  const endpoint = (under: DatapathUnderTest, i: number, id: string, ...addresses: readonly string[]): Endpoint => ({
    id,
    addresses,
    ifindex: under.devices[i] ?? 0,
    mac: `02:00:00:00:00:0${i + 1}`,
  })

  check('an endpoint has its addresses until it is removed', async (t, under) => {
    const { datapath } = under
    const one = endpoint(under, 0, 'one', '10.0.0.1', 'fd00::1')
    await datapath.upsertEndpoint(one)
    await datapath.upsertEndpoint(one)
    t.deepEqual([...datapath.addresses()].toSorted(), [
      ['10.0.0.1', one.ifindex],
      ['fd00::1', one.ifindex],
    ])
    datapath.removeEndpoint(one)
    datapath.removeEndpoint(one)
    t.is(datapath.addresses().size, 0)
  })

  check('an address that moved on to another sandbox survives the end of the first', async (t, under) => {
    const { datapath } = under
    const first = endpoint(under, 0, 'first', '10.0.0.2')
    const second = endpoint(under, 1, 'second', '10.0.0.2')
    await datapath.upsertEndpoint(first)
    await datapath.upsertEndpoint(second)
    datapath.removeEndpoint(first)
    t.is(datapath.addresses().get('10.0.0.2'), second.ifindex)
    datapath.removeEndpoint(second)
    t.is(datapath.addresses().size, 0)
  })

  check('pruning takes away what belongs to no endpoint, and only that', async (t, under) => {
    const { datapath } = under
    const stays = endpoint(under, 0, 'stays', '10.0.0.3')
    const goes = endpoint(under, 1, 'goes', '10.0.0.4')
    await datapath.upsertEndpoint(stays)
    await datapath.upsertEndpoint(goes)
    t.true(datapath.pruneEndpoints([stays]).includes('10.0.0.4'))
    t.deepEqual([...datapath.addresses().keys()], ['10.0.0.3'])
    t.deepEqual(datapath.pruneEndpoints([stays]), [])
    datapath.pruneEndpoints([])
    t.is(datapath.addresses().size, 0)
  })

  check('Services are written, changed and removed together', async (t, under) => {
    const { datapath } = under
    const a = service('10.96.0.1', 80, '10.0.0.1', '10.0.0.2')
    const b = service('fd00:10:96::1', 80, 'fd00::1')
    const none = service('10.96.0.2', 80)
    datapath.changeServices([a, b, none], [])
    t.deepEqual(names(datapath.services()), names([a, b, none]))
    const changed = service('10.96.0.1', 80, '10.0.0.2', '10.0.0.3', '10.0.0.4')
    datapath.changeServices([changed], [b.frontend])
    t.deepEqual(names(datapath.services()), names([changed, none]))
    datapath.changeServices([], [changed.frontend, none.frontend, b.frontend])
    t.deepEqual(datapath.services(), [])
  })

  check('all that a Service says is there again after a restart', async (t, under) => {
    const [inside] = service('10.96.0.1', 80, '10.0.0.1').backends
    const plain = service('10.96.0.9', 81, '10.0.0.1', '10.0.0.2')
    const all: Service[] = [
      {
        ...service('172.30.0.200', 80, '10.0.0.1', '10.0.0.2'),
        outside: {
          backends: inside === undefined ? [] : [inside],
          isLocal: true,
          ranges: ['192.0.2.0/24', '2001:db8::/32'],
        },
        number: 'ab12',
        port: 80,
        affinitySeconds: 10_800,
      },
      { ...service('0.0.0.0', 30_080, '10.0.0.1'), outside: { backends: [] }, number: 'ab12', port: 80 },
      { ...service('::', 30_080, 'fd00::1'), outside: service('::', 1, 'fd00::1'), number: 'ab12', port: 80 },
      { ...service('172.30.0.201', 80), number: 'ab13', port: 80, toStack: true },
      { ...service('192.0.2.1', 80), outside: { backends: [] }, number: 'ab14', port: 80, isOutsideOnly: true },
    ].map((s) => ('frontend' in (s.outside ?? {}) ? { ...s, outside: { backends: s.outside?.backends ?? [] } } : s))
    const known: KnownAddress[] = [
      { address: '172.30.0.11', kind: 'own' },
      { address: 'fd00:172:30::12', kind: 'node' },
      { address: '172.30.0.200', kind: 'virtual' },
      { address: '192.0.2.1', kind: 'external' },
      { address: '169.254.20.10', kind: 'resolver' },
    ]
    under.datapath.changeServices([...all, plain], [])
    under.datapath.setAddresses(known)
    const datapath = await under.reopen()
    const order = (list: readonly Service[]): readonly Service[] =>
      list.toSorted((a, b) => (frontendName(a.frontend) < frontendName(b.frontend) ? -1 : 1))
    t.deepEqual(order(datapath.services()), order([...all, plain]))
    const byAddress = (list: readonly KnownAddress[]): readonly KnownAddress[] =>
      list.toSorted((a, b) => (a.address < b.address ? -1 : 1))
    t.deepEqual(byAddress(datapath.knownAddresses()), byAddress(known))
    datapath.changeServices(
      [],
      [...all, plain].map((s) => s.frontend),
    )
    datapath.setAddresses([])
    t.deepEqual([datapath.services(), datapath.knownAddresses()], [[], []])
  })

  check('what was set is there again after a restart', async (t, under) => {
    const one = endpoint(under, 0, 'one', '10.0.0.1')
    const a = service('10.96.0.1', 80, '10.0.0.1', '10.0.0.2')
    const b = service('10.96.0.2', 443, '10.0.0.2', '10.0.0.3')
    await under.datapath.upsertEndpoint(one)
    under.datapath.changeServices([a, b], [])
    const datapath = await under.reopen()
    t.deepEqual([...datapath.addresses()], [['10.0.0.1', one.ifindex]])
    t.deepEqual(names(datapath.services()), names([a, b]))
    const c = service('10.96.0.3', 80, '10.0.0.9')
    datapath.changeServices([c], [a.frontend])
    t.deepEqual(names(datapath.services()), names([b, c]))
    datapath.changeServices([], [b.frontend, c.frontend])
    datapath.removeEndpoint(one)
  })

  check('routes are those of the nodes that there are', async (t, { datapath }) => {
    const self = { name: 'self', podCidrs: ['10.244.9.0/24', 'fd00:10:244:9::/64'], via: undefined }
    const other = {
      name: 'other',
      podCidrs: ['10.244.8.0/24', 'fd00:10:244:8::/64'],
      via: ['172.30.0.12', 'fd00:172:30::12'],
    }
    const v4Only = { name: 'v4', podCidrs: ['10.244.7.0/24', 'fd00:10:244:7::/64'], via: ['172.30.0.13'] }
    await datapath.setNodes([self, other, v4Only])
    const expected = new Map([
      ['10.244.9.0/24', ''],
      ['fd00:10:244:9::/64', ''],
      ['10.244.8.0/24', '172.30.0.12'],
      ['fd00:10:244:8::/64', 'fd00:172:30::12'],
      ['10.244.7.0/24', '172.30.0.13'],
    ])
    t.deepEqual(new Map([...(await datapath.nodeRoutes())].toSorted()), new Map([...expected].toSorted()))
    await datapath.setNodes([self, { ...other, via: ['172.30.0.14', 'fd00:172:30::14'] }])
    t.is((await datapath.nodeRoutes()).get('10.244.8.0/24'), '172.30.0.14')
    t.is((await datapath.nodeRoutes()).size, 4)
    await datapath.setNodes([])
    t.is((await datapath.nodeRoutes()).size, 0)
  })

  check('identities are known by address until they are taken away', async (t, { datapath }) => {
    datapath.upsertIdentities([
      { address: '10.9.0.1', identity: 300, owner: 'a' },
      { address: 'fd00:9::1', identity: 300, owner: 'a', node: 2, tunnel: '172.30.0.12' },
    ])
    datapath.upsertIdentities([{ address: '10.9.0.1', identity: 301, owner: 'a' }])
    t.deepEqual(
      [...datapath.identities()].toSorted(([, a], [, b]) => a - b),
      [
        ['fd00:9::1', 300],
        ['10.9.0.1', 301],
      ],
    )
    datapath.removeIdentities(['10.9.0.1', 'fd00:9::1', '10.9.0.2'])
    t.is(datapath.identities().size, 0)
  })

  check('a change of policies has its elements, networks and endpoints; a restart finds them', async (t, under) => {
    const one = endpoint(under, 0, 'one', '10.0.0.1', 'fd00::1')
    await under.datapath.upsertEndpoint({ ...one, egressSet: 4 })
    const any = { set: 9, peer: 300, protocol: undefined, port: 0, portBits: 0, rule: 7 }
    const ports = { set: 9, peer: 0, protocol: 6, port: 8080, portBits: 12, rule: 8 }
    under.datapath.changePolicy({
      entries: [any, ports],
      networks: new Map([['10.9.0.0/16', 2 ** 24]]),
      endpoints: [{ addresses: one.addresses, ingressSet: 9 }],
    })
    const datapath = await under.reopen()
    t.deepEqual(
      datapath.policyEntries().toSorted((a, b) => a.rule - b.rule),
      [any, ports],
    )
    t.deepEqual([...datapath.policyNetworks()], [['10.9.0.0/16', 2 ** 24]])
    await datapath.upsertEndpoint(one)
    for (const address of one.addresses)
      t.deepEqual(datapath.endpointPolicies().get(address), { egressSet: 4, ingressSet: 9 })
    datapath.changePolicy({
      removedNetworks: ['10.9.0.0/16'],
      endpoints: [{ addresses: one.addresses, ingressSet: 0 }],
    })
    datapath.removePolicyEntries([any, ports])
    t.deepEqual([datapath.policyEntries(), datapath.policyNetworks().size], [[], 0])
    t.deepEqual(datapath.endpointPolicies().get('fd00::1'), { egressSet: 4, ingressSet: 0 })
    datapath.removeEndpoint(one)
  })

  check(
    'another sandbox with the address has nothing of the first one’s policies',
    async (t, { datapath, devices }) => {
      const first = { id: 'first', addresses: ['10.0.0.7'], ifindex: devices[0] ?? 0, mac: '02:00:00:00:00:01' }
      const second = { id: 'second', addresses: ['10.0.0.7'], ifindex: devices[1] ?? 0, mac: '02:00:00:00:00:02' }
      await datapath.upsertEndpoint({ ...first, ingressSet: 9, egressSet: 9 })
      await datapath.upsertEndpoint(second)
      t.deepEqual(datapath.endpointPolicies().get('10.0.0.7'), { egressSet: 0, ingressSet: 0 })
      datapath.removeEndpoint(first)
      datapath.removeEndpoint(second)
    },
  )

  check('a sweep takes nothing where there is nothing', async (t, { datapath }) => {
    t.deepEqual(await datapath.sweepFlows(), { kept: 0, removed: 0 })
    t.deepEqual(datapath.flows(), [])
  })

  check('every reason has a counter for both directions', async (t, { datapath }) => {
    const counters = datapath.counters()
    t.is(new Set(counters.map((c) => `${c.direction} ${c.reason}`)).size, counters.length)
    t.true(counters.some((c) => c.reason === 'Forwarded'))
  })
}
