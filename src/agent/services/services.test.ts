import test from 'ava'
import fc from 'fast-check'
import type { Service as KubeService, Node, Pod } from '#api/gen/core-v1.ts'
import type { Endpoint, EndpointSlice } from '#api/gen/discovery-v1.ts'
import { FakeClock } from '#base/clock.ts'
import { silentLog } from '#base/log/log.ts'
import type { Service } from '#datapath/datapath.ts'
import { frontendName } from '#datapath/frontend.ts'
import { elect, planKnownAddresses, publishedBy } from './addresses.ts'
import { Claims } from './claims.ts'
import { chooseBackends, onlyBackends } from './endpoints.ts'
import { externalUses } from './external.ts'
import { leftByDatagrams, takenOut } from './gone.ts'
import { HealthServers, healthOf, healthzPort, isEligible } from './health.ts'
import { reflectHostPorts } from './host-ports.ts'
import { type ReflectFacts, reflectService } from './reflect.ts'
import { fieldAsking, troublesOf } from './troubles.ts'

const facts = (more: Partial<ReflectFacts> = {}): ReflectFacts => ({
  nodeName: 'one',
  zone: 'a',
  externalUse: () => 'all',
  ...more,
})

const service = (spec: Record<string, unknown>, more: Record<string, unknown> = {}): KubeService =>
  ({
    metadata: { name: 'web', namespace: 'shop' },
    spec: { clusterIPs: ['10.96.0.10'], ports: [{ port: 80, protocol: 'TCP', nodePort: 30080 }], ...spec },
    status: { loadBalancer: { ingress: [{ ip: '172.30.0.200' }] } },
    ...more,
  }) as unknown as KubeService

const slice = (...endpoints: Endpoint[]): EndpointSlice =>
  ({
    metadata: { name: 'web-1', namespace: 'shop', labels: { 'kubernetes.io/service-name': 'web' } },
    addressType: 'IPv4',
    ports: [{ port: 8080, protocol: 'TCP' }],
    endpoints,
  }) as unknown as EndpointSlice

const at = (nodeName: string, address: string, more: Partial<Endpoint> = {}): Endpoint => ({
  addresses: [address],
  nodeName,
  conditions: { ready: true },
  ...more,
})
const going = { conditions: { ready: false, serving: true, terminating: true } }

/** `address:port inside / outside`, backends by their last number. */
const text = (rows: readonly Service[]): string[] =>
  rows.map(({ frontend, backends, outside }) => {
    const list = (all: readonly { address: string }[] | undefined): string =>
      all?.map((b) => b.address.split('.').at(-1)).join(',') ?? '-'
    return `${frontendName(frontend)} ${list(backends)} / ${list(outside?.backends)}${outside?.isLocal ? ' local' : ''}`
  })

const two = slice(at('one', '10.0.0.1'), at('two', '10.0.0.2'))

test('a LoadBalancer is asked for at its cluster address, its node port and its own address', (t) => {
  t.deepEqual(text(reflectService(service({ type: 'LoadBalancer', externalIPs: ['192.0.2.1'] }), [two], facts())), [
    '10.96.0.10:80/TCP 1,2 / -',
    '0.0.0.0:30080/TCP 1,2 / 1,2',
    '172.30.0.200:80/TCP 1,2 / 1,2',
    '192.0.2.1:80/TCP 1,2 / 1,2',
  ])
})

test('S9: with externalTrafficPolicy Local those outside get this node’s backends, pods get all', (t) => {
  const rows = (nodeName: string): string[] =>
    text(
      reflectService(service({ type: 'LoadBalancer', externalTrafficPolicy: 'Local' }), [two], facts({ nodeName })),
    ).slice(1)
  t.deepEqual(rows('one'), ['0.0.0.0:30080/TCP 1,2 / 1 local', '172.30.0.200:80/TCP 1,2 / 1 local'])
  t.deepEqual(rows('three'), ['0.0.0.0:30080/TCP 1,2 /  local', '172.30.0.200:80/TCP 1,2 /  local'])
})

