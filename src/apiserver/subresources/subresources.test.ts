import { generateKeyPairSync } from 'node:crypto'
import test from 'ava'
import { decodeJwt } from 'jose'
import type { CertificateSigningRequest } from '#api/gen/certificates-v1.ts'
import type { Node, Pod, PodSpec, PodStatus, ServiceAccount } from '#api/gen/core-v1.ts'
import type { PodDisruptionBudget } from '#api/gen/policy-v1.ts'
import { nodes, podDisruptionBudgets, pods, serviceAccounts } from '#api/gen/resources.ts'
import type { KubeObject } from '#api/meta/resource.ts'
import { StatusError } from '#api/meta/status.ts'
import { FakeClock } from '#base/clock.ts'
import { silentLog } from '#base/log/log.ts'
import { IdentityAllocator } from '../allocate/identities.ts'
import { PodAllocator } from '../allocate/pods.ts'
import { TokenKeys } from '../authenticate/token.ts'
import { FakeRegistry } from '../fake-registry.ts'
import type { SubresourceHandler } from '../step.ts'
import { approve } from './approval.ts'
import { bindingHandler } from './binding.ts'
import { evictionHandler } from './eviction.ts'
import { tokenHandler } from './token.ts'

const meta = (name: string) => ({
  name,
  namespace: 'default',
  uid: `uid-${name}`,
  resourceVersion: '',
  creationTimestamp: '',
})
const user = { name: 'system:kube-scheduler', groups: [] }
/** Numbers from 1000 on. */
const identitiesOf = (registry: FakeRegistry) =>
  new IdentityAllocator(registry, { revision: 744, clock: new FakeClock(), log: silentLog })

const pod = (
  name: string,
  spec: Partial<PodSpec> = {},
  status: PodStatus = {},
  more: Partial<Pod['metadata']> = {},
): Pod => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { ...meta(name), ...more },
  spec: { containers: [], ...spec },
  status,
})
const node = (name: string, podCIDRs?: string[]): Node =>
  ({
    apiVersion: 'v1',
    kind: 'Node',
    metadata: meta(name),
    spec: podCIDRs ? { podCIDRs } : {},
    status: {},
  }) as unknown as Node

async function run(
  handler: SubresourceHandler,
  registry: FakeRegistry,
  about: string,
  body: object,
  dryRun = false,
): Promise<unknown> {
  const [resource = '', name = '', subresource = ''] = about.split('/')
  try {
    const answer = await handler({
      request: {
        method: 'POST',
        path: '',
        query: '',
        headers: {},
        body: undefined,
        signal: new AbortController().signal,
      },
      attributes: {
        user,
        verb: 'create',
        group: '',
        version: 'v1',
        resource,
        subresource,
        namespace: 'default',
        name,
        path: undefined,
      },
      body: body as KubeObject,
      query: new URLSearchParams(),
      dryRun,
      registry,
    })
    return 'object' in answer ? answer.object : answer
  } catch (error) {
    if (error instanceof StatusError) return `${error.code} ${error.message}`
    throw error
  }
}

const success = { apiVersion: 'v1', kind: 'Status', metadata: {}, status: 'Success', code: 201 }
const bindTo = (name: string, metadata: object = {}) => ({ metadata, target: { kind: 'Node', name } })
const cidrs = ['10.244.1.0/24', 'fd00:10:244:1::/64']

function binding(...objects: Pod[]) {
  const registry = new FakeRegistry().put(nodes, node('n1', cidrs), node('bare')).put(pods, ...objects)
  const handler = bindingHandler(new PodAllocator(registry), identitiesOf(registry), new FakeClock())
  const bind = (name: string, body: object, dryRun = false) =>
    run(handler, registry, `pods/${name}/binding`, body, dryRun)
  return { registry, bind }
}

test('binding gives a pod its node, its addresses, the annotations and PodScheduled', async (t) => {
  const { registry, bind } = binding(pod('a', {}, { phase: 'Pending' }))
  t.deepEqual(
    await bind('a', bindTo('n1', { name: 'a', annotations: { k: 'v', 'weft.dev/pod-ips': '1.2.3.4' } })),
    success,
  )
  const bound = registry.get(pods, 'default', 'a')
  t.is(bound?.spec.nodeName, 'n1')
  t.deepEqual(bound?.metadata.annotations, {
    k: 'v',
    'weft.dev/pod-ips': '10.244.1.2,fd00:10:244:1::2',
    'weft.dev/identity': '1000',
  })
  t.deepEqual(bound?.status.conditions, [
    { type: 'PodScheduled', status: 'True', lastTransitionTime: '2026-01-01T00:00:00Z' },
  ])
})

