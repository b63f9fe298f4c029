import type { Pod } from '#api/gen/core-v1.ts'
import type { DeleteOptions } from '#api/gen/meta-v1.ts'
import type { Eviction, PodDisruptionBudget } from '#api/gen/policy-v1.ts'
import { podDisruptionBudgets, pods } from '#api/gen/resources.ts'
import { isConditionTrue, withCondition } from '#api/meta/conditions.ts'
import { everything, nothing, type Selector, selectorFrom } from '#api/meta/selector.ts'
import { badRequest, forbidden, isStatus, StatusError } from '#api/meta/status.ts'
import { formatTime } from '#api/meta/time.ts'
import type { Clock } from '#base/clock.ts'
import { serverItself } from '../bootstrap/bootstrap.ts'
import type { Registry, SubresourceCall, SubresourceHandler } from '../step.ts'
import { podNamed } from '../stream/kubelet.ts'
import { success } from './success.ts'

/** Evictions granted that nobody has yet seen happen; more than this and the counting is not to be trusted. */
const disruptedPodsMax = 2000
const budget = { group: 'policy', resource: 'poddisruptionbudget' }

/** POST pods/{name}/eviction (policy/v1): a delete that a PodDisruptionBudget may refuse for now. */
export function evictionHandler(clock: Clock): SubresourceHandler {
  return async (call) => {
    const eviction = call.body as Eviction | undefined
    const { registry, attributes } = call
    const { namespace, name } = attributes
    if (eviction?.metadata?.name && eviction.metadata.name !== name) {
      throw badRequest('name in URL does not match name in Eviction object')
    }
    const options: Partial<DeleteOptions> = eviction?.deleteOptions ?? {}
    const pod = podNamed(registry, namespace, name)
    if (!outsideBudgets(pod)) await spendBudget(call, pod, clock)
    if (!call.dryRun && !options.dryRun?.includes('All')) await remove(call, pod, options, clock)
    return { status: 201, object: success }
  }
}

/** It does no work that a budget could guard: not started, ended, or going already. */
const outsideBudgets = ({ metadata, status }: Pod): boolean =>
  metadata.deletionTimestamp !== undefined || ['Pending', 'Succeeded', 'Failed'].includes(status?.phase ?? 'Pending')

const isReady = ({ status }: Pod): boolean => isConditionTrue(status?.conditions, 'Ready')

/** Marks the pod as disturbed on purpose, for whoever counts failures, and deletes it. */
async function remove(
  { registry, attributes }: SubresourceCall,
  pod: Pod,
  options: Partial<DeleteOptions>,
  clock: Clock,
): Promise<void> {
  const { namespace, name, user } = attributes
  // A caller that names a version means the pod as it was: the mark would make it another.
  if (options.preconditions?.resourceVersion === undefined) {
    await registry.change(pods, namespace, name, serverItself, (copy) => disturbed(copy, pod.metadata.uid, clock.now()))
  }
  // The decision was about this pod, not about another that takes its name meanwhile.
  const preconditions = { uid: pod.metadata.uid, ...options.preconditions }
  await registry.remove(pods, namespace, name, user, { ...options, preconditions })
}

function disturbed(pod: Pod, uid: string, now: number): Pod | undefined {
  const ended = ['Succeeded', 'Failed'].includes(pod.status?.phase ?? '')
  if (pod.metadata.uid !== uid || pod.metadata.deletionTimestamp !== undefined || ended) return undefined
  const mark = {
    type: 'DisruptionTarget',
    status: 'True',
    reason: 'EvictionByEvictionAPI',
    message: 'Eviction API: evicting',
  }
  return {
    ...pod,
    status: { ...pod.status, conditions: [...withCondition(pod.status?.conditions, mark, formatTime(now))] },
  }
}

