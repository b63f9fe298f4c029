import type { ConfigMap, Namespace } from '#api/gen/core-v1.ts'
import * as resources from '#api/gen/resources.ts'
import type { PriorityClass } from '#api/gen/scheduling-v1.ts'
import type { KubeObject, Resource } from '#api/meta/resource.ts'
import { isStatus } from '#api/meta/status.ts'
import { Backoff } from '#base/async/backoff.ts'
import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log/log.ts'
import { formatAddress, parseCidr } from '#base/net/address.ts'
import type { Authorizer } from '../authorize/authorize.ts'
import type { Registry, User } from '../step.ts'
import { dnsService } from './dns-service.ts'
import { kubernetesEndpoints, kubernetesService, kubernetesSlice, type ServerAddress } from './kubernetes-service.ts'
import { bootstrapPolicy } from './policy.ts'
import { reconcileBinding, reconcileRole } from './reconcile.ts'

export interface BootstrapOptions {
  readonly registry: Registry
  readonly authorizer: Pick<Authorizer, 'rulesOf'>
  /** The Service networks, the primary first: the `kubernetes` Service has its first address, `kube-dns` the tenth of each. */
  readonly serviceCidrs: readonly string[]
  /** Where this server is reached from pods. */
  readonly servers: readonly ServerAddress[]
  /** PEM of the authority that signs client certificates. */
  readonly clientAuthority: string
  readonly log: Log
  readonly clock: Clock
}

/** Whom the server is when it writes for itself. */
export const serverItself: User = { name: 'system:apiserver', groups: ['system:masters', 'system:authenticated'] }

const systemNamespaces = ['default', 'kube-system', 'kube-public', 'kube-node-lease'] as const

/**
 * Puts in what every cluster starts with, adding what is missing to what is there, and goes on keeping right what only
 * this server knows: its own Service and addresses, and the rules of aggregated roles. Ends when all is in for the first time.
 */
export async function bootstrap(options: BootstrapOptions): Promise<void> {
  const { registry } = options
  for (const name of systemNamespaces) await ensure(registry, resources.namespaces, namespace(name))
  if (registry.serves(resources.priorityClasses)) {
    for (const priorityClass of systemPriorityClasses) await ensure(registry, resources.priorityClasses, priorityClass)
  }
  await ensurePolicy(registry)
  const own = { namespace: 'default', name: 'kubernetes' }
  const keep = [
    keeper(options, () => ownService(options), [
      { resource: resources.services, ...own },
      { resource: resources.endpoints, ...own },
      { resource: resources.endpointSlices, ...own },
    ]),
    keeper(options, () => clientAuthority(options), [
      { resource: resources.configMaps, namespace: 'kube-system', name: 'extension-apiserver-authentication' },
    ]),
    keeper(options, () => aggregateRules(options), [{ resource: resources.clusterRoles }]),
  ]
  for (const { first } of keep) await first()
  await ensure(registry, resources.services, dnsService(options.serviceCidrs))
}

/** What to look at: one object, or without a name all of a resource. */
interface Watched {
  readonly resource: Resource
  readonly namespace?: string
  readonly name?: string
}

/** Runs `right` first, and again after every change of what it watches over; one run at a time. */
function keeper({ registry, log, clock }: BootstrapOptions, right: () => Promise<void>, watched: readonly Watched[]) {
  const backoff = new Backoff({ firstMs: 100, maxMs: 30_000, jitter: 0.2 })
  let state: 'idle' | 'running' | 'again' = 'idle'
  const run = (): void => {
    if (state !== 'idle') {
      state = 'again'
      return
    }
    state = 'running'
    const next = (retryMs: number | undefined): void => {
      const again = state === 'again'
      state = 'idle'
      if (again) run()
      else if (retryMs !== undefined) clock.schedule(retryMs, run)
    }
    // Not within the commit that was just told of.
    Promise.resolve()
      .then(right)
      .then(
        () => {
          backoff.reset()
          next(undefined)
        },
        (error: unknown) => {
          log.warn({ err: error }, "cannot keep the server's own objects right, trying again")
          next(backoff.next())
        },
      )
  }
  const first = async (): Promise<void> => {
    await right()
    for (const { resource, namespace = '', name } of watched) registry.onTouch(resource, namespace, name, run)
  }
  return { first }
}

async function ensure<K extends KubeObject>(registry: Registry, resource: Resource<K>, wanted: K): Promise<void> {
  const { namespace = '', name } = wanted.metadata
  if (registry.get(resource, namespace, name)) return
  try {
    await registry.create(resource, wanted, serverItself)
  } catch (error) {
    if (!isStatus(error, 'AlreadyExists')) throw error
  }
}

