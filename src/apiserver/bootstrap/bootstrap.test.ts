import test from 'ava'
import type { ClusterRole, PolicyRule } from '#api/gen/rbac-v1.ts'
import * as resources from '#api/gen/resources.ts'
import type { Resource } from '#api/meta/resource.ts'
import { FakeClock } from '#base/clock.ts'
import { silentLog } from '#base/log/log.ts'
import { createAuthorize } from '../authorize/authorize.ts'
import { FakeRegistry } from '../fake-registry.ts'
import { type BootstrapOptions, bootstrap, serverItself } from './bootstrap.ts'
import { bootstrapPolicy } from './policy.ts'
import { reconcileBinding, reconcileRole } from './reconcile.ts'

function setUp(registry = new FakeRegistry()) {
  const authorizer = createAuthorize(registry)
  const options: BootstrapOptions = {
    registry,
    authorizer,
    serviceCidrs: ['10.96.0.0/16', 'fd00:10:96::/112'],
    servers: [
      { address: '172.30.0.1', port: 6443 },
      { address: 'fd00:172:30::1', port: 6443 },
    ],
    clientAuthority: 'PEM',
    log: silentLog,
    clock: new FakeClock(),
  }
  return { registry, authorizer, options }
}

/** `get,list pods` lines, one per atom of a role. */
function atomsOf(rules: readonly PolicyRule[] | undefined): string[] {
  return (rules ?? [])
    .flatMap(({ verbs, apiGroups = [], resources = [], resourceNames, nonResourceURLs = [] }) =>
      verbs.flatMap((verb) => [
        ...apiGroups.flatMap((g) =>
          resources.map((r) => `${verb} ${g === '' ? r : `${r}.${g}`}${resourceNames ? ` [${resourceNames}]` : ''}`),
        ),
        ...nonResourceURLs.map((url) => `${verb} ${url}`),
      ]),
    )
    .toSorted()
}

const expand = (lines: readonly string[]): string[] =>
  lines
    .flatMap((line) => {
      const [verbs = '', ...what] = line.split(' ')
      const written: Record<string, string> = {
        read: 'get,list,watch',
        own: 'create,delete,get,list,patch,update,watch',
      }
      return (written[verbs] ?? verbs).split(',').map((verb) => `${verb} ${what.join(' ')}`)
    })
    .toSorted()

const events = ['create,patch,update events', 'create,patch,update events.events.k8s.io']

/** The whole of what each part may do. A line more or less here is a decision about who may do what: read it as one. */
const gatewayApi = ['gatewayclasses', 'gateways', 'grpcroutes', 'httproutes', 'referencegrants'].map(
  (r) => `${r}.gateway.networking.k8s.io`,
)

const ingressApi = ['ingressclasses', 'ingresses'].map((r) => `${r}.networking.k8s.io`)