test('S10: with internalTrafficPolicy Local the cluster address has this node’s backends, or none', (t) => {
  const rows = (nodeName: string): string | undefined =>
    text(reflectService(service({ internalTrafficPolicy: 'Local' }), [two], facts({ nodeName })))[0]
  t.is(rows('two'), '10.96.0.10:80/TCP 2 / -')
  t.is(rows('three'), '10.96.0.10:80/TCP  / -')
})

test('S11: both policies Local are two sets of backends in one Service', (t) => {
  const both = { type: 'NodePort', externalTrafficPolicy: 'Local', internalTrafficPolicy: 'Local' }
  t.deepEqual(text(reflectService(service(both), [two], facts({ nodeName: 'two' }))), [
    '10.96.0.10:80/TCP 2 / -',
    '0.0.0.0:30080/TCP 1,2 / 2 local',
  ])
})

test('S7: endpoints that are going serve only where none is ready, in the cluster and on the node', (t) => {
  const local = { type: 'NodePort', externalTrafficPolicy: 'Local' }
  const rows = (...endpoints: Endpoint[]): string[] =>
    text(reflectService(service(local), [slice(...endpoints)], facts()))
  t.is(rows(at('one', '10.0.0.1', going), at('two', '10.0.0.2'))[1], '0.0.0.0:30080/TCP 2 / 1 local')
  t.is(rows(at('one', '10.0.0.1', going), at('one', '10.0.0.2'))[1], '0.0.0.0:30080/TCP 2 / 2 local')
  t.is(rows(at('one', '10.0.0.1', going))[1], '0.0.0.0:30080/TCP 1 / 1 local')
})

test('S30: hints are followed only where every endpoint has them and one is for here', (t) => {
  const zone = (name: string): Partial<Endpoint> => ({ hints: { forZones: [{ name }] } })
  const rows = (where: Partial<ReflectFacts>, ...endpoints: Endpoint[]): string | undefined =>
    text(reflectService(service({}), [slice(...endpoints)], facts(where)))[0]
  const a = at('one', '10.0.0.1', zone('a'))
  const b = at('two', '10.0.0.2', zone('b'))
  t.is(rows({}, a, b), '10.96.0.10:80/TCP 1 / -')
  t.is(rows({ zone: 'b' }, a, b), '10.96.0.10:80/TCP 2 / -')
  t.is(rows({ zone: 'c' }, a, b), '10.96.0.10:80/TCP 1,2 / -', 'a zone without any')
  t.is(rows({ zone: undefined }, a, b), '10.96.0.10:80/TCP 1,2 / -', 'a node without a zone')
  t.is(rows({}, a, b, at('two', '10.0.0.3')), '10.96.0.10:80/TCP 1,2,3 / -', 'one without a hint')
  const near = at('one', '10.0.0.1', { hints: { forZones: [{ name: 'a' }], forNodes: [{ name: 'one' }] } })
  const other = at('two', '10.0.0.2', { hints: { forZones: [{ name: 'a' }], forNodes: [{ name: 'two' }] } })
  t.is(rows({}, near, other), '10.96.0.10:80/TCP 1 / -')
  t.is(rows({ nodeName: 'three' }, near, other), '10.96.0.10:80/TCP 1,2 / -')
})

test('S16: a Service’s frontends share affinity: same number, same port', (t) => {
  const rows = reflectService(service({ type: 'NodePort', sessionAffinity: 'ClientIP' }), [two], facts())
  t.deepEqual([...new Set(rows.map((r) => `${r.number} ${r.port} ${r.affinitySeconds}`))].length, 1)
  t.is(rows[0]?.affinitySeconds, 10_800)
})

test('S21: source ranges are for the load balancer’s address alone', (t) => {
  const rows = reflectService(
    service({ type: 'LoadBalancer', loadBalancerSourceRanges: [' 192.0.2.0/24'] }),
    [two],
    facts(),
  )
  t.deepEqual(
    rows.map((r) => r.outside?.ranges),
    [undefined, undefined, ['192.0.2.0/24']],
  )
})