async function ensurePolicy(registry: Registry): Promise<void> {
  const policy = bootstrapPolicy()
  const ensureRoles = async <R extends Parameters<typeof reconcileRole>[0]>(
    resource: Resource<R>,
    wanted: readonly R[],
  ) => {
    const one = async (role: R): Promise<void> => {
      const { namespace = '', name } = role.metadata
      const present = registry.get(resource, namespace, name)
      if (present === undefined) await ensure(registry, resource, role)
      else if (reconcileRole(present, role)) {
        await registry.change(resource, namespace, name, serverItself, (copy) => reconcileRole(copy, role))
      }
    }
    // Together, so that they share the store's flushes to disk.
    await Promise.all(wanted.map(one))
  }
  const ensureBindings = async <B extends Parameters<typeof reconcileBinding>[0]>(
    resource: Resource<B>,
    wanted: readonly B[],
  ) => {
    const one = async (binding: B): Promise<void> => {
      const { namespace = '', name } = binding.metadata
      const present = registry.get(resource, namespace, name)
      const plan = present && reconcileBinding(present, binding)
      if (plan?.do === 'replace') await registry.delete(resource, namespace, name)
      if (plan === undefined || plan.do === 'replace') await ensure(registry, resource, binding)
      if (plan?.do !== 'write') return
      await registry.change(resource, namespace, name, serverItself, (copy) => {
        const again = reconcileBinding(copy, binding)
        return again.do === 'write' ? again.next : undefined
      })
    }
    await Promise.all(wanted.map(one))
  }
  await ensureRoles(resources.clusterRoles, policy.clusterRoles)
  await ensureBindings(resources.clusterRoleBindings, policy.clusterRoleBindings)
  await ensureRoles(resources.roles, policy.roles)
  await ensureBindings(resources.roleBindings, policy.roleBindings)
}

async function ownService({ registry, serviceCidrs: [serviceCidr = ''], servers }: BootstrapOptions): Promise<void> {
  const cidr = parseCidr(serviceCidr)
  if (cidr === undefined) throw new Error(`Cannot use ${JSON.stringify(serviceCidr)} as service network: not a CIDR`)
  const clusterIp = formatAddress({ family: cidr.family, value: cidr.base + 1n })
  await ensure(registry, resources.services, kubernetesService(clusterIp, servers[0]?.port ?? 443))
  const endpoints = kubernetesEndpoints(servers, clusterIp)
  await keepFields(registry, resources.endpoints, endpoints, ['subsets'])
  await keepFields(registry, resources.endpointSlices, kubernetesSlice(servers, clusterIp), ['endpoints', 'ports'])
}

async function clientAuthority({ registry, clientAuthority }: BootstrapOptions): Promise<void> {
  const wanted: ConfigMap = {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { ...freshMeta, namespace: 'kube-system', name: 'extension-apiserver-authentication' },
    data: { 'client-ca-file': clientAuthority },
  }
  await keepFields(registry, resources.configMaps, wanted, ['data'])
}

/** Creates the object, or writes back the fields that are ours where they differ; everything else is left. */
async function keepFields<K extends KubeObject>(
  registry: Registry,
  resource: Resource<K>,
  wanted: K,
  fields: readonly (keyof K)[],
): Promise<void> {
  const { namespace = '', name } = wanted.metadata
  const differs = (present: K): boolean =>
    fields.some((field) => canonical(present[field]) !== canonical(wanted[field]))
  const present = registry.get(resource, namespace, name)
  if (present === undefined) return ensure(registry, resource, wanted)
  if (!differs(present)) return
  await registry.change(resource, namespace, name, serverItself, (copy) => {
    if (!differs(copy)) return undefined
    for (const field of fields) copy[field] = structuredClone(wanted[field])
    if (copy.metadata.generation !== undefined) copy.metadata.generation++
    return copy
  })
}

/** The same text for the same value, whatever the order of its keys. */
function canonical(value: unknown): string {
  return JSON.stringify(value, (_key, inner: unknown) =>
    inner !== null && typeof inner === 'object' && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).toSorted(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  )
}

/** Writes into `rules` what the authorizer reads from the roles selected, so that people see what a role holds. */
async function aggregateRules({ registry, authorizer }: BootstrapOptions): Promise<void> {
  for (const role of [...registry.list(resources.clusterRoles)]) {
    if (role.aggregationRule === undefined) continue
    const ref = { kind: 'ClusterRole', name: role.metadata.name }
    const rules = [...(authorizer.rulesOf(ref, '') ?? [])]
    if (canonical(rules) === canonical(role.rules ?? [])) continue
    await registry.change(resources.clusterRoles, '', role.metadata.name, serverItself, (copy) =>
      copy.aggregationRule === undefined ? undefined : { ...copy, rules: structuredClone(rules) },
    )
  }
}

const freshMeta = { uid: '', resourceVersion: '', creationTimestamp: '' }

const namespace = (name: string): Namespace => ({
  apiVersion: 'v1',
  kind: 'Namespace',
  metadata: { ...freshMeta, name, labels: { 'kubernetes.io/metadata.name': name } },
  spec: { finalizers: ['kubernetes'] },
  status: { phase: 'Active' },
})

const systemPriorityClasses: readonly PriorityClass[] = [
  { name: 'system-cluster-critical', value: 2_000_000_000 },
  { name: 'system-node-critical', value: 2_000_001_000 },
].map(({ name, value }) => ({
  apiVersion: 'scheduling.k8s.io/v1',
  kind: 'PriorityClass',
  metadata: { ...freshMeta, name },
  value,
  globalDefault: false,
  preemptionPolicy: 'PreemptLowerPriority',
  description:
    name === 'system-node-critical'
      ? 'For pods that a node cannot do without: they must not be moved from it.'
      : 'For pods that the cluster cannot do without.',
}))
