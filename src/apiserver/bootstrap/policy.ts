import type { ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, Subject } from '#api/gen/rbac-v1.ts'
import { nodeRules } from '../authorize/node.ts'
import { kubeletClientName } from '../pki/pki.ts'
import { controllerRoles } from './controllers.ts'
import { read, rule, urls, write } from './rule.ts'

/** The roles and bindings that every cluster starts with. Names and, where we have what they speak of, rules are upstream's. */
export interface Policy {
  readonly clusterRoles: readonly ClusterRole[]
  readonly clusterRoleBindings: readonly ClusterRoleBinding[]
  readonly roles: readonly Role[]
  readonly roleBindings: readonly RoleBinding[]
}

const rbac = { apiVersion: 'rbac.authorization.k8s.io/v1' } as const
const signers = (verb: string, name: string): PolicyRule => ({
  verbs: [verb],
  apiGroups: ['certificates.k8s.io'],
  resources: ['signers'],
  resourceNames: [`kubernetes.io/${name}`],
})

const health = ['/healthz', '/livez', '/readyz']
const version = ['/version', '/version/']

const gatewayApi = 'gateway.networking.k8s.io'
const gatewayResources = ['gatewayclasses', 'gateways', 'grpcroutes', 'httproutes', 'referencegrants']

const rulesByName: Readonly<Record<string, readonly PolicyRule[]>> = {
  'cluster-admin': [rule(['*'], ['*'], ['*']), urls(['*'], ['*'])],
  'system:discovery': [
    urls(['get'], ['/api', '/api/*', '/apis', '/apis/*', ...health, '/openapi', '/openapi/*', ...version]),
  ],
  'system:public-info-viewer': [urls(['get'], [...health, ...version])],
  'system:basic-user': [
    rule(['create'], ['authorization.k8s.io'], ['selfsubjectaccessreviews', 'selfsubjectrulesreviews']),
    rule(['create'], ['authentication.k8s.io'], ['selfsubjectreviews']),
  ],
  'system:monitoring': [urls(['get'], [...health.flatMap((h) => [h, `${h}/*`]), '/metrics', '/metrics/slis'])],
  'system:service-account-issuer-discovery': [urls(['get'], ['/.well-known/openid-configuration', '/openid/v1/jwks'])],
  'system:auth-delegator': [
    rule(['create'], ['authentication.k8s.io'], ['tokenreviews']),
    rule(['create'], ['authorization.k8s.io'], ['subjectaccessreviews']),
  ],
  'system:kubelet-api-admin': [
    rule([...read, 'proxy'], [''], ['nodes']),
    rule(['*'], [''], ['nodes/proxy', 'nodes/stats', 'nodes/log', 'nodes/metrics']),
  ],
  // Bound to nobody: the node authorizer gives these, and more narrowly.
  'system:node': nodeRules,
  'system:node-proxier': [
    rule(['list', 'watch'], [''], ['services', 'endpoints']),
    rule(read, [''], ['nodes']),
    rule(['list', 'watch'], ['discovery.k8s.io'], ['endpointslices']),
  ],
  // A node says who may talk to its pods: by policies, and by the labels of pods that are elsewhere. No rule can say
  // "their metadata only", which is all that it asks for.
  'weft:node-policy': [
    rule(['list', 'watch'], [''], ['namespaces', 'pods']),
    rule(['list', 'watch'], ['networking.k8s.io'], ['networkpolicies']),
  ],
  // A node answers for names: a namespace that is there has names below it.
  'weft:node-resolver': [rule(['list', 'watch'], [''], ['namespaces'])],
  // Every node serves every Gateway. Certificates it may read where the gateway controller says so, one by one.
  'weft:node-gateway': [
    rule(['list', 'watch'], [gatewayApi], gatewayResources),
    rule(['list', 'watch'], ['networking.k8s.io'], ['ingressclasses', 'ingresses']),
  ],
  'system:node-bootstrapper': [rule(['create', ...read], ['certificates.k8s.io'], ['certificatesigningrequests'])],
  'system:certificates.k8s.io:certificatesigningrequests:nodeclient': [
    rule(['create'], ['certificates.k8s.io'], ['certificatesigningrequests/nodeclient']),
  ],
  'system:certificates.k8s.io:certificatesigningrequests:selfnodeclient': [
    rule(['create'], ['certificates.k8s.io'], ['certificatesigningrequests/selfnodeclient']),
  ],
  'system:certificates.k8s.io:kubelet-serving-approver': [signers('approve', 'kubelet-serving')],
  'system:certificates.k8s.io:kube-apiserver-client-approver': [signers('approve', 'kube-apiserver-client')],
  'system:certificates.k8s.io:kube-apiserver-client-kubelet-approver': [
    signers('approve', 'kube-apiserver-client-kubelet'),
  ],
  'system:kube-scheduler': [
    rule(['create', 'patch', 'update'], ['', 'events.k8s.io'], ['events']),
    rule(read, [''], ['nodes', 'namespaces', 'pods', 'services']),
    rule(['create'], [''], ['bindings', 'pods/binding']),
    rule(['patch', 'update'], [''], ['pods/status']),
    rule(read, ['apps'], ['replicasets']),
  ],
  // Reads the copies that controllers and scheduler share, and nothing else: no secret is among them. Each of them writes,
  // and the garbage collector follows every kind there is, under its own account.
  'system:kube-controller-manager': [
    rule(['list', 'watch'], [''], ['endpoints', 'namespaces', 'nodes', 'pods', 'serviceaccounts', 'services']),
    { ...rule(['list', 'watch'], [''], ['configmaps']), resourceNames: ['kube-root-ca.crt'] },
    rule(['list', 'watch'], ['apps'], ['controllerrevisions', 'daemonsets', 'deployments', 'replicasets']),
    rule(['list', 'watch'], ['discovery.k8s.io'], ['endpointslices']),
    rule(['list', 'watch'], ['certificates.k8s.io'], ['certificatesigningrequests']),
    rule(['list', 'watch'], ['apiextensions.k8s.io'], ['customresourcedefinitions']),
    rule(['list', 'watch'], [gatewayApi], gatewayResources),
    rule(['list', 'watch'], ['networking.k8s.io'], ['ingressclasses', 'ingresses']),
  ],
  'system:aggregate-to-admin': [
    rule(['create'], ['authorization.k8s.io'], ['localsubjectaccessreviews']),
    rule([...read, ...write], ['rbac.authorization.k8s.io'], ['roles', 'rolebindings']),
  ],
  'system:aggregate-to-edit': [
    rule(read, [''], ['pods/attach', 'pods/exec', 'pods/portforward', 'pods/proxy', 'secrets', 'services/proxy']),
    rule(['impersonate'], [''], ['serviceaccounts']),
    rule(write, [''], ['pods', 'pods/attach', 'pods/exec', 'pods/portforward', 'pods/proxy']),
    rule(['create'], [''], ['pods/eviction', 'serviceaccounts/token']),
    rule(
      write,
      [''],
      [
        'configmaps',
        'events',
        'persistentvolumeclaims',
        'replicationcontrollers',
        'replicationcontrollers/scale',
        'secrets',
        'serviceaccounts',
        'services',
        'services/proxy',
      ],
    ),
    rule(
      write,
      ['apps'],
      [
        'daemonsets',
        'deployments',
        'deployments/rollback',
        'deployments/scale',
        'replicasets',
        'replicasets/scale',
        'statefulsets',
        'statefulsets/scale',
      ],
    ),
    rule(write, ['autoscaling'], ['horizontalpodautoscalers']),
    rule(write, ['batch'], ['cronjobs', 'jobs']),
    rule(write, ['policy'], ['poddisruptionbudgets']),
    rule(write, ['networking.k8s.io'], ['ingresses', 'networkpolicies']),
    rule([...read, ...write], ['coordination.k8s.io'], ['leases']),
  ],
  'system:aggregate-to-view': [
    rule(
      read,
      [''],
      [
        'bindings',
        'configmaps',
        'endpoints',
        'events',
        'limitranges',
        'namespaces',
        'namespaces/status',
        'persistentvolumeclaims',
        'persistentvolumeclaims/status',
        'pods',
        'pods/log',
        'pods/status',
        'replicationcontrollers',
        'replicationcontrollers/scale',
        'replicationcontrollers/status',
        'resourcequotas',
        'resourcequotas/status',
        'serviceaccounts',
        'services',
        'services/status',
      ],
    ),
    rule(read, ['discovery.k8s.io'], ['endpointslices']),
    rule(
      read,
      ['apps'],
      [
        'controllerrevisions',
        'daemonsets',
        'daemonsets/status',
        'deployments',
        'deployments/scale',
        'deployments/status',
        'replicasets',
        'replicasets/scale',
        'replicasets/status',
        'statefulsets',
        'statefulsets/scale',
        'statefulsets/status',
      ],
    ),
    rule(read, ['autoscaling'], ['horizontalpodautoscalers', 'horizontalpodautoscalers/status']),
    rule(read, ['batch'], ['cronjobs', 'cronjobs/status', 'jobs', 'jobs/status']),
    rule(read, ['policy'], ['poddisruptionbudgets', 'poddisruptionbudgets/status']),
    rule(read, ['networking.k8s.io'], ['ingresses', 'ingresses/status', 'networkpolicies']),
  ],
  ...controllerRoles,
}