test('S20: an external IP is never an address of the cluster, and pods use only what is allowed', (t) => {
  const use = externalUses({
    clusterCidrs: ['10.244.0.0/16', 'fd00:10:96::/112'],
    taken: new Set(['172.30.0.11']),
    allowed: ['198.51.100.0/24'],
  })
  const never = [
    '10.244.1.1',
    'fd00:10:96::1',
    '172.30.0.11',
    '127.0.0.1',
    '169.254.169.254',
    '::1',
    'fe80::1',
    '224.0.0.1',
  ]
  for (const address of [...never, 'nonsense']) t.is(use(address), 'none', address)
  t.is(use('198.51.100.7'), 'all')
  t.is(use('8.8.8.8'), 'outside')
  const rows = reflectService(service({ externalIPs: ['8.8.8.8', '10.244.1.1'] }), [two], facts({ externalUse: use }))
  t.deepEqual(text(rows).slice(1), ['8.8.8.8:80/TCP  / 1,2'])
  t.true(rows[1]?.isOutsideOnly)
})

test('S27: an SCTP port is not exchanged: only backends of the same number are reached', (t) => {
  const sctp = service({ ports: [{ port: 8080, protocol: 'SCTP', nodePort: 30080 }], type: 'NodePort' })
  const slices = [{ ...two, ports: [{ port: 8080, protocol: 'SCTP' as const }] }]
  t.deepEqual(text(reflectService(sctp, slices, facts())), ['10.96.0.10:8080/SCTP 1,2 / -', '0.0.0.0:30080/SCTP  / '])
})

test('a gateway’s addresses are handed to the stack, its cluster address leads there', (t) => {
  const gateway = service(
    { type: 'LoadBalancer', allocateLoadBalancerNodePorts: false, ports: [{ port: 80, protocol: 'TCP' }] },
    { metadata: { name: 'web', namespace: 'shop', labels: { 'weft.dev/served-by': 'gateway' } } },
  )
  const rows = reflectService(gateway, [], facts())
  t.deepEqual(text(rows), ['10.96.0.10:80/TCP 200 / -', '172.30.0.200:80/TCP  / -'])
  t.deepEqual(
    rows.map((r) => r.toStack ?? false),
    [false, true],
  )
})

test('what a Service asks for in vain is said with its field', (t) => {
  const bad = service({
    externalIPs: ['198.51.100.1', '10.244.0.1'],
    ports: [{ port: 80, protocol: 'SCTP', nodePort: 30080 }],
    type: 'NodePort',
  })
  const slices = [{ ...two, ports: [{ port: 8080, protocol: 'SCTP' as const }] }]
  const externalUse = (address: string) => (address.startsWith('10.') ? 'none' : 'outside')
  t.deepEqual(
    troublesOf(bad, slices, { externalUse }).map((n) => `${n.reason} ${n.message.split(':')[0]}`),
    [
      'ExternalIPRefused spec.externalIPs[1]',
      'SCTPPortNotTranslated spec.ports[0].targetPort',
      'SCTPPortNotTranslated spec.ports[0].nodePort',
    ],
  )
  t.deepEqual(troublesOf(service({}), [two], { externalUse }), [])
  t.deepEqual(
    ['198.51.100.1:80/SCTP', '0.0.0.0:30080/SCTP', '10.96.0.10:80/SCTP', '[fd00::c8]:80/TCP'].map((f) =>
      fieldAsking(bad, f),
    ),
    ['spec.externalIPs[0]', 'spec.ports[0].nodePort', 'spec.clusterIPs', 'status.loadBalancer.ingress'],
  )
})

