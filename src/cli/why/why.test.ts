import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import test from 'ava'
import type { Step } from '#agent/why/why.ts'
import type { Answer } from './ask.ts'
import { formatWhy } from './format.ts'

const outside = { name: 'outside', address: '172.30.0.1', node: undefined, kind: 'address' } as const
const balancer = { name: 'svc/default/web', address: '172.30.0.200', node: undefined, kind: 'service' } as const
const backend = (address: string) => ({ address, port: 8080, protocol: 'TCP' as const })

const answer = (isAllowed: boolean, ...steps: readonly Step[]): Answer => ({
  source: outside,
  destination: balancer,
  port: 80,
  protocol: 'TCP',
  steps,
  isAllowed,
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
  const policies = [{ namespace: 'default', name: 'guard' }]
  const refused = step({ verdict: 'dropped', reason: 'Policy denied', goesOn, ingress: { kind: 'policies', policies } })
  t.regex(
    formatWhy(answer(false, refused)),
    /: REFUSED\n\nnode-1 from_netdev: dropped: Policy denied .*\n.*\n {2}would have gone on to 10\.244\.0\.2:8080\n {2}ingress: isolated by NetworkPolicy default\/guard; no element of it allows this\n$/,
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

test('what cannot be told ends with 2, and with words', (t) => {
  const main = join(import.meta.dirname, '../main.ts')
  const { status, stderr } = spawnSync(process.execPath, [main, 'why', 'a', 'b', '80', '--name', 'nobody-made-this'], {
    encoding: 'utf8',
  })
  t.is(status, 2)
  t.regex(stderr, /no agent of a cluster "nobody-made-this" runs on this machine/)
})