const golden: Readonly<Record<string, readonly string[]>> = {
  'system:kube-scheduler': [
    ...events,
    'read nodes',
    'read namespaces',
    'read pods',
    'read services',
    'create bindings',
    'create pods/binding',
    'patch,update pods/status',
    'read replicasets.apps',
  ],
  'system:kube-controller-manager': [
    ...['endpoints', 'namespaces', 'nodes', 'pods', 'serviceaccounts', 'services'].map((r) => `list,watch ${r}`),
    'list,watch configmaps [kube-root-ca.crt]',
    ...['controllerrevisions', 'daemonsets', 'deployments', 'replicasets'].map((r) => `list,watch ${r}.apps`),
    'list,watch endpointslices.discovery.k8s.io',
    'list,watch certificatesigningrequests.certificates.k8s.io',
    'list,watch customresourcedefinitions.apiextensions.k8s.io',
    ...gatewayApi.map((r) => `list,watch ${r}`),
    ...ingressApi.map((r) => `list,watch ${r}`),
  ],
  'system:node-proxier': [
    'list,watch services',
    'list,watch endpoints',
    'read nodes',
    'list,watch endpointslices.discovery.k8s.io',
  ],
  'weft:node-resolver': ['list,watch namespaces'],
  'weft:node-gateway': [...gatewayApi, ...ingressApi].map((r) => `list,watch ${r}`),
  'system:node-bootstrapper': ['create,get,list,watch certificatesigningrequests.certificates.k8s.io'],
  'system:kubelet-api-admin': [
    'read nodes',
    'proxy nodes',
    '* nodes/proxy',
    '* nodes/stats',
    '* nodes/log',
    '* nodes/metrics',
  ],
  'system:basic-user': [
    'create selfsubjectaccessreviews.authorization.k8s.io',
    'create selfsubjectrulesreviews.authorization.k8s.io',
    'create selfsubjectreviews.authentication.k8s.io',
  ],
  'system:public-info-viewer': ['get /healthz', 'get /livez', 'get /readyz', 'get /version', 'get /version/'],
  'system:controller:certificate-controller': [
    'delete,get,list,watch certificatesigningrequests.certificates.k8s.io',
    'patch,update certificatesigningrequests/approval.certificates.k8s.io',
    'patch,update certificatesigningrequests/status.certificates.k8s.io',
    'approve signers.certificates.k8s.io [kubernetes.io/kube-apiserver-client-kubelet]',
    'sign signers.certificates.k8s.io [kubernetes.io/kube-apiserver-client,kubernetes.io/kube-apiserver-client-kubelet,kubernetes.io/kubelet-serving,kubernetes.io/legacy-unknown]',
    'create subjectaccessreviews.authorization.k8s.io',
    'read nodes',
    ...events,
  ],
  'system:controller:daemon-set-controller': [
    'read daemonsets.apps',
    'patch,update daemonsets/status.apps',
    'update daemonsets/finalizers.apps',
    'read nodes',
    'create,delete,get,list,patch,watch pods',
    'own controllerrevisions.apps',
    ...events,
  ],
  'system:controller:deployment-controller': [
    'read deployments.apps',
    'patch,update deployments/status.apps',
    'update deployments/finalizers.apps',
    'own replicasets.apps',
    'read pods',
    ...events,
  ],
  'system:controller:endpoint-controller': [
    'read pods',
    'read services',
    'create,delete,get,list,update,watch endpoints',
    ...events,
  ],
  'system:controller:endpointslice-controller': [
    'read nodes',
    'read pods',
    'read services',
    'update services/finalizers',
    'create,delete,get,list,update,watch endpointslices.discovery.k8s.io',
    ...events,
  ],
  'system:controller:endpointslicemirroring-controller': [
    'read endpoints',
    'read services',
    'update endpoints/finalizers',
    'update services/finalizers',
    'create,delete,get,list,update,watch endpointslices.discovery.k8s.io',
    ...events,
  ],
  'system:controller:generic-garbage-collector': ['delete,get,list,patch,update,watch *.*', ...events],
  'system:controller:namespace-controller': [
    'read namespaces',
    'patch,update namespaces/finalize',
    'patch,update namespaces/status',
    'delete,deletecollection,get,list,watch *.*',
  ],
  'system:controller:node-controller': [
    'get,list,patch,update,watch nodes',
    'patch,update nodes/status',
    'patch,update pods/status',
    'delete,get,list,watch pods',
    ...events,
  ],
  'system:controller:pod-garbage-collector': ['delete,get,list,watch pods', 'read nodes', 'patch pods/status'],
  'system:controller:replicaset-controller': [
    'read replicasets.apps',
    'patch,update replicasets/status.apps',
    'update replicasets/finalizers.apps',
    'create,delete,get,list,patch,watch pods',
    ...events,
  ],
  'system:controller:root-ca-cert-publisher': [
    'read namespaces',
    'create configmaps',
    'get,list,watch,patch,update configmaps [kube-root-ca.crt]',
    ...events,
  ],
  'system:controller:gateway-controller': [
    ...gatewayApi.map((r) => `read ${r}`),
    'create gatewayclasses.gateway.networking.k8s.io',
    ...['gatewayclasses', 'gateways', 'grpcroutes', 'httproutes'].map(
      (r) => `patch,update ${r}/status.gateway.networking.k8s.io`,
    ),
    'update gateways/finalizers.gateway.networking.k8s.io',
    ...ingressApi.map((r) => `read ${r}`),
    'create ingressclasses.networking.k8s.io',
    'patch,update ingresses/status.networking.k8s.io',
    'read namespaces',
    'read nodes',
    'create,delete,get,list,patch,update,watch services',
    'read secrets',
    'create,delete,get,list,patch,update,watch rolebindings.rbac.authorization.k8s.io',
    'create,delete,get,list,patch,update,watch roles.rbac.authorization.k8s.io',
    ...events,
  ],
  'system:controller:service-controller': ['read services', 'patch,update services/status', ...events],
  'system:controller:service-account-controller': [
    'read namespaces',
    'create,get,list,watch serviceaccounts',
    ...events,
  ],
}