test('two pods never get the same address, and a refused binding costs none', async (t) => {
  const { registry, bind } = binding(pod('a'), pod('b'), pod('c', { nodeName: 'n1' }))
  await bind('a', bindTo('n1'))
  await bind('c', bindTo('n1'))
  await bind('b', bindTo('n1'), true)
  t.is(registry.get(pods, 'default', 'b')?.spec.nodeName, undefined, 'a dry run binds nothing')
  await bind('b', bindTo('n1'))
  t.is(registry.get(pods, 'default', 'b')?.metadata.annotations?.['weft.dev/pod-ips'], '10.244.1.3,fd00:10:244:1::3')
})

test('a pod on the host’s network, or on a node that is not there, is bound without addresses', async (t) => {
  const { registry, bind } = binding(pod('host', { hostNetwork: true }), pod('lost'))
  t.deepEqual(await bind('host', bindTo('n1')), success)
  t.deepEqual(await bind('lost', bindTo('ghost')), success)
  for (const name of ['host', 'lost']) t.is(registry.get(pods, 'default', name)?.metadata.annotations, undefined)
})

test('what cannot be bound is refused in upstream’s words', async (t) => {
  const { bind } = binding(
    pod('bound', { nodeName: 'n1' }),
    pod('going', {}, {}, { deletionTimestamp: '2026-01-01T00:00:00Z' }),
    pod('gated', { schedulingGates: [{ name: 'x' }] }),
    pod('a'),
  )
  const cannot = (name: string, why: string) => `409 Operation cannot be fulfilled on pods/binding "${name}": ${why}`
  t.is(await bind('bound', bindTo('n2')), cannot('bound', 'pod bound is already assigned to node "n1"'))
  t.is(await bind('going', bindTo('n1')), cannot('going', 'pod going is being deleted, cannot be assigned to a host'))
  t.is(await bind('gated', bindTo('n1')), cannot('gated', 'pod gated has non-empty .spec.schedulingGates'))
  t.is(await bind('a', bindTo('bare')), cannot('a', 'node "bare" has no pod network yet'))
  t.is(
    await bind('a', bindTo('n1', { uid: 'other' })),
    cannot('a', 'Precondition failed: UID in precondition: other, UID in object meta: uid-a'),
  )
  t.is(await bind('nobody', bindTo('n1')), '404 pods "nobody" not found')
  t.is(await bind('a', bindTo('n1', { name: 'b' })), '400 name in URL does not match name in Binding object')
  t.is(await bind('a', { target: { kind: 'Node' } }), '422 Binding "a" is invalid: target.name: Required value')
  t.is(
    await bind('a', { target: { kind: 'Rack', name: 'x' } }),
    '422 Binding "a" is invalid: target.kind: Unsupported value: "Rack": supported values: "Node", "<empty>"',
  )
})

test('a node whose networks are full takes no more pods', async (t) => {
  const registry = new FakeRegistry().put(nodes, node('tiny', ['10.244.9.0/30'])).put(pods, pod('a'), pod('b'))
  const handler = bindingHandler(new PodAllocator(registry), identitiesOf(registry), new FakeClock())
  t.deepEqual(await run(handler, registry, 'pods/a/binding', bindTo('tiny')), success)
  t.is(
    await run(handler, registry, 'pods/b/binding', bindTo('tiny')),
    '409 Operation cannot be fulfilled on pods/binding "b": node "tiny" has no free address in 10.244.9.0/30',
  )
  await registry.delete(pods, 'default', 'a')
  t.deepEqual(await run(handler, registry, 'pods/b/binding', bindTo('tiny')), success)
})

const ready: PodStatus = { phase: 'Running', conditions: [{ type: 'Ready', status: 'True' }] }
const running = (name: string, status: PodStatus = ready) =>
  pod(name, { nodeName: 'n1' }, status, { labels: { app: 'x' } })

function budget(
  name: string,
  status: PodDisruptionBudget['status'],
  more: Partial<PodDisruptionBudget['spec']> = {},
): PodDisruptionBudget {
  return {
    apiVersion: 'policy/v1',
    kind: 'PodDisruptionBudget',
    metadata: { ...meta(name), generation: 1 },
    spec: { minAvailable: 1, selector: { matchLabels: { app: 'x' } }, ...more },
    status: { observedGeneration: 1, ...status },
  }
}

const evict = (registry: FakeRegistry, name = 'a', body: object = {}, dryRun = false) =>
  run(evictionHandler(new FakeClock()), registry, `pods/${name}/eviction`, { metadata: { name }, ...body }, dryRun)

