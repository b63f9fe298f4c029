import { strict as assert } from 'node:assert'
import test from 'ava'
import { endpointSlices, ingressClasses, ingresses, namespaces, nodes, secrets, services } from '#api/gen/resources.ts'
import type { KubeObject, Resource } from '#api/meta/resource.ts'
import { eventually } from '#base/async/eventually.ts'
import { Scope } from '#base/async/scope.ts'
import { systemClock } from '#base/clock.ts'
import { silentLog } from '#base/log/log.ts'
import type { Draft } from '#client/client.ts'
import { FakeClient } from '#client/fake.ts'
import { Informers } from '#client/informer.ts'
import { acknowledgement, parseAcknowledgement } from '#gateway/acknowledge.ts'
import type { EngineState, Fault, Outcome } from '#gateway/engine.ts'
import { controllerName } from '#gateway/gateways.ts'
import { gatewayClasses, gateways, grpcRoutes, httpRoutes, referenceGrants } from '#gateway/objects.ts'
import { certificate } from '#test/gateway/tls.ts'
import { Gateways, type NodeL7 } from './gateway.ts'

/** An engine that only remembers. */
class FakeEngine implements NodeL7 {
  readonly states: EngineState[] = []
  faults = new Map<string, Fault>()
  detached = false
  async apply(desired: EngineState): Promise<Outcome> {
    this.states.push(desired)
    return { revision: desired.revision, faults: this.faults, reloads: 0 }
  }
  async signals(): Promise<[]> {
    return []
  }
  events(): void {}
  async refused(): Promise<ReadonlyMap<string, number>> {
    return new Map()
  }
  async detach(): Promise<void> {
    this.detached = true
  }
  async [Symbol.asyncDispose](): Promise<void> {}
}

/** The node's part over an API in memory. */
class Bench implements AsyncDisposable {
  readonly client = new FakeClient()
  readonly engine = new FakeEngine()
  opened = 0
  readonly #informers = new Informers({ client: this.client })
  readonly #scope = new Scope()

  async start(): Promise<void> {
    await this.create(nodes, { metadata: { name: 'n1' } })
    await this.create(gatewayClasses, { metadata: { name: 'weft' }, spec: { controllerName } })
    const informers = this.#informers
    const loop = new Gateways({
      nodeName: 'n1',
      client: this.client,
      nodes: informers.of(nodes),
      copies: {
        classes: informers.of(gatewayClasses),
        gateways: informers.of(gateways),
        httpRoutes: informers.of(httpRoutes),
        grpcRoutes: informers.of(grpcRoutes),
        grants: informers.of(referenceGrants),
        ingresses: informers.of(ingresses),
        ingressClasses: informers.of(ingressClasses),
        namespaces: informers.of(namespaces),
        services: informers.of(services),
        slices: informers.of(endpointSlices),
      },
      openEngine: async () => {
        this.opened++
        return this.engine
      },
      leftBehind: () => false,
      clock: systemClock,
      log: silentLog,
    })
    this.#scope.start((signal) => loop.run(signal))
  }

  create<K extends KubeObject>(resource: Resource<K>, object: object): Promise<K> {
    return this.client.create(resource, object as Draft<K>)
  }

  /** A Gateway with its Service, as the controller makes it. */
  async gateway(name: string, listeners: object[]): Promise<void> {
    const { metadata } = await this.create(gateways, {
      metadata: { namespace: 'shop', name },
      spec: { gatewayClassName: 'weft', listeners },
    })
    const ownerReferences = [{ apiVersion: 'x', kind: 'Gateway', name, uid: metadata.uid }]
    const ports = listeners.map((l) => ({ port: (l as { port: number }).port }))
    const service = { metadata: { namespace: 'shop', name: `weft-gateway-${name}`, ownerReferences }, spec: { ports } }
    await this.create(services, service)
    const status = { status: { loadBalancer: { ingress: [{ ip: '192.0.2.1' }] } } }
    await this.client.patch(services, { namespace: 'shop', name: `weft-gateway-${name}` }, 'merge', status, {
      subresource: 'status',
    })
  }

  async said() {
    const { metadata } = await this.client.get(nodes, { name: 'n1' })
    return parseAcknowledgement(metadata.annotations?.[acknowledgement])
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#scope[Symbol.asyncDispose]()
    await this.#informers[Symbol.asyncDispose]()
  }
}

const soon = <T>(check: () => T | Promise<T>) => eventually(check, { withinMs: 10_000 })

test('a Gateway goes to the engine, the engine’s word on the Node; without any, no engine is opened', async (t) => {
  await using bench = new Bench()
  await bench.start()
  await soon(async () => assert.deepEqual((await bench.said())?.gateways.size, 0))
  t.is(bench.opened, 0)
  await bench.gateway('edge', [{ name: 'http', port: 80, protocol: 'HTTP' }])
  await soon(async () => {
    assert.deepEqual([...(bench.engine.states.at(-1)?.listeners.keys() ?? [])], ['shop/edge/http'])
    assert.equal((await bench.said())?.gateways.size, 1)
  })
  t.is(bench.opened, 1)
  const before = (await bench.said())?.gateways
  await bench.create(httpRoutes, {
    metadata: { namespace: 'shop', name: 'r' },
    spec: { parentRefs: [{ name: 'edge' }], rules: [{ backendRefs: [] }] },
  })
  await soon(() => assert.equal(bench.engine.states.at(-1)?.routes.size, 1))
  t.deepEqual((await bench.said())?.gateways, before, 'a route changes nothing of what a Gateway’s condition waits for')
})

test('what the engine cannot do is said; a Node that is made anew is told again', async (t) => {
  await using bench = new Bench()
  bench.engine.faults = new Map([['shop/edge/http', { of: 'listener', message: 'no room' }]])
  await bench.start()
  await bench.gateway('edge', [{ name: 'http', port: 80, protocol: 'HTTP' }])
  await soon(async () => assert.equal((await bench.said())?.faults.get('shop/edge/http'), 'no room'))
  await bench.client.delete(nodes, { name: 'n1' })
  await bench.create(nodes, { metadata: { name: 'n1' } })
  await soon(async () => assert.equal((await bench.said())?.faults.size, 1))
  t.pass()
})

test('a listener of TLS is served as soon as its Secret may be read, and no other Secret is asked for', async (t) => {
  const { certPem, keyPem } = await certificate('shop/ours', 'a.example.com')
  const base64 = (text: string): string => Buffer.from(text).toString('base64')
  const data = { 'tls.crt': base64(certPem), 'tls.key': base64(keyPem) }
  await using bench = new Bench()
  await bench.start()
  const tls = { certificateRefs: [{ name: 'ours' }] }
  await bench.gateway('edge', [
    { name: 'http', port: 80, protocol: 'HTTP' },
    { name: 'https', port: 443, protocol: 'HTTPS', tls },
  ])
  await soon(() => assert.equal(bench.engine.states.at(-1)?.listeners.size, 1))
  const first = (await bench.said())?.gateways
  await bench.create(secrets, { metadata: { namespace: 'shop', name: 'ours' }, type: 'kubernetes.io/tls', data })
  await soon(() => {
    const listener = bench.engine.states.at(-1)?.listeners.get('shop/edge/https')
    assert.equal(listener?.tls?.certificates[0]?.id, 'shop/ours')
  })
  await soon(async () => assert.notDeepEqual((await bench.said())?.gateways, first))
  t.pass()
})