const roleNamed = (name: string): ClusterRole | undefined =>
  bootstrapPolicy().clusterRoles.find((r) => r.metadata.name === name)

for (const [name, lines] of Object.entries(golden)) {
  test(`${name} allows exactly its list`, (t) => t.deepEqual(atomsOf(roleNamed(name)?.rules), expand(lines)))
}

test('every controller has a golden list, and its role is bound to its own account and nobody else', (t) => {
  const { clusterRoles, clusterRoleBindings } = bootstrapPolicy()
  const names = clusterRoles.map((r) => r.metadata.name).filter((n) => n.startsWith('system:controller:'))
  t.deepEqual(
    names.filter((n) => golden[n] === undefined),
    [],
  )
  for (const name of names) {
    const bound = clusterRoleBindings.filter((b) => b.roleRef.name === name).flatMap((b) => b.subjects ?? [])
    const account = { kind: 'ServiceAccount', namespace: 'kube-system', name: name.slice('system:controller:'.length) }
    t.deepEqual(bound, [account], name)
  }
})

test('who is bound to what', (t) => {
  const subjects = bootstrapPolicy().clusterRoleBindings.flatMap((b) =>
    (b.subjects ?? [])
      .filter((s) => s.kind !== 'ServiceAccount')
      .map((s) => `${s.kind} ${s.name} -> ${b.roleRef.name}`),
  )
  t.deepEqual(subjects.toSorted(), [
    'Group system:authenticated -> system:basic-user',
    'Group system:authenticated -> system:discovery',
    'Group system:authenticated -> system:public-info-viewer',
    'Group system:bootstrappers -> system:certificates.k8s.io:certificatesigningrequests:nodeclient',
    'Group system:bootstrappers -> system:node-bootstrapper',
    'Group system:masters -> cluster-admin',
    'Group system:monitoring -> system:monitoring',
    'Group system:nodes -> system:certificates.k8s.io:certificatesigningrequests:selfnodeclient',
    'Group system:nodes -> system:node-proxier',
    'Group system:nodes -> weft:node-gateway',
    'Group system:nodes -> weft:node-policy',
    'Group system:nodes -> weft:node-resolver',
    'Group system:serviceaccounts -> system:service-account-issuer-discovery',
    'Group system:unauthenticated -> system:public-info-viewer',
    'User kube-apiserver-kubelet-client -> system:kubelet-api-admin',
    'User system:kube-controller-manager -> system:kube-controller-manager',
    'User system:kube-proxy -> system:node-proxier',
    'User system:kube-scheduler -> system:kube-scheduler',
  ])
})

test('bootstrap() puts in namespaces, policy and the kubernetes Service; a second run writes nothing', async (t) => {
  const { registry, options } = setUp()
  await bootstrap(options)
  t.deepEqual(
    [...registry.list(resources.namespaces)].map((n) => n.metadata.name),
    ['default', 'kube-system', 'kube-public', 'kube-node-lease'],
  )
  const service = registry.get(resources.services, 'default', 'kubernetes')
  t.is(service?.spec.clusterIP, '10.96.0.1')
  t.deepEqual(service?.spec.ports, [{ name: 'https', protocol: 'TCP', port: 443, targetPort: 6443 }])
  const slice = registry.get(resources.endpointSlices, 'default', 'kubernetes')
  t.deepEqual(slice?.endpoints, [{ addresses: ['172.30.0.1'], conditions: { ready: true } }])
  t.deepEqual(registry.get(resources.endpoints, 'default', 'kubernetes')?.subsets, [
    { addresses: [{ ip: '172.30.0.1' }], ports: [{ name: 'https', port: 6443, protocol: 'TCP' }] },
  ])
  const versions = (): string[] =>
    [resources.clusterRoles, resources.clusterRoleBindings, resources.services, resources.namespaces].flatMap((r) =>
      [...registry.list(r as Resource)].map((o) => `${o.metadata.name} ${o.metadata.resourceVersion}`),
    )
  const before = versions()
  await bootstrap(options)
  t.deepEqual(versions(), before)
})