test('IPv4 written as IPv6, which the maps refuse, takes nobody else’s Services along and opens nothing', (t) => {
  const bad = service({
    type: 'LoadBalancer',
    externalIPs: ['::ffff:198.51.100.1'],
    loadBalancerSourceRanges: ['::ffff:10.0.0.0/104'],
    clusterIPs: ['fd00::a'],
  })
  bad.status = { loadBalancer: { ingress: [{ ip: '::ffff:172.30.0.200' }, { ip: 'fd00::c8' }] } }
  const slices = [
    {
      ...slice(at('one', '::ffff:10.0.0.1'), at('one', '0:0:0:0:0:ffff:a00:2'), at('one', 'fd00::1')),
      addressType: 'IPv6',
    },
  ]
  const externalUse = externalUses({ clusterCidrs: [], taken: new Set(), allowed: ['::/0'] })
  const rows = reflectService(bad, slices, facts({ externalUse }))
  t.deepEqual(
    rows.map(({ frontend, backends }) => `${frontend.address} ${backends.map((b) => b.address)}`),
    ['fd00::a fd00::1', ':: fd00::1', 'fd00::c8 fd00::1'],
  )
  t.deepEqual(rows[2]?.outside?.ranges, ['::/128'], 'nobody, and not everybody')
  t.deepEqual(
    troublesOf(bad, slices, { externalUse }).map((n) => `${n.reason} ${n.message.split(':')[0]}`),
    ['ExternalIPRefused spec.externalIPs[0]', 'SourceRangeRefused spec.loadBalancerSourceRanges[0]'],
  )
  // The short way of most Services, too.
  const plain = reflectService(service({ clusterIPs: ['fd00::a'] }), [
    { ...slice(at('one', '::ffff:10.0.0.1')), addressType: 'IPv6' },
  ])
  t.deepEqual(plain[0]?.backends, [])
})

test('S12: a health check says 503 before the last local backend has gone, and the node’s own when the node goes', (t) => {
  const balancer = service({ type: 'LoadBalancer', externalTrafficPolicy: 'Local', healthCheckNodePort: 31_000 })
  const count = (...endpoints: Endpoint[]): number | undefined =>
    healthOf(balancer, [slice(...endpoints)], 'one')?.localEndpoints
  t.is(count(at('one', '10.0.0.1'), at('one', '10.0.0.3'), at('two', '10.0.0.2')), 2)
  t.is(count(at('one', '10.0.0.1', going), at('two', '10.0.0.2')), 0)
  t.is(healthOf(service({ type: 'LoadBalancer' }), [two], 'one'), undefined)
  const clock = new FakeClock()
  let eligible = true
  const servers = new HealthServers({ isEligible: () => eligible, clock, log: silentLog })
  t.is(servers.answer(healthzPort, '/healthz').status, 200)
  eligible = false
  t.is(servers.answer(healthzPort, '/healthz').status, 503)
  t.is(servers.answer(healthzPort, '/livez').status, 200)
  const tainted = { spec: { taints: [{ key: 'ToBeDeletedByClusterAutoscaler' }] }, metadata: {} } as unknown as Node
  t.false(isEligible(tainted))
  t.true(isEligible(undefined))
})

test('S6, S7: datagrams leave a backend that is going, connections only one that is gone', (t) => {
  const row = (protocol: 'TCP' | 'UDP', ...ips: string[]): Service => {
    const backends = ips.map((address) => ({ address, port: 53, protocol }))
    const frontend = { address: '10.96.0.10', port: 53, protocol }
    return { frontend, backends, outside: { backends }, number: 'ab' }
  }
  const rows = (...ips: string[]): Service[] => [row('TCP', ...ips), row('UDP', ...ips)]
  t.deepEqual(leftByDatagrams(rows('10.0.0.1', '10.0.0.2'), rows('10.0.0.2')), [
    { address: '10.0.0.1', port: 53, protocol: 'UDP', service: 'ab' },
  ])
  t.deepEqual(leftByDatagrams(rows('10.0.0.1'), rows('10.0.0.2', '10.0.0.1')), [])
  t.is(leftByDatagrams(rows('10.0.0.1'), []).length, 1)
  const both = slice(at('one', '10.0.0.1'), at('two', '10.0.0.2'))
  t.deepEqual(takenOut(both, slice(at('one', '10.0.0.1', going), at('two', '10.0.0.2'))), [], 'only going')
  t.deepEqual(takenOut(both, slice(at('two', '10.0.0.2'))), [{ address: '10.0.0.1', port: 8080, protocol: 'TCP' }])
  t.is(takenOut(both, undefined).length, 2)
})