test('an eviction without a budget, or where the kind is not served, is a delete of that very pod', async (t) => {
  const registry = new FakeRegistry().put(pods, running('a'), running('b'))
  registry.unserved.add('policy/poddisruptionbudgets')
  t.deepEqual(await evict(registry, 'a', {}, true), success)
  t.truthy(registry.get(pods, 'default', 'a'), 'a dry run evicts nothing')
  let last: Pod | undefined
  registry.onChange(pods, (_next, old) => {
    last = old
  })
  t.deepEqual(await evict(registry), success)
  t.is(registry.get(pods, 'default', 'a'), undefined)
  t.is(last?.status.conditions?.find((c) => c.type === 'DisruptionTarget')?.reason, 'EvictionByEvictionAPI')
  t.regex(String(await evict(registry, 'b', { deleteOptions: { preconditions: { uid: 'other' } } })), /^409 /)
  t.is(await evict(registry, 'ghost'), '404 pods "ghost" not found')
})

test('a budget is spent, and refuses with 429 when there is nothing left', async (t) => {
  const registry = new FakeRegistry()
    .put(pods, running('a'), running('b'))
    .put(podDisruptionBudgets, budget('pdb', { disruptionsAllowed: 1, desiredHealthy: 1, currentHealthy: 2 }))
  t.deepEqual(await evict(registry), success)
  const spent = registry.get(podDisruptionBudgets, 'default', 'pdb')
  t.is(spent?.status.disruptionsAllowed, 0)
  t.deepEqual(Object.keys(spent?.status.disruptedPods ?? {}), ['a'])
  t.is(spent?.status.conditions?.[0]?.reason, 'InsufficientPods')
  t.is(await evict(registry, 'b'), "429 Cannot evict pod as it would violate the pod's disruption budget.")
  t.truthy(registry.get(pods, 'default', 'b'))
})

test('budgets: not seen yet, two at once, unready and ended pods', async (t) => {
  const stale = new FakeRegistry()
    .put(pods, running('a'))
    .put(podDisruptionBudgets, budget('pdb', { observedGeneration: 0, disruptionsAllowed: 1 }))
  t.regex(String(await evict(stale)), /^429 /)
  const two = new FakeRegistry().put(pods, running('a')).put(podDisruptionBudgets, budget('p', {}), budget('q', {}))
  t.regex(String(await evict(two)), /^500 This pod has more than one PodDisruptionBudget/)
  const none = { disruptionsAllowed: 0, desiredHealthy: 1, currentHealthy: 1 }
  const unready: PodStatus = { phase: 'Running', conditions: [{ type: 'Ready', status: 'False' }] }
  t.deepEqual(
    await evict(new FakeRegistry().put(pods, running('a', unready)).put(podDisruptionBudgets, budget('p', none))),
    success,
  )
  const short = { ...none, currentHealthy: 0 }
  t.regex(
    String(
      await evict(new FakeRegistry().put(pods, running('a', unready)).put(podDisruptionBudgets, budget('p', short))),
    ),
    /^429 /,
  )
  const always = budget('p', short, { unhealthyPodEvictionPolicy: 'AlwaysAllow' })
  t.deepEqual(
    await evict(new FakeRegistry().put(pods, running('a', unready)).put(podDisruptionBudgets, always)),
    success,
  )
  for (const phase of ['Pending', 'Succeeded', 'Failed'] as const) {
    t.deepEqual(
      await evict(new FakeRegistry().put(pods, running('a', { phase })).put(podDisruptionBudgets, budget('p', none))),
      success,
      phase,
    )
  }
  const nobody = budget('p', none, { selector: {} })
  t.deepEqual(
    await evict(new FakeRegistry().put(pods, running('a')).put(podDisruptionBudgets, nobody)),
    success,
    'an empty selector guards nothing',
  )
})

function tokens() {
  const clock = new FakeClock()
  const keys = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const account: ServiceAccount = { apiVersion: 'v1', kind: 'ServiceAccount', metadata: meta('sa') }
  const registry = new FakeRegistry()
    .put(serviceAccounts, account)
    .put(nodes, node('n1'))
    .put(pods, pod('p', { serviceAccountName: 'sa', nodeName: 'n1' }))
  const issued = new TokenKeys({ key: { keyId: 'k', ...keys }, issuer: 'https://me', clock })
  const handler = tokenHandler({ tokens: issued, audiences: ['https://me'], clock })
  const ask = (spec: object, name = 'sa') => run(handler, registry, `serviceaccounts/${name}/token`, { spec })
  const claims = async (spec: object) => {
    const answer = (await ask(spec)) as { status: { token: string; expirationTimestamp: string } }
    const { exp = 0, iat = 0, aud, sub, ...rest } = decodeJwt(answer.status.token)
    return {
      seconds: exp - iat,
      aud,
      sub,
      expires: answer.status.expirationTimestamp,
      bound: rest['kubernetes.io'] as Record<string, unknown>,
    }
  }
  return { ask, claims }
}

