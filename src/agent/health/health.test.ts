import test from 'ava'
import { nodes } from '#api/gen/resources.ts'
import { eventually } from '#base/async/eventually.ts'
import { FakeClock } from '#base/clock.ts'
import { silentLog } from '#base/log/log.ts'
import { FakeClient } from '#client/fake.ts'
import { Informers } from '#client/informer.ts'
import { NodeHealth } from './health.ts'

test('NodeHealth names the nodes that are silent, asks a few at a time, and forgets those that are gone', async (t) => {
  const client = new FakeClient({ clock: new FakeClock() })
  const node = (name: string, address: string) => ({
    metadata: { name },
    spec: {},
    status: { addresses: [{ type: 'InternalIP', address }] },
  })
  for (let i = 0; i < 40; i++) client.seed(nodes, node(`n${i}`, `10.0.0.${i}`))
  await using informers = new Informers({ client })
  const copy = informers.of(nodes)
  const stop = new AbortController()
  await copy.whenSynced(stop.signal)
  const asked: string[] = []
  let silent = '10.0.0.28'
  const health = new NodeHealth({
    nodes: copy,
    nodeName: 'n0',
    clock: new FakeClock(),
    log: silentLog,
    dial: async (address) => {
      asked.push(address)
      return address === silent ? 'silent' : 'answered'
    },
  })
  await health.round(stop.signal)
  t.is(asked.length, 32)
  t.false(asked.includes('10.0.0.0'), 'not itself')
  await health.round(stop.signal)
  t.is(new Set(asked).size, 39)
  t.is(health.status().trouble, '', 'once is not enough')
  await health.round(stop.signal)
  t.like(health.status(), { asked: 39, unreachable: ['n28 (10.0.0.28)'], trouble: 'no answer from n28 (10.0.0.28)' })
  silent = ''
  for (let i = 0; i < 2; i++) await health.round(stop.signal)
  t.is(health.status().trouble, '')
  silent = '10.0.0.8'
  for (let i = 0; i < 4; i++) await health.round(stop.signal)
  await client.delete(nodes, { name: 'n8' })
  await eventually(() => copy.get('n8') === undefined)
  await health.round(stop.signal)
  t.deepEqual(health.status().unreachable, [])
  stop.abort()
})
