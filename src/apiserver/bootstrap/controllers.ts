import type { PolicyRule } from '#api/gen/rbac-v1.ts'
import { read, rule } from './rule.ts'

const events = rule(['create', 'patch', 'update'], ['', 'events.k8s.io'], ['events'])
/** Status may be written whole or by patch: the same power. */
const change = ['patch', 'update'] as const
const gateway = 'gateway.networking.k8s.io'
const own = ['create', 'delete', 'get', 'list', 'patch', 'update', 'watch'] as const

/**
 * One role per controller, bound to the service account of that name in kube-system. As upstream's, controllers read
 * shared copies; but each asks first whether it may list what it reads (reconcile/loop.ts), so its reads are here too and
 * a controller whose role is taken away stops, and it alone.
 */
export const controllerRoles: Readonly<Record<string, readonly PolicyRule[]>> = {
  'system:controller:certificate-controller': [
    rule(['delete', ...read], ['certificates.k8s.io'], ['certificatesigningrequests']),
    rule(change, ['certificates.k8s.io'], ['certificatesigningrequests/approval', 'certificatesigningrequests/status']),
    {
      verbs: ['approve'],
      apiGroups: ['certificates.k8s.io'],
      resources: ['signers'],
      resourceNames: ['kubernetes.io/kube-apiserver-client-kubelet'],
    },
    {
      verbs: ['sign'],
      apiGroups: ['certificates.k8s.io'],
      resources: ['signers'],
      resourceNames: [
        'kubernetes.io/kube-apiserver-client',
        'kubernetes.io/kube-apiserver-client-kubelet',
        'kubernetes.io/kubelet-serving',
        'kubernetes.io/legacy-unknown',
      ],
    },
    rule(['create'], ['authorization.k8s.io'], ['subjectaccessreviews']),
    // A serving certificate is approved for the addresses its Node has.
    rule(read, [''], ['nodes']),
    events,
  ],
  'system:controller:daemon-set-controller': [
    rule(read, ['apps'], ['daemonsets']),
    rule(change, ['apps'], ['daemonsets/status']),
    rule(['update'], ['apps'], ['daemonsets/finalizers']),
    rule(read, [''], ['nodes']),
    rule(['create', 'delete', 'get', 'list', 'patch', 'watch'], [''], ['pods']),
    rule(own, ['apps'], ['controllerrevisions']),
    events,
  ],
  'system:controller:deployment-controller': [
    rule(read, ['apps'], ['deployments']),
    rule(change, ['apps'], ['deployments/status']),
    rule(['update'], ['apps'], ['deployments/finalizers']),
    rule(own, ['apps'], ['replicasets']),
    rule(read, [''], ['pods']),
    events,
  ],
  'system:controller:endpoint-controller': [
    rule(read, [''], ['pods', 'services']),
    rule(['create', 'delete', ...read, 'update'], [''], ['endpoints']),
    events,
  ],
  'system:controller:endpointslice-controller': [
    rule(read, [''], ['nodes', 'pods', 'services']),
    rule(['update'], [''], ['services/finalizers']),
    rule(['create', 'delete', ...read, 'update'], ['discovery.k8s.io'], ['endpointslices']),
    events,
  ],
  'system:controller:endpointslicemirroring-controller': [
    rule(read, [''], ['endpoints', 'services']),
    rule(['update'], [''], ['endpoints/finalizers', 'services/finalizers']),
    rule(['create', 'delete', ...read, 'update'], ['discovery.k8s.io'], ['endpointslices']),
    events,
  ],
  'system:controller:gateway-controller': [
    rule(read, [gateway], ['gatewayclasses', 'gateways', 'grpcroutes', 'httproutes', 'referencegrants']),
    rule(['create'], [gateway], ['gatewayclasses']),
    rule(change, [gateway], ['gatewayclasses/status', 'gateways/status', 'grpcroutes/status', 'httproutes/status']),
    rule(['update'], [gateway], ['gateways/finalizers']),
    rule(read, ['networking.k8s.io'], ['ingressclasses', 'ingresses']),
    rule(['create'], ['networking.k8s.io'], ['ingressclasses']),
    rule(change, ['networking.k8s.io'], ['ingresses/status']),
    rule(read, [''], ['namespaces', 'nodes']),
    rule(own, [''], ['services']),
    // Certificates: it looks at them, and gives the nodes the right to those that Gateways may use.
    rule(read, [''], ['secrets']),
    rule(own, ['rbac.authorization.k8s.io'], ['rolebindings', 'roles']),
    events,
  ],
  'system:controller:generic-garbage-collector': [
    rule(['delete', 'get', 'list', 'patch', 'update', 'watch'], ['*'], ['*']),
    events,
  ],
  'system:controller:namespace-controller': [
    rule(read, [''], ['namespaces']),
    rule(change, [''], ['namespaces/finalize', 'namespaces/status']),
    rule(['delete', 'deletecollection', ...read], ['*'], ['*']),
  ],
  'system:controller:node-controller': [
    rule([...read, ...change], [''], ['nodes']),
    rule(change, [''], ['nodes/status', 'pods/status']),
    rule(['delete', ...read], [''], ['pods']),
    events,
  ],
  'system:controller:pod-garbage-collector': [
    rule(['delete', ...read], [''], ['pods']),
    rule(read, [''], ['nodes']),
    rule(['patch'], [''], ['pods/status']),
  ],
  'system:controller:replicaset-controller': [
    rule(read, ['apps'], ['replicasets']),
    rule(change, ['apps'], ['replicasets/status']),
    rule(['update'], ['apps'], ['replicasets/finalizers']),
    rule(['create', 'delete', 'get', 'list', 'patch', 'watch'], [''], ['pods']),
    events,
  ],
  'system:controller:root-ca-cert-publisher': [
    rule(read, [''], ['namespaces']),
    rule(['create'], [''], ['configmaps']),
    {
      verbs: [...read, ...change],
      apiGroups: [''],
      resources: ['configmaps'],
      resourceNames: ['kube-root-ca.crt'],
    },
    events,
  ],
  'system:controller:service-account-controller': [
    rule(read, [''], ['namespaces']),
    rule(['create', ...read], [''], ['serviceaccounts']),
    events,
  ],
  'system:controller:service-controller': [
    rule(read, [''], ['services']),
    rule(change, [''], ['services/status']),
    events,
  ],
}
