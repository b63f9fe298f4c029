import type { Deployment, DeploymentCondition, DeploymentStatus } from '#api/gen/apps-v1.ts'
import { findCondition } from '#api/meta/conditions.ts'
import { formatTime, parseTime } from '#api/meta/time.ts'
import { isRolling, limitsOf, replicasOf, type SetDraft, sizeOf } from './rollout.ts'

/** What the Deployment says of itself: counts, and the conditions Available, Progressing and ReplicaFailure. */

export interface View {
  readonly deployment: Deployment
  readonly fresh: SetDraft | undefined
  readonly all: readonly SetDraft[]
  readonly now: number
}

/** The largest number there is means: no deadline. */
export function deadlineSeconds(deployment: Deployment): number | undefined {
  const seconds = deployment.spec.progressDeadlineSeconds
  return seconds === undefined || seconds === 2 ** 31 - 1 ? undefined : seconds
}

export function condition(
  type: string,
  status: 'True' | 'False' | 'Unknown',
  reason: string,
  message: string,
  now: number,
): DeploymentCondition {
  const time = formatTime(now)
  return { type, status, lastUpdateTime: time, lastTransitionTime: time, reason, message }
}

/** The list with `next` in it; one of the same status and reason stays as it is, message and times included. */
export function withCondition(
  conditions: readonly DeploymentCondition[],
  next: DeploymentCondition,
): readonly DeploymentCondition[] {
  const known = findCondition(conditions, next.type)
  if (known !== undefined && known.status === next.status && known.reason === next.reason) return conditions
  const merged =
    known !== undefined && known.status === next.status && known.lastTransitionTime !== undefined
      ? { ...next, lastTransitionTime: known.lastTransitionTime }
      : next
  return [...conditions.filter((c) => c.type !== next.type), merged]
}

const withoutCondition = (conditions: readonly DeploymentCondition[], type: string): readonly DeploymentCondition[] =>
  conditions.filter((c) => c.type !== type)

/** Counts and availability; progress is judged by `judgeProgress`. `conditions` are those to begin with. */
export function countStatus(view: View, conditions: readonly DeploymentCondition[]): DeploymentStatus {
  const { deployment, fresh, all, now } = view
  const count = (field: 'replicas' | 'readyReplicas' | 'availableReplicas' | 'terminatingReplicas'): number =>
    all.reduce((total, { set }) => total + (set.status?.[field] ?? 0), 0)
  const available = count('availableReplicas')
  const isEnough = available >= replicasOf(deployment) - (isRolling(deployment) ? limitsOf(deployment).unavailable : 0)
  const availability = isEnough
    ? condition('Available', 'True', 'MinimumReplicasAvailable', 'Deployment has minimum availability.', now)
    : condition(
        'Available',
        'False',
        'MinimumReplicasUnavailable',
        'Deployment does not have minimum availability.',
        now,
      )
  const { collisionCount } = deployment.status ?? {}
  return {
    observedGeneration: deployment.metadata.generation ?? 0,
    replicas: count('replicas'),
    updatedReplicas: fresh?.set.status?.replicas ?? 0,
    readyReplicas: count('readyReplicas'),
    availableReplicas: available,
    unavailableReplicas: Math.max(0, sizeOf(all) - available),
    terminatingReplicas: count('terminatingReplicas'),
    conditions: [...withCondition(conditions, availability)],
    ...(collisionCount === undefined ? {} : { collisionCount }),
  }
}

export function isComplete(deployment: Deployment, status: DeploymentStatus): boolean {
  const replicas = replicasOf(deployment)
  return (
    status.updatedReplicas === replicas &&
    status.replicas === replicas &&
    status.availableReplicas === replicas &&
    (status.observedGeneration ?? 0) >= (deployment.metadata.generation ?? 0)
  )
}

/** More of the new, less of the old, more ready or more available than before. */
function hasProgressed(before: DeploymentStatus, status: DeploymentStatus): boolean {
  const old = (s: DeploymentStatus): number => (s.replicas ?? 0) - (s.updatedReplicas ?? 0)
  return (
    (status.updatedReplicas ?? 0) > (before.updatedReplicas ?? 0) ||
    old(status) < old(before) ||
    (status.readyReplicas ?? 0) > (before.readyReplicas ?? 0) ||
    (status.availableReplicas ?? 0) > (before.availableReplicas ?? 0)
  )
}

