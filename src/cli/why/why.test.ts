import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import test from 'ava'
import type { Step } from '#agent/why/why.ts'
import type { Answer } from './ask.ts'
import { formatWhy } from './format.ts'
import { familyOf, parseName, parsePort } from './words.ts'

const outside = { name: 'outside', address: '172.30.0.1', node: undefined, kind: 'address' } as const
const balancer = { name: 'svc/default/web', address: '172.30.0.200', node: undefined, kind: 'service' } as const
const backend = (address: string) => ({ address, port: 8080, protocol: 'TCP' as const })

const answer = (isAllowed: boolean, ...steps: readonly Step[]): Answer => ({
  source: outside,
  destination: balancer,
  port: 80,
  protocol: 'TCP',
  steps,
  ways: [{ to: '10.244.1.2:8080', isAllowed }],
  isAllowed,
  notes: [],
})

const step = (more: Partial<Step>): Step => ({
  node: 'node-1',
  hook: 'from_netdev',
  source: { address: outside.address, party: {}, identity: 2 },
  destination: { address: balancer.address, port: 80, party: {}, identity: 256 },
  verdict: 'forwarded',
  reason: '',
  service: { namespace: 'default', name: 'web' },
  backends: [backend('10.244.0.2'), backend('10.244.1.2')],
  ...more,
})

test('a Service from outside: its backends, the one that was drawn, and under whose address', (t) => {
  const goesOn = { source: '172.30.0.11', sourcePort: 61_001, destination: '10.244.1.2', port: 8080 }
  const there = step({ node: 'node-2', ingress: { kind: 'not-isolated' } })
  const { service: _, backends: __, ...plain } = there
  t.is(
    formatWhy(answer(true, step({ goesOn }), plain)),
    `outside 172.30.0.1 -> svc/default/web 172.30.0.200 port 80/TCP: allowed

node-1 from_netdev: forwarded (identity 2 -> 256)
  Service default/web leads to one of 10.244.0.2:8080 10.244.1.2:8080
  goes on to 10.244.1.2:8080, under the address 172.30.0.11

node-2 from_netdev: forwarded (identity 2 -> 256)
  ingress: no NetworkPolicy isolates it
`,
  )
})

test('what was refused says where it would have gone, and who has no endpoint', (t) => {
  const goesOn = { source: outside.address, sourcePort: 61_001, destination: '10.244.0.2', port: 8080 }
  const guard = { namespace: 'default', name: 'guard', uid: 'u', generation: 3, direction: 'ingress' } as const
  const policies = [{ ...guard, path: 'spec.podSelector', element: { matchLabels: { app: 'web' } } }]
  const refused = step({ verdict: 'dropped', reason: 'Policy denied', goesOn, ingress: { kind: 'policies', policies } })
  t.regex(
    formatWhy(answer(false, refused)),
    /: REFUSED\n\nnode-1 from_netdev: dropped: Policy denied .*\n.*\n {2}would have gone on to 10\.244\.0\.2:8080\n {2}ingress: isolated, and no element of it allows this:\n {4}NetworkPolicy default\/guard \(generation 3\) spec\.podSelector:\n {6}matchLabels:\n {8}app: web\n$/,
  )
  const nobody = { address: '172.30.0.1', party: {}, identity: 0 }
  const silent = step({ verdict: 'dropped', reason: 'No local backend', backends: [], source: nobody })
  const to = { ...silent, destination: { ...silent.destination, identity: 0 } }
  t.regex(
    formatWhy(answer(false, to)),
    /dropped: No local backend\n {2}Service default\/web has no endpoint for those outside\n$/,
  )
})

test('a Gateway’s address is its engine’s to answer, from outside and from a node', (t) => {
  const { backends: _, ...gateway } = step({ verdict: 'stack', isGateway: true })
  const words = /Service default\/web is a Gateway's: its engine on node-1 answers, and asks by its routes\n$/
  t.regex(formatWhy(answer(true, gateway)), words)
  t.regex(formatWhy(answer(true, { ...gateway, hook: 'connect' })), words)
})