test('a token lasts an hour for this server unless it is asked otherwise', async (t) => {
  const { claims } = tokens()
  t.deepEqual(await claims({}), {
    seconds: 3600,
    aud: ['https://me'],
    sub: 'system:serviceaccount:default:sa',
    expires: '2026-01-01T01:00:00Z',
    bound: { namespace: 'default', serviceaccount: { name: 'sa', uid: 'uid-sa' } },
  })
  const other = await claims({ audiences: ['vault'], expirationSeconds: 600 })
  t.deepEqual([other.aud, other.seconds], [['vault'], 600])
})

test('a pod’s token names pod and node; the one every pod has lasts a year and warns after its hour', async (t) => {
  const { claims } = tokens()
  const boundObjectRef = { apiVersion: 'v1', kind: 'Pod', name: 'p', uid: 'uid-p' }
  const hour = await claims({ boundObjectRef, expirationSeconds: 3600 })
  t.deepEqual(
    [hour.bound.pod, hour.bound.node, hour.bound.warnafter],
    [{ name: 'p', uid: 'uid-p' }, { name: 'n1', uid: 'uid-n1' }, undefined],
  )
  const projected = await claims({ boundObjectRef, expirationSeconds: 3607 })
  t.is(projected.seconds, 365 * 24 * 3600)
  t.is(projected.bound.warnafter, Date.parse('2026-01-01T00:00:00Z') / 1000 + 3607)
  t.is(
    (await claims({ boundObjectRef, expirationSeconds: 3607, audiences: ['vault'] })).seconds,
    3607,
    'not for somebody else',
  )
})

test('what no token can be had for', async (t) => {
  const { ask } = tokens()
  const invalid = '422 TokenRequest.authentication.k8s.io "" is invalid: spec.expirationSeconds: Invalid value:'
  t.is(await ask({ expirationSeconds: 599 }), `${invalid} 599: may not specify a duration less than 10 minutes`)
  t.is(
    await ask({ expirationSeconds: 2 ** 32 + 1 }),
    `${invalid} 4294967297: may not specify a duration larger than 2^32 seconds`,
  )
  t.is(await ask({}, 'ghost'), '404 serviceaccounts "ghost" not found')
  t.is(await ask({ boundObjectRef: { kind: 'Pod', apiVersion: 'v1', name: 'ghost' } }), '404 pods "ghost" not found')
  t.regex(
    String(await ask({ boundObjectRef: { kind: 'Pod', apiVersion: 'v1', name: 'p', uid: 'x' } })),
    /^409 .*does not match the UID in record/,
  )
  t.regex(
    String(await ask({ boundObjectRef: { kind: 'ConfigMap', apiVersion: 'v1', name: 'p' } })),
    /^400 cannot bind token to object of type/,
  )
})

test('approve() sets the decision and nothing else, once and one way', (t) => {
  const now = '2026-01-01T00:00:00Z'
  const csr = (...conditions: { type: string; status: string }[]): CertificateSigningRequest => ({
    apiVersion: 'certificates.k8s.io/v1',
    kind: 'CertificateSigningRequest',
    metadata: meta('csr'),
    spec: { request: '', signerName: 's' },
    status: { conditions, certificate: 'PEM' },
  })
  const approved = { type: 'Approved', status: 'True', reason: 'AutoApproved' }
  const failed = { type: 'Failed', status: 'True' }
  const next = approve(csr(failed), [{ ...approved }, { type: 'Failed', status: 'False' }], now)
  t.deepEqual(next.status, {
    certificate: 'PEM',
    conditions: [failed, { ...approved, lastUpdateTime: now, lastTransitionTime: now }],
  })
  t.throws(() => approve(csr(approved), [], now), { message: /updates may not remove a condition of type "Approved"/ })
  t.throws(() => approve(csr(), [approved, { type: 'Denied', status: 'True' }], now), { message: /mutually exclusive/ })
  t.throws(() => approve(csr(), [{ type: 'Approved', status: 'False' }], now), { message: /supported values: "True"/ })
})