/** Labels by which the three roles for people gather what belongs to them: admin holds edit, edit holds view. */
const aggregateTo = (role: string) => `rbac.authorization.k8s.io/aggregate-to-${role}`
const labelsByName: Readonly<Record<string, string>> = {
  edit: aggregateTo('admin'),
  view: aggregateTo('edit'),
  'system:aggregate-to-admin': aggregateTo('admin'),
  'system:aggregate-to-edit': aggregateTo('edit'),
  'system:aggregate-to-view': aggregateTo('view'),
}

const user = (name: string): Subject => ({ apiGroup: 'rbac.authorization.k8s.io', kind: 'User', name })
const group = (name: string): Subject => ({ apiGroup: 'rbac.authorization.k8s.io', kind: 'Group', name })
const account = (name: string): Subject => ({ kind: 'ServiceAccount', namespace: 'kube-system', name })

interface BindingRow {
  readonly name: string
  /** Where it differs from the binding's own name. */
  readonly role?: string
  readonly subjects: readonly Subject[]
}

const authenticated = group('system:authenticated')
const bindings: readonly BindingRow[] = [
  { name: 'cluster-admin', subjects: [group('system:masters')] },
  { name: 'system:discovery', subjects: [authenticated] },
  { name: 'system:basic-user', subjects: [authenticated] },
  { name: 'system:public-info-viewer', subjects: [authenticated, group('system:unauthenticated')] },
  { name: 'system:monitoring', subjects: [group('system:monitoring')] },
  { name: 'system:service-account-issuer-discovery', subjects: [group('system:serviceaccounts')] },
  { name: 'system:node', subjects: [] },
  { name: 'system:node-proxier', subjects: [user('system:kube-proxy')] },
  { name: 'system:kube-scheduler', subjects: [user('system:kube-scheduler')] },
  { name: 'system:kube-controller-manager', subjects: [user('system:kube-controller-manager')] },
  // The agent is kubelet and service proxy in one process, under the node's one certificate.
  { name: 'weft:node-proxier', role: 'system:node-proxier', subjects: [group('system:nodes')] },
  { name: 'weft:node-resolver', subjects: [group('system:nodes')] },
  { name: 'weft:node-gateway', subjects: [group('system:nodes')] },
  { name: 'weft:node-policy', subjects: [group('system:nodes')] },
  { name: 'weft:node-bootstrapper', role: 'system:node-bootstrapper', subjects: [group('system:bootstrappers')] },
  {
    name: 'weft:node-first-certificate',
    role: 'system:certificates.k8s.io:certificatesigningrequests:nodeclient',
    subjects: [group('system:bootstrappers')],
  },
  {
    name: 'weft:node-certificate-renewal',
    role: 'system:certificates.k8s.io:certificatesigningrequests:selfnodeclient',
    subjects: [group('system:nodes')],
  },
  {
    name: 'weft:kubelet-serving-approver',
    role: 'system:certificates.k8s.io:kubelet-serving-approver',
    subjects: [account('certificate-controller')],
  },
  { name: 'weft:apiserver-to-kubelet', role: 'system:kubelet-api-admin', subjects: [user(kubeletClientName)] },
  ...Object.keys(controllerRoles).map((name) => ({
    name,
    subjects: [account(name.slice('system:controller:'.length))],
  })),
]