test('of several ways those that are refused are named, and one of them is shown', (t) => {
  const ways = [
    { to: '10.244.0.2:8080', isAllowed: true },
    { to: '10.244.1.2:8080', isAllowed: false },
  ]
  const [first] = formatWhy({ ...answer(false, step({ ingress: { kind: 'closed' } })), ways }).split('\n\n')
  t.is(
    first,
    `outside 172.30.0.1 -> svc/default/web 172.30.0.200 port 80/TCP: REFUSED on 1 of 2 ways
to 10.244.0.2:8080, but not to 10.244.1.2:8080; one of these is shown`,
  )
  t.regex(
    formatWhy(answer(false, step({ ingress: { kind: 'closed' } }))),
    /ingress: closed, for what isolates it is not/,
  )
  const guards = Array.from({ length: 1000 }, (_, i) => ({
    ...{ namespace: 'default', name: `guard-${i}`, uid: 'u', generation: 1, direction: 'ingress' as const },
    ...{ path: 'spec.podSelector', element: {} },
  }))
  const many = formatWhy(answer(false, step({ ingress: { kind: 'policies', policies: guards } })))
  t.regex(many, /no element of them allows this:\n {4}NetworkPolicy default\/guard-0 /)
  t.regex(many, /and 992 more\n$/)
})

test('a port is a number, a name, or ICMP’s none; what is none of them is refused with what is possible', (t) => {
  t.deepEqual(parsePort('80'), { port: 80, protocol: undefined })
  t.deepEqual(parsePort('53/udp'), { port: 53, protocol: 'UDP' })
  t.deepEqual(parsePort('http'), { port: 'http', protocol: undefined })
  t.deepEqual(parsePort('dns/UDP'), { port: 'dns', protocol: 'UDP' })
  t.deepEqual([parsePort('icmp'), parsePort('0/icmp')], Array(2).fill({ port: 0, protocol: 'ICMP' }))
  for (const wrong of ['0', '65536', '-1', '80/foo', 'tcp/80', '80/tcp/udp', '', '80/', '80/icmp', 'a b'])
    t.throws(
      () => parsePort(wrong),
      { instanceOf: RangeError, message: /^port ".*: (use PORT|ICMP has no ports)/ },
      wrong,
    )
})

test('names have a kind and a namespace or not, and addresses say their family', (t) => {
  t.deepEqual(parseName('web'), { kind: undefined, namespace: undefined, name: 'web' })
  t.deepEqual(parseName('shop/web'), { kind: undefined, namespace: 'shop', name: 'web' })
  t.deepEqual(parseName('pod/shop/web'), { kind: 'pod', namespace: 'shop', name: 'web' })
  t.deepEqual(parseName('svc/web'), { kind: 'svc', namespace: undefined, name: 'web' })
  t.deepEqual(parseName('node/one'), { kind: 'node', namespace: undefined, name: 'one' })
  for (const wrong of ['', '/', 'a/', '/a', 'a/b/c', 'svc/', 'svc/a/b/c', 'node/a/b', 'http://a', 'A', '../a'])
    t.throws(() => parseName(wrong), { instanceOf: RangeError, message: /^".*": use / }, wrong)
  const of = (source: string, destination: string, ipv6 = false) => familyOf({ source, destination, ipv6 })
  t.deepEqual([of('a', 'b'), of('a', 'b', true), of('a', 'fd00::1'), of('10.0.0.1', 'b')], [4, 6, 6, 4])
  for (const [a, b, ipv6] of [
    ['10.0.0.1', 'fd00::1', false],
    ['a', '10.0.0.1', true],
    ['::ffff:10.0.0.1', 'b', false],
  ] as const)
    t.throws(() => of(a, b, ipv6), { instanceOf: RangeError })
})

test('what cannot be told ends with 2, and with words', (t) => {
  const main = join(import.meta.dirname, '../main.ts')
  const { status, stderr } = spawnSync(process.execPath, [main, 'why', 'a', 'b', '80', '--name', 'nobody-made-this'], {
    encoding: 'utf8',
  })
  t.is(status, 2)
  t.regex(stderr, /no agent of a cluster "nobody-made-this" runs on this machine/)
  // Not 1, which is a connection that is refused.
  t.is(spawnSync(process.execPath, [main, 'why', 'a', 'b'], { encoding: 'utf8' }).status, 2)
})