test('of two that name one address and port the older has it, on every node, and the younger when that has gone', (t) => {
  const row = (port: number): Service => ({
    frontend: { address: '192.0.2.1', port, protocol: 'TCP' },
    backends: [],
    outside: { backends: [] },
  })
  const ports = (rows: readonly Service[]): number[] => rows.map((r) => r.frontend.port)
  for (const order of [
    ['old', 'young'],
    ['young', 'old'],
  ]) {
    const claims = new Claims()
    const rows = new Map([
      ['old', [row(80)]],
      ['young', [row(80), row(81)]],
    ])
    const seniority = new Map([
      ['old', '2026-01-01'],
      ['young', '2026-01-02'],
    ])
    const settle = (key: string) => claims.settle(key, seniority.get(key) ?? '', rows.get(key) ?? [])
    for (const key of order) for (const other of settle(key).others) settle(other)
    t.deepEqual(ports(settle('old').rows), [80])
    t.deepEqual(ports(settle('young').rows), [81])
    t.deepEqual(settle('young').lost, [{ frontend: '192.0.2.1:80/TCP', owner: 'old' }])
    rows.set('old', [])
    t.deepEqual(settle('old').others, ['young'])
    t.deepEqual(ports(settle('young').rows), [80, 81])
  }
})

const pod = (ports: readonly object[], more: Record<string, unknown> = {}): Pod =>
  ({
    metadata: { name: 'p', namespace: 'shop' },
    spec: { containers: [{ name: 'c', ports }], ...more },
    status: { phase: 'Running', podIPs: [{ ip: '10.244.1.5' }, { ip: 'fd00::5' }] },
  }) as unknown as Pod
const own = ['172.30.0.11', 'fd00:172:30::11']

test('S19: host ports lead to the pod from the node’s addresses, or from the one that is named', (t) => {
  const names = (...args: Parameters<typeof reflectHostPorts>): string[] =>
    reflectHostPorts(...args).map((r) => frontendName(r.frontend))
  const port = { hostPort: 8000, containerPort: 80 }
  const all = ['172.30.0.11:8000/TCP', '[fd00:172:30::11]:8000/TCP', '127.0.0.1:8000/TCP', '[::1]:8000/TCP']
  t.deepEqual(names(pod([port]), own), all)
  t.deepEqual(names(pod([{ ...port, protocol: 'SCTP' }]), own), [
    '172.30.0.11:8000/SCTP',
    '[fd00:172:30::11]:8000/SCTP',
  ])
  const udp = ['172.30.0.11:8000/UDP', '127.0.0.1:8000/UDP']
  t.deepEqual(names(pod([{ ...port, hostIP: '0.0.0.0', protocol: 'UDP' }]), own), udp)
  t.deepEqual(names(pod([{ ...port, hostIP: '::' }]), own), ['[fd00:172:30::11]:8000/TCP', '[::1]:8000/TCP'])
  t.deepEqual(names(pod([{ ...port, hostIP: '172.30.0.99' }]), own), ['172.30.0.99:8000/TCP'])
  t.deepEqual(names(pod([{ ...port, hostIP: '127.0.0.1' }]), own), ['127.0.0.1:8000/TCP'])
  t.deepEqual(names(pod([{ ...port, hostIP: '::1' }]), own), ['[::1]:8000/TCP'])
  const loopback = reflectHostPorts(pod([{ ...port, hostIP: '127.0.0.1' }]), own)
  t.deepEqual(loopback[0]?.backends, [{ address: '10.244.1.5', port: 80, protocol: 'TCP' }])
  t.is(loopback[0]?.outside, undefined, 'nothing that comes by a device may ask for it')
  t.is(new Claims().settle('pod:a', 'a', loopback).rows.length, 1)
  t.deepEqual(names(pod([port], { hostNetwork: true }), own), [])
  const over = pod([port])
  t.deepEqual(names({ ...over, status: { ...over.status, phase: 'Succeeded' } } as Pod, own), [])
})