async function spendBudget({ registry, dryRun }: SubresourceCall, pod: Pod, clock: Clock): Promise<void> {
  const found = budgetsOf(registry, pod)
  if (found.length > 1) {
    throw new StatusError({
      status: 'Failure',
      code: 500,
      reason: 'InternalError',
      message: 'This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.',
    })
  }
  const [pdb] = found
  if (pdb === undefined) return
  if (!isReady(pod) && mayGoUnready(pdb)) return
  if (dryRun) {
    spend(pdb, pod, clock.now())
    return
  }
  const { namespace, name } = pdb.metadata
  try {
    await registry.change(podDisruptionBudgets, namespace, name, serverItself, (copy) => spend(copy, pod, clock.now()))
  } catch (error) {
    if (!isStatus(error, 'NotFound')) throw error
  }
}

/** A pod that is not ready is no loss where the others are enough, or where the budget says so. */
function mayGoUnready({ spec, status }: PodDisruptionBudget): boolean {
  if (spec.unhealthyPodEvictionPolicy === 'AlwaysAllow') return true
  const { currentHealthy = 0, desiredHealthy = 0 } = status ?? {}
  return currentHealthy >= desiredHealthy && desiredHealthy > 0
}

/** The budget with one disruption less. Throws TooManyRequests while there is none to spend. */
function spend(pdb: PodDisruptionBudget, pod: Pod, now: number): PodDisruptionBudget {
  const { name, generation = 0 } = pdb.metadata
  const status = pdb.status ?? {}
  const { observedGeneration = 0, disruptionsAllowed = 0, disruptedPods = {} } = status
  if (observedGeneration < generation) {
    throw tooMany(`The disruption budget ${name} is still being processed by the server.`, 10)
  }
  if (disruptionsAllowed < 0) throw forbidden(budget, name, 'pdb disruptions allowed is negative')
  if (Object.keys(disruptedPods).length > disruptedPodsMax) {
    throw forbidden(budget, name, 'DisruptedPods map too big - too many evictions not confirmed by PDB controller')
  }
  if (disruptionsAllowed === 0) {
    const { desiredHealthy = 0, currentHealthy = 0 } = status
    throw tooMany(
      `The disruption budget ${name} needs ${desiredHealthy} healthy pods and has ${currentHealthy} currently`,
      0,
    )
  }
  const left = disruptionsAllowed - 1
  const exhausted = {
    type: 'DisruptionAllowed',
    status: 'False',
    reason: 'InsufficientPods',
    message: '',
    observedGeneration,
    lastTransitionTime: formatTime(now),
  }
  const conditions = left > 0 ? status.conditions : [...withCondition(status.conditions, exhausted, formatTime(now))]
  return {
    ...pdb,
    status: {
      ...status,
      disruptionsAllowed: left,
      disruptedPods: { ...disruptedPods, [pod.metadata.name]: formatTime(now) },
      ...(conditions ? { conditions } : {}),
    },
  }
}

function tooMany(cause: string, retryAfterSeconds: number): StatusError {
  return new StatusError({
    status: 'Failure',
    code: 429,
    reason: 'TooManyRequests',
    message: "Cannot evict pod as it would violate the pod's disruption budget.",
    details: {
      ...(retryAfterSeconds > 0 ? { retryAfterSeconds } : {}),
      causes: [{ reason: 'DisruptionBudget', message: cause }],
    },
  })
}

function budgetsOf(registry: Registry, { metadata }: Pod): PodDisruptionBudget[] {
  if (!registry.serves(podDisruptionBudgets)) return []
  return [...registry.list(podDisruptionBudgets, metadata.namespace)].filter(({ spec }) =>
    selectorOf(spec?.selector).matches(metadata.labels),
  )
}

/** An empty selector guards nothing here, and neither does one that cannot be read. */
function selectorOf(selector: Parameters<typeof selectorFrom>[0]): Selector {
  try {
    const read = selectorFrom(selector)
    return read === everything ? nothing : read
  } catch {
    return nothing
  }
}
