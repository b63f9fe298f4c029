import test from 'ava'
import type { Node, Service } from '#api/gen/core-v1.ts'
import { acknowledgement, formatAcknowledgement } from '#gateway/acknowledge.ts'
import { examineGateway } from '#gateway/gateways.ts'
import { grantsOf } from '#gateway/grants.ts'
import type { Gateway } from '#gateway/objects.ts'
import { fakeFactory } from '../workload/scenario.ts'
import { planRole } from './certificates.ts'
import { gatewayScenarios } from './scenarios.ts'
import { planService } from './service.ts'
import { acknowledgementsOf, gatewayStatus } from './status.ts'

const gateway = (spec: object = {}): Gateway => ({
  apiVersion: 'gateway.networking.k8s.io/v1',
  kind: 'Gateway',
  metadata: { namespace: 'shop', name: 'edge', uid: 'u', generation: 3, resourceVersion: '1', creationTimestamp: '' },
  spec: { gatewayClassName: 'weft', listeners: [{ name: 'http', port: 80, protocol: 'HTTP' }], ...spec },
})
const examined = (object: Gateway, addresses: readonly string[] = ['192.0.2.1']) =>
  examineGateway(object, addresses, { grants: grantsOf([]), secret: () => undefined })

const node = (name: string, ready: boolean, revision?: string): Node =>
  ({
    metadata: {
      name,
      annotations:
        revision === undefined
          ? {}
          : { [acknowledgement]: formatAcknowledgement({ gateways: new Map([['u', revision]]), faults: new Map() }) },
    },
    status: { conditions: [{ type: 'Ready', status: ready ? 'True' : 'Unknown' }] },
  }) as unknown as Node

const now = '2026-01-01T00:00:00Z'
const programmed = (object: Gateway, nodes: readonly Node[], addresses?: readonly string[]): string => {
  const view = {
    gateway: object,
    result: examined(object, addresses),
    nodes: acknowledgementsOf(nodes),
    attachedRoutes: () => 0,
  }
  const found = gatewayStatus(view, now).conditions?.find(({ type }) => type === 'Programmed')
  return `${found?.status} ${found?.reason} ${found?.message}`.trim()
}

test('Programmed: every node that is ready has this very revision; a lost one holds nobody up', (t) => {
  const { revision } = examined(gateway())
  const all = [node('a', true, revision), node('b', true, revision), node('lost', false, 'old')]
  t.is(programmed(gateway(), all), 'True Programmed')
  t.is(programmed(gateway(), [...all, node('c', true, 'old')]), 'False Pending waiting for the engine of c')
  t.is(programmed(gateway(), [...all, node('d', true)]), 'False Pending waiting for the engine of d')
  t.is(programmed(gateway(), []), 'False Pending no node is ready to serve it')
})

test('Programmed: addresses first', (t) => {
  t.is(programmed(gateway(), [], []), 'False AddressNotAssigned no address has been assigned yet')
  const wants = gateway({ addresses: [{ value: '192.0.2.7' }] })
  t.is(programmed(wants, [], []), 'False AddressNotUsable spec.addresses: cannot be had: 192.0.2.7')
  const strange = gateway({ addresses: [{ type: 'Hostname', value: 'a.com' }] })
  t.is(examined(strange).accepted.reason, 'UnsupportedAddress')
  t.is(programmed(strange, []), 'False Invalid the Gateway is not accepted')
})

test('a condition keeps its time while its status stays, and always has the generation', (t) => {
  const first = gateway()
  const view = (object: Gateway) => ({ gateway: object, result: examined(object), nodes: [], attachedRoutes: () => 0 })
  first.status = gatewayStatus(view(first), now)
  first.metadata.generation = 4
  const conditions = gatewayStatus(view(first), '2027-01-01T00:00:00Z').conditions ?? []
  t.true(conditions.every((c) => c.lastTransitionTime === now && c.observedGeneration === 4))
  t.true(conditions.length >= 3)
})

test('planService(): made, changed where the Gateway changed, taken away with what asked for it', (t) => {
  const object = gateway({ infrastructure: { labels: { team: 'a' }, annotations: { note: 'x' } } })
  const made = planService(object, examined(object), undefined)
  t.is(made?.do, 'create')
  if (made?.do !== 'create') return
  const present = structuredClone(made.service) as Service
  t.like(present.metadata.labels, { team: 'a', 'gateway.networking.k8s.io/gateway-name': 'edge' })
  t.is(planService(object, examined(object), present), undefined)
  const other = gateway({ infrastructure: { labels: { team: 'b' } }, addresses: [{ value: '192.0.2.7' }] })
  t.like(planService(other, examined(other), present), {
    do: 'patch',
    patch: {
      metadata: { labels: { team: 'b' }, annotations: { note: null, 'weft.dev/load-balancer-ips': '192.0.2.7' } },
    },
  })
  t.deepEqual(planService(object, undefined, present), { do: 'delete' })
  const foreign = { ...present, metadata: { ...present.metadata, ownerReferences: [] } }
  t.is(planService(object, undefined, foreign), undefined, 'what is not ours stays')
})

test('planRole(): the names of the Secrets, and none without any', (t) => {
  const made = planRole('shop', ['a', 'b'], undefined)
  t.like(made, { do: 'create', role: { rules: [{ verbs: ['get', 'list', 'watch'], resourceNames: ['a', 'b'] }] } })
  t.is(planRole('shop', undefined, undefined), undefined)
})

for (const { name, run } of gatewayScenarios)
  test(name, async (t) => {
    await t.notThrowsAsync(run(fakeFactory()))
  })