/** Where every bootstrap object is recognised, and kept up to date at start unless somebody sets the annotation to false. */
const bootstrapMeta = (name: string) => ({
  name,
  labels: { 'kubernetes.io/bootstrapping': 'rbac-defaults' } as Record<string, string>,
  annotations: { 'rbac.authorization.kubernetes.io/autoupdate': 'true' } as Record<string, string>,
  uid: '',
  resourceVersion: '',
  creationTimestamp: '',
})

function clusterRole(name: string, rules: readonly PolicyRule[]): ClusterRole {
  const metadata = bootstrapMeta(name)
  const label = labelsByName[name]
  if (label !== undefined) metadata.labels[label] = 'true'
  return { ...rbac, kind: 'ClusterRole', metadata, rules: [...rules] }
}

function aggregatedRole(name: string): ClusterRole {
  const role = clusterRole(name, [])
  role.aggregationRule = { clusterRoleSelectors: [{ matchLabels: { [aggregateTo(name)]: 'true' } }] }
  return role
}

const inNamespace = (namespace: string, name: string) => ({ ...bootstrapMeta(name), namespace })

/** The whole policy, as objects to create. Pure; a fresh copy each time. */
export function bootstrapPolicy(): Policy {
  return {
    clusterRoles: [
      ...['admin', 'edit', 'view'].map(aggregatedRole),
      ...Object.entries(rulesByName).map(([name, rules]) => clusterRole(name, structuredClone(rules))),
    ],
    clusterRoleBindings: bindings.map(({ name, role = name, subjects }) => ({
      ...rbac,
      kind: 'ClusterRoleBinding' as const,
      metadata: bootstrapMeta(name),
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: role },
      ...(subjects.length > 0 ? { subjects: structuredClone([...subjects]) } : {}),
    })),
    roles: [
      {
        ...rbac,
        kind: 'Role' as const,
        metadata: inNamespace('kube-system', 'extension-apiserver-authentication-reader'),
        rules: [
          {
            verbs: [...read],
            apiGroups: [''],
            resources: ['configmaps'],
            resourceNames: ['extension-apiserver-authentication'],
          },
        ],
      },
      {
        ...rbac,
        kind: 'Role' as const,
        metadata: inNamespace('kube-node-lease', 'system:controller:node-controller'),
        rules: [rule(read, ['coordination.k8s.io'], ['leases'])],
      },
    ],
    roleBindings: [
      {
        ...rbac,
        kind: 'RoleBinding' as const,
        metadata: inNamespace('kube-node-lease', 'system:controller:node-controller'),
        roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name: 'system:controller:node-controller' },
        // Who watches the nodes' leases, and who reads them for all controllers.
        subjects: [account('node-controller'), user('system:kube-controller-manager')],
      },
    ],
  }
}