/** The status with the conditions Progressing and ReplicaFailure as a rollout has them. */
export function judgeProgress(view: View, counted: DeploymentStatus): DeploymentStatus {
  const { deployment, fresh, now } = view
  let conditions: readonly DeploymentCondition[] = counted.conditions ?? []
  const subject =
    fresh === undefined ? `Deployment "${deployment.metadata.name}"` : `ReplicaSet "${fresh.set.metadata.name}"`
  const known = findCondition(conditions, 'Progressing')
  if (deadlineSeconds(deployment) === undefined) conditions = withoutCondition(conditions, 'Progressing')
  else if (counted.replicas !== counted.updatedReplicas || known?.reason !== 'NewReplicaSetAvailable') {
    if (isComplete(deployment, counted)) {
      const message = `${subject} has successfully progressed.`
      conditions = withCondition(conditions, condition('Progressing', 'True', 'NewReplicaSetAvailable', message, now))
    } else if (hasProgressed(deployment.status ?? {}, counted)) {
      const next = condition('Progressing', 'True', 'ReplicaSetUpdated', `${subject} is progressing.`, now)
      // Its time of update is what the deadline counts from, so it moves with every step.
      const since = known?.status === 'True' ? known.lastTransitionTime : undefined
      conditions = withoutCondition(conditions, 'Progressing')
      conditions = [...conditions, since === undefined ? next : { ...next, lastTransitionTime: since }]
    } else if (isTimedOut(deployment, known, now)) {
      const message = `${subject} has timed out progressing.`
      conditions = withCondition(
        conditions,
        condition('Progressing', 'False', 'ProgressDeadlineExceeded', message, now),
      )
    }
  }
  const failure = replicaFailure(view)
  conditions =
    failure === undefined ? withoutCondition(conditions, 'ReplicaFailure') : withCondition(conditions, failure)
  return { ...counted, conditions: [...conditions] }
}

/** Milliseconds since the epoch at which a rollout without progress is late. */
function lateAt(deployment: Deployment, progressing: DeploymentCondition | undefined): number | undefined {
  const seconds = deadlineSeconds(deployment)
  if (seconds === undefined || progressing === undefined || progressing.reason === 'NewReplicaSetAvailable')
    return undefined
  const since = parseTime(progressing.lastUpdateTime)
  return since === undefined ? undefined : since + seconds * 1000
}

function isTimedOut(deployment: Deployment, progressing: DeploymentCondition | undefined, now: number): boolean {
  if (progressing?.reason === 'ProgressDeadlineExceeded') return true
  const at = lateAt(deployment, progressing)
  return at !== undefined && at < now
}

/** Milliseconds until the progress deadline has to be looked at; undefined when there is none to wait for. */
export function planDeadline(deployment: Deployment, status: DeploymentStatus, now: number): number | undefined {
  const progressing = findCondition(status.conditions, 'Progressing')
  if (progressing?.reason === 'ProgressDeadlineExceeded' || isComplete(deployment, status)) return undefined
  const at = lateAt(deployment, progressing)
  // A second more: times are whole seconds, and the deadline must have passed.
  return at === undefined ? undefined : Math.max(0, at - now) + 1000
}

/** The new set's failure before any old one's. */
function replicaFailure({ fresh, all }: View): DeploymentCondition | undefined {
  for (const draft of fresh === undefined ? all : [fresh, ...all]) {
    const failure = findCondition(draft.set.status?.conditions, 'ReplicaFailure')
    if (failure === undefined) continue
    const { status, reason = '', message = '', lastTransitionTime } = failure
    const times = lastTransitionTime === undefined ? {} : { lastTransitionTime, lastUpdateTime: lastTransitionTime }
    return { type: 'ReplicaFailure', status, reason, message, ...times }
  }
  return undefined
}

/** Whether pausing or resuming has to be said: it stops the clock of the deadline. */
export function judgePause(deployment: Deployment, now: number): readonly DeploymentCondition[] {
  const conditions = deployment.status?.conditions ?? []
  if (deadlineSeconds(deployment) === undefined) return conditions
  const known = findCondition(conditions, 'Progressing')
  // A deadline that was missed stays said.
  if (known?.reason === 'ProgressDeadlineExceeded') return conditions
  const wasPaused = known?.reason === 'DeploymentPaused'
  const isPaused = deployment.spec.paused === true
  if (isPaused === wasPaused) return conditions
  const next = isPaused
    ? condition('Progressing', 'Unknown', 'DeploymentPaused', 'Deployment is paused', now)
    : condition('Progressing', 'Unknown', 'DeploymentResumed', 'Deployment is resumed', now)
  return withCondition(conditions, next)
}