/** Lets what was started by a commit run to its end. */
const settled = async () => {
  for (let i = 0; i < 50; i++) await Promise.resolve()
}

test('the server’s own Service and addresses are put right again when somebody spoils them', async (t) => {
  const { registry, options } = setUp()
  await bootstrap(options)
  await registry.delete(resources.services, 'default', 'kubernetes')
  await registry.change(resources.endpointSlices, 'default', 'kubernetes', serverItself, (s) => ({
    ...s,
    endpoints: [],
  }))
  await settled()
  t.is(registry.get(resources.services, 'default', 'kubernetes')?.spec.clusterIP, '10.96.0.1')
  t.is(registry.get(resources.endpointSlices, 'default', 'kubernetes')?.endpoints?.length, 1)
})

test('aggregated roles hold what their labels gather, also from a role that comes later', async (t) => {
  const { registry, authorizer, options } = setUp()
  await bootstrap(options)
  const rules = (name: string) => registry.get(resources.clusterRoles, '', name)?.rules ?? []
  const ref = (name: string) => ({ kind: 'ClusterRole', name })
  t.deepEqual(rules('admin'), [...(authorizer.rulesOf(ref('admin'), '') ?? [])])
  t.true(rules('admin').length > rules('edit').length && rules('edit').length > rules('view').length)
  const widgets = { verbs: ['get'], apiGroups: ['example.com'], resources: ['widgets'] }
  const role = roleNamed('system:discovery')
  if (role === undefined) return t.fail()
  const labels = { 'rbac.authorization.k8s.io/aggregate-to-view': 'true' }
  await registry.create(resources.clusterRoles, {
    ...role,
    metadata: { ...role.metadata, name: 'widgets', labels },
    rules: [widgets],
  })
  await settled()
  for (const name of ['view', 'edit', 'admin']) {
    t.true(
      rules(name).some((r) => r.apiGroups?.[0] === 'example.com'),
      name,
    )
  }
})

test('reconcileRole() adds what is missing, leaves what was added, and keeps off where it is told to', (t) => {
  const wanted = roleNamed('system:node-bootstrapper')
  if (wanted === undefined) return t.fail()
  t.is(reconcileRole(wanted, wanted), undefined)
  const extra = { verbs: ['get'], apiGroups: [''], resources: ['nodes'] }
  const less: ClusterRole = {
    ...wanted,
    rules: [extra, { verbs: ['get'], apiGroups: ['certificates.k8s.io'], resources: ['certificatesigningrequests'] }],
  }
  t.deepEqual(
    atomsOf(reconcileRole(less, wanted)?.rules),
    expand(['get nodes', 'create,get,list,watch certificatesigningrequests.certificates.k8s.io']),
  )
  const annotations = { 'rbac.authorization.kubernetes.io/autoupdate': 'false' }
  t.is(reconcileRole({ ...less, metadata: { ...less.metadata, annotations } }, wanted), undefined)
})

test('reconcileBinding() adds subjects, and makes a binding of another role anew', (t) => {
  const wanted = bootstrapPolicy().clusterRoleBindings.find((b) => b.metadata.name === 'system:public-info-viewer')
  if (wanted === undefined) return t.fail()
  t.deepEqual(reconcileBinding(wanted, wanted), { do: 'nothing' })
  const own = { kind: 'User', name: 'somebody' }
  const plan = reconcileBinding({ ...wanted, subjects: [own] }, wanted)
  t.deepEqual(plan.do === 'write' && plan.next.subjects, [own, ...(wanted.subjects ?? [])])
  const other = { ...wanted, roleRef: { ...wanted.roleRef, name: 'view' } }
  t.deepEqual(reconcileBinding(other, wanted), { do: 'replace' })
})
