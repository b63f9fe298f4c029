import test from 'ava'
import type { Node } from '#api/gen/core-v1.ts'
import { events, nodes } from '#api/gen/resources.ts'
import { eventually } from '#base/async/eventually.ts'
import { FakeClock } from '#base/clock.ts'
import { silentLog } from '#base/log/log.ts'
import { EventRecorder } from '#client/events.ts'
import { FakeClient } from '#client/fake.ts'
import { Informers } from '#client/informer.ts'
import { FakeDatapath, FakeKernel } from '#datapath/fake.ts'
import { Nodes } from './nodes.ts'
import { planNodes, unreachableNetworks } from './plan.ts'
import { Uplink } from './uplink.ts'

const stamp = { uid: 'u', resourceVersion: '1', creationTimestamp: '2026-01-01T00:00:00Z' }

const node = (name: string, podCIDRs: string[] | undefined, ...addresses: string[]): Node => ({
  apiVersion: 'v1',
  kind: 'Node',
  metadata: { name, ...stamp },
  spec: podCIDRs === undefined ? {} : { podCIDRs },
  status: {
    addresses: addresses.map((address) => ({ type: 'InternalIP', address })),
  } as Node['status'],
})

test('planNodes() leads to other nodes by their address, and nowhere for those that are not ready for it', (t) => {
  const nodes = [
    node('self', ['10.244.1.0/24'], '172.30.0.11'),
    node('other', ['10.244.2.0/24'], '172.30.0.12', 'fd00::12'),
    node('young', undefined, '172.30.0.13'),
    node('lost', ['10.244.4.0/24']),
  ]
  t.deepEqual(planNodes(nodes, 'self'), [
    { name: 'self', podCidrs: ['10.244.1.0/24'], via: undefined },
    { name: 'other', podCidrs: ['10.244.2.0/24'], via: ['172.30.0.12', 'fd00::12'] },
  ])
})

test('unreachableNetworks() names the pods of a node that lacks an address of their family', (t) => {
  const podCidrs = ['10.244.2.0/24', 'fd00:10:244:2::/64']
  t.deepEqual(unreachableNetworks({ name: 'other', podCidrs, via: ['fd00::12'] }), ['other 10.244.2.0/24'])
  t.deepEqual(unreachableNetworks({ name: 'other', podCidrs, via: ['172.30.0.12', 'fd00::12'] }), [])
  t.deepEqual(unreachableNetworks({ name: 'self', podCidrs, via: undefined }), [])
})

test('M13: Nodes: routes follow the nodes, and one that somebody else took away comes back', async (t) => {
  const clock = new FakeClock()
  const client = new FakeClient({ clock })
  const stop = new AbortController()
  await using informers = new Informers({ client, clock })
  const kernel = new FakeKernel()
  client.seed(nodes, node('self', ['10.244.1.0/24'], '172.30.0.11'))
  const loop = new Nodes({
    nodeName: 'self',
    nodes: informers.of(nodes),
    datapath: new FakeDatapath(kernel),
    clock,
    log: silentLog,
  })
  const running = loop.run(stop.signal).catch(() => {})
  await eventually(() => kernel.routes.size === 1)
  client.seed(nodes, node('other', ['10.244.2.0/24'], '172.30.0.12'))
  await eventually(() => kernel.routes.get('10.244.2.0/24') === '172.30.0.12')
  kernel.routes.delete('10.244.2.0/24')
  clock.advance(30_000)
  await eventually(() => kernel.routes.get('10.244.2.0/24') === '172.30.0.12')
  client.vanish(nodes, { name: 'other' })
  await eventually(() => kernel.routes.size === 1)
  stop.abort()
  await running
  t.is(kernel.routes.get('10.244.1.0/24'), '')
})

test('M12: Uplink: the programs follow the node’s addresses; one that only its Node still has is said', async (t) => {
  const clock = new FakeClock()
  const client = new FakeClient({ clock })
  const stop = new AbortController()
  await using informers = new Informers({ client, clock })
  const kernel = new FakeKernel()
  kernel.ownAddresses = ['172.30.0.11']
  client.seed(nodes, node('self', ['10.244.1.0/24'], '172.30.0.11'))
  const known = informers.of(nodes)
  await known.whenSynced(stop.signal)
  const recorder = new EventRecorder({ client, component: 'weft-agent', clock })
  const datapath = new FakeDatapath(kernel)
  const uplink = new Uplink({ nodeName: 'self', nodes: known, datapath, events: recorder, clock, log: silentLog })
  const running = Promise.allSettled([recorder.run(stop.signal), uplink.run(stop.signal)])
  await eventually(() => kernel.told.includes('172.30.0.11'))
  t.is(uplink.status().trouble, '')
  kernel.ownAddresses = ['172.30.0.99']
  const said = informers.of(events)
  await eventually(() => {
    clock.advance(5_000)
    return said.list().some(({ reason }) => reason === 'NodeAddressGone')
  })
  t.deepEqual(kernel.told, ['172.30.0.99'])
  t.regex(uplink.status().trouble, /InternalIP 172.30.0.11 is not on this machine any more/)
  client.seed(nodes, node('self', ['10.244.1.0/24'], '172.30.0.99'))
  await eventually(() => {
    clock.advance(5_000)
    return uplink.status().trouble === ''
  })
  stop.abort()
  await running
})
