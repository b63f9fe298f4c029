import type { KindDefinition } from '#api/kind.ts'
import type { Manifest } from './trial.ts'

const template = (labels: Record<string, string>) => ({
  metadata: { labels },
  spec: { containers: [{ name: 'c', image: 'i:1' }] },
})
const workload = { spec: { selector: { matchLabels: { a: 'b' } }, template: template({ a: 'b' }) } }
const request = Buffer.from('-----BEGIN CERTIFICATE REQUEST-----\nMA==\n-----END CERTIFICATE REQUEST-----\n').toString(
  'base64',
)

/** The least that each kind takes, without its metadata. */
export const minimal: Record<string, Manifest> = {
  Binding: { target: { name: 'n' } },
  Pod: { spec: { containers: [{ name: 'c', image: 'i' }] } },
  Service: { spec: { ports: [{ port: 80 }] } },
  Event: { involvedObject: { namespace: 'default' } },
  'events.k8s.io/Event': {
    eventTime: '2026-01-01T00:00:00.000000Z',
    reportingController: 'c',
    reportingInstance: 'i',
    action: 'a',
    reason: 'r',
    type: 'Normal',
    regarding: { namespace: 'default' },
  },
  ControllerRevision: { revision: 1, data: {} },
  DaemonSet: workload,
  Deployment: workload,
  ReplicaSet: workload,
  TokenReview: { spec: { token: 't' } },
  LocalSubjectAccessReview: { spec: { user: 'u', resourceAttributes: { namespace: 'default' } } },
  SelfSubjectAccessReview: { spec: { nonResourceAttributes: { path: '/' } } },
  SubjectAccessReview: { spec: { user: 'u', nonResourceAttributes: { path: '/' } } },
  CertificateSigningRequest: {
    spec: { request, signerName: 'kubernetes.io/kube-apiserver-client', usages: ['client auth'] },
  },
  EndpointSlice: { addressType: 'IPv4' },
  Ingress: { spec: { defaultBackend: { service: { name: 's', port: { number: 80 } } } } },
  IngressClass: { spec: { controller: 'example.com/c' } },
  NetworkPolicy: { spec: {} },
  ClusterRoleBinding: { roleRef: { kind: 'ClusterRole', name: 'r' } },
  RoleBinding: { roleRef: { kind: 'Role', name: 'r' }, subjects: [{ kind: 'User', name: 'u' }] },
  CustomResourceDefinition: {
    metadata: { name: 'things.example.com' },
    spec: {
      group: 'example.com',
      scope: 'Namespaced',
      names: { plural: 'things', kind: 'Thing' },
      versions: [{ name: 'v1', served: true, storage: true, schema: { openAPIV3Schema: { type: 'object' } } }],
    },
  },
  ValidatingAdmissionPolicy: {
    spec: {
      matchConstraints: {
        resourceRules: [{ apiGroups: [''], apiVersions: ['v1'], operations: ['CREATE'], resources: ['pods'] }],
      },
      validations: [{ expression: 'object != null' }],
    },
  },
  ValidatingAdmissionPolicyBinding: { spec: { policyName: 'p', validationActions: ['Deny'] } },
}

export const manifestOf = ({ resource: { group, kind } }: KindDefinition): Manifest =>
  minimal[`${group}/${kind}`] ?? minimal[kind] ?? {}
