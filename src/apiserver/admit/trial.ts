import type { Namespace, Pod, PodSpec, ServiceAccount } from '#api/gen/core-v1.ts'
import * as resources from '#api/gen/resources.ts'
import type { KubeObject, Resource } from '#api/meta/resource.ts'
import { StatusError } from '#api/meta/status.ts'
import { FakeClock } from '#base/clock.ts'
import { silentLog } from '#base/log/log.ts'
import { IdentityAllocator } from '../allocate/identities.ts'
import { PodAllocator } from '../allocate/pods.ts'
import { ServiceAllocator } from '../allocate/services.ts'
import { createAuthorize } from '../authorize/authorize.ts'
import { bootstrapPolicy } from '../bootstrap/policy.ts'
import { FakeRegistry } from '../fake-registry.ts'
import type { AdmissionRequest, User } from '../step.ts'
import { createAdmission } from './admit.ts'

export const meta = (name: string) => ({
  name,
  namespace: 'default',
  uid: `uid-${name}`,
  resourceVersion: '',
  creationTimestamp: '',
})
export const admin: User = { name: 'admin', groups: ['system:masters'] }
export const node: User = { name: 'system:node:n1', groups: ['system:nodes'] }

export const namespace = (name: string, phase: 'Active' | 'Terminating' = 'Active'): Namespace => ({
  apiVersion: 'v1',
  kind: 'Namespace',
  metadata: meta(name),
  spec: {},
  status: { phase },
})
export const account = (name: string, more: Partial<ServiceAccount> = {}): ServiceAccount => ({
  apiVersion: 'v1',
  kind: 'ServiceAccount',
  metadata: meta(name),
  ...more,
})
export const pod = (spec: Partial<PodSpec> = {}, annotations?: Record<string, string>): Pod => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { ...meta('p'), ...(annotations ? { annotations } : {}) },
  spec: { containers: [{ name: 'c', resources: {} }], ...spec },
  status: {},
})

/** Admission as a cluster begins, in front of a registry in memory. */
export function setUp() {
  const clock = new FakeClock()
  const policy = bootstrapPolicy()
  const registry = new FakeRegistry()
    .put(resources.namespaces, namespace('default'), namespace('kube-node-lease'))
    .put(resources.serviceAccounts, account('default'))
    .put(resources.clusterRoles, ...policy.clusterRoles)
    .put(resources.clusterRoleBindings, ...policy.clusterRoleBindings)
  registry.unserved.add('scheduling.k8s.io/priorityclasses')
  const authorizer = createAuthorize(registry)
  const services = new ServiceAllocator(registry, { cidrs: ['10.96.0.0/16'], nodePorts: { first: 30000, last: 32767 } })
  const identities = new IdentityAllocator(registry, { revision: 744, clock, log: silentLog })
  const options = { authorizer, services, pods: new PodAllocator(registry), identities, clock }
  return { clock, registry, authorizer, options, admission: createAdmission(registry, options) }
}

export interface Asked {
  readonly user?: User
  readonly operation?: AdmissionRequest['operation']
  readonly subresource?: string
  readonly namespace?: string
  readonly name?: string
  readonly old?: KubeObject
}

/** By an administrator, to create, where nothing else is said. */
export function request<K extends KubeObject>(
  resource: Resource<K>,
  object: KubeObject | undefined,
  asked: Asked = {},
): AdmissionRequest {
  const { user = admin, operation = 'CREATE', subresource = '', name = '', old } = asked
  const where = asked.namespace ?? (resource.namespaced ? 'default' : '')
  const { group, version, resource: plural } = resource
  const verb = operation.toLowerCase()
  const attributes = {
    user,
    verb,
    group,
    version,
    resource: plural,
    subresource,
    namespace: where,
    name,
    path: undefined,
  }
  return { attributes, operation, object, old, dryRun: false, warn() {} }
}

/** The words of the refusal, or `admitted`. */
export function verdict({ admission }: ReturnType<typeof setUp>, asked: AdmissionRequest): string {
  try {
    admission.mutate(asked)
    admission.validate(asked)
    return 'admitted'
  } catch (error) {
    admission.settled(asked, 'failed')
    if (error instanceof StatusError) return error.message
    throw error
  }
}