const node = (name: string, address: string, ready = 'True', labels = {}): Node =>
  ({
    metadata: { name, labels },
    spec: {},
    status: { addresses: [{ type: 'InternalIP', address }], conditions: [{ type: 'Ready', status: ready }] },
  }) as unknown as Node
const nodes = [node('one', '172.30.0.11'), node('two', '172.30.0.12'), node('three', '172.30.0.13')]
const announcers = (published: ReturnType<typeof publishedBy>, all = nodes): string[] =>
  ['one', 'two', 'three'].filter((nodeName) =>
    planKnownAddresses({
      nodeName,
      nodes: all,
      published: published === undefined ? [] : [published],
      resolver: [],
    }).some((a) => a.isAnnounced),
  )

test('one ready node announces an address; with policy Local one that has endpoints', (t) => {
  const cluster = publishedBy(service({ type: 'LoadBalancer' }), [two], 'ours')
  t.is(announcers(cluster).length, 1)
  const local = publishedBy(
    service({ type: 'LoadBalancer', externalTrafficPolicy: 'Local' }),
    [slice(at('two', '10.0.0.2'))],
    'ours',
  )
  t.deepEqual(announcers(local), ['two'])
  t.not(announcers(local, [node('one', '172.30.0.11'), node('two', '172.30.0.12', 'Unknown')])[0], 'two')
  const [elected = ''] = announcers(cluster)
  const excluded = nodes.map((n) =>
    n.metadata.name === elected
      ? node(elected, '1.1.1.1', 'True', { 'node.kubernetes.io/exclude-from-external-load-balancers': '' })
      : n,
  )
  t.not(announcers(cluster, excluded)[0], elected)
  t.deepEqual(announcers(publishedBy(service({ type: 'LoadBalancer', loadBalancerClass: 'x/y' }), [two], 'ours')), [])
})

test('elect() moves only the addresses of a node that goes, and spreads them', (t) => {
  const names = ['a', 'b', 'c', 'd', 'e']
  fc.assert(
    fc.property(fc.ipV4(), fc.constantFrom(...names), (address, gone) => {
      const before = elect(address, names)
      const after = elect(
        address,
        names.filter((n) => n !== gone),
      )
      return before === gone ? after !== gone : after === before
    }),
  )
  const counts = new Map<string, number>()
  for (let i = 0; i < 500; i++) {
    const name = elect(`172.30.${i >> 8}.${i & 255}`, names) ?? ''
    counts.set(name, (counts.get(name) ?? 0) + 1)
  }
  for (const name of names) t.true((counts.get(name) ?? 0) > 60, `${name}: ${counts.get(name)}`)
})

test('onlyBackends() says what chooseBackends() says, or nothing', (t) => {
  const endpoint = fc.record({
    addresses: fc.integer({ min: 1, max: 4 }).map((i) => [`10.0.0.${i}`]),
    conditions: fc.constantFrom(
      {},
      { ready: true },
      { ready: true },
      { ready: false, serving: true, terminating: true },
    ),
    hints: fc.constantFrom(undefined, undefined, undefined, { forZones: [{ name: 'a' }] }),
  })
  const slice = fc.record({
    ports: fc.constantFrom(
      [{ port: 8080 }],
      [{ port: 8080 }],
      [{ name: 'other', port: 1 }],
      [{ port: 1 }, { port: 2 }],
    ),
    endpoints: fc.uniqueArray(endpoint, { maxLength: 3, selector: (e) => e.addresses[0] }),
  })
  let said = 0
  fc.assert(
    fc.property(fc.array(slice, { maxLength: 2 }), (list) => {
      const slices = list as unknown as EndpointSlice[]
      const only = onlyBackends({ port: 80 }, 'TCP', slices)
      if (only === undefined) return true
      said++
      const { cluster } = chooseBackends({ port: 80 }, 'TCP', slices, { nodeName: 'node-1', zone: 'a' })
      return JSON.stringify(only) === JSON.stringify(cluster)
    }),
  )
  t.true(said > 5, `${said} were said`)
})
