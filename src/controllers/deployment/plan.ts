import type { Deployment, DeploymentStatus, ReplicaSet } from '#api/gen/apps-v1.ts'
import type { Pod } from '#api/gen/core-v1.ts'
import { findCondition } from '#api/meta/conditions.ts'
import { sameLabels } from '#api/meta/labels.ts'
import type { Draft } from '#client/client.ts'
import { isTerminal } from '../workload/pod-state.ts'
import { byAge, findNewSet, newSet, nextRevision, noteRevision, revisionOf, surplusSets } from './revision.ts'
import {
  emptyOldSets,
  growNewSet,
  isRolling,
  isScaling,
  newSetSize,
  replicasOf,
  type SetDraft,
  scaleSets,
  scaleTo,
  setDraft,
  shrinkOldSets,
} from './rollout.ts'
import {
  condition,
  countStatus,
  deadlineSeconds,
  isComplete,
  judgePause,
  judgeProgress,
  withCondition,
} from './status.ts'

export type Action =
  | { readonly do: 'create-set'; readonly set: Draft<ReplicaSet>; readonly replicas: number }
  /** `set` as it is to be; `from` and `to` where its size changes. */
  | { readonly do: 'update-set'; readonly set: ReplicaSet; readonly from: number; readonly to: number }
  | { readonly do: 'delete-set'; readonly set: ReplicaSet }

export interface Plan {
  readonly actions: readonly Action[]
  readonly status: DeploymentStatus
  /** The revision the Deployment is at, for its annotation; undefined before there is one. */
  readonly revision: string | undefined
}

/**
 * What to do next, given a Deployment, the ReplicaSets it owns and their pods. One step of a rollout at a time: the
 * next is planned when the sets' statuses have moved.
 */
export function planDeployment(
  deployment: Deployment,
  sets: readonly ReplicaSet[],
  pods: readonly Pod[],
  now: number,
): Plan {
  const sorted = sets.toSorted(byAge)
  const present = findNewSet(deployment, sorted)
  const all = sorted.map(setDraft)
  const fresh = all.find((draft) => draft.set === present)
  const old = all.filter((draft) => draft !== fresh)
  const isGoing = deployment.metadata.deletionTimestamp !== undefined
  const revision = nextRevision(old)
  if (fresh !== undefined && !isGoing) noteRevision(deployment, fresh, revision)

  let conditions = judgePause(deployment, now)
  if (fresh !== undefined && deadlineSeconds(deployment) !== undefined && !findCondition(conditions, 'Progressing')) {
    const message = `Found new replica set "${fresh.set.metadata.name}"`
    conditions = withCondition(conditions, condition('Progressing', 'True', 'FoundNewReplicaSet', message, now))
  }
  const view = { deployment, fresh, all, now }
  const counted = countStatus(view, conditions)
  const finish = (status: DeploymentStatus, doomed: readonly ReplicaSet[] = []): Plan => ({
    actions: [...updates(all), ...doomed.map((set) => ({ do: 'delete-set', set }) as const)],
    status: { ...status, ...recounted(view, status) },
    revision: fresh === undefined ? undefined : String(revisionOf(fresh.annotations)),
  })

  if (isGoing) return finish(counted)
  if (deployment.spec.paused === true || isScaling(deployment, all)) {
    scaleSets(deployment, fresh, old)
    return finish(counted, deployment.spec.paused === true ? surplusSets(deployment, old) : [])
  }
  if (!isRolling(deployment)) {
    if (emptyOldSets(deployment, old) || isAnyRunning(old, pods)) return finish(judgeProgress(view, counted))
  }
  if (fresh === undefined) return planNewSet(deployment, all, revision, counted, now)
  const moved = isRolling(deployment)
    ? growNewSet(deployment, fresh, all) || shrinkOldSets(deployment, fresh, old)
    : growRecreated(deployment, fresh)
  const status = judgeProgress(view, counted)
  const isDone = !moved && isComplete(deployment, deployment.status ?? {}) && isComplete(deployment, status)
  return finish(status, isDone ? surplusSets(deployment, old) : [])
}

/** What is missing is counted against the sizes that the sets are about to have. */
const recounted = (
  { all }: { readonly all: readonly SetDraft[] },
  status: DeploymentStatus,
): Pick<DeploymentStatus, 'unavailableReplicas'> => ({
  unavailableReplicas: Math.max(
    0,
    all.reduce((total, draft) => total + draft.replicas, 0) - (status.availableReplicas ?? 0),
  ),
})

function planNewSet(
  deployment: Deployment,
  old: readonly SetDraft[],
  revision: number,
  counted: DeploymentStatus,
  now: number,
): Plan {
  const replicas = newSetSize(deployment, old, 0)
  const set = newSet(deployment, revision, replicas)
  const created = condition(
    'Progressing',
    'True',
    'NewReplicaSetCreated',
    `Created new replica set "${set.metadata.name}"`,
    now,
  )
  const conditions = counted.conditions ?? []
  return {
    actions: [...updates(old), { do: 'create-set', set, replicas }],
    status: {
      ...counted,
      conditions: deadlineSeconds(deployment) === undefined ? conditions : [...withCondition(conditions, created)],
    },
    revision: String(revision),
  }
}

function growRecreated(deployment: Deployment, fresh: SetDraft): boolean {
  if (fresh.replicas === replicasOf(deployment)) return false
  scaleTo(deployment, fresh, replicasOf(deployment))
  return true
}

/** Recreate waits until nothing of the old runs, whatever the sets' counts say already. */
function isAnyRunning(old: readonly SetDraft[], pods: readonly Pod[]): boolean {
  if (old.some(({ set }) => (set.status?.replicas ?? 0) > 0)) return true
  const uids = new Set(old.map(({ set }) => set.metadata.uid))
  return pods.some(
    (pod) =>
      !isTerminal(pod) && (pod.metadata.ownerReferences ?? []).some((o) => o.controller === true && uids.has(o.uid)),
  )
}

/** One write for each set that is to change. */
function updates(all: readonly SetDraft[]): Action[] {
  const actions: Action[] = []
  for (const { set, replicas, annotations, minReadySeconds } of all) {
    const from = set.spec.replicas ?? 1
    const isSame =
      from === replicas &&
      (set.spec.minReadySeconds ?? 0) === minReadySeconds &&
      sameLabels(set.metadata.annotations ?? {}, annotations)
    if (isSame) continue
    const { minReadySeconds: _, ...spec } = set.spec
    actions.push({
      do: 'update-set',
      set: {
        ...set,
        metadata: { ...set.metadata, annotations: { ...annotations } },
        spec: { ...spec, replicas, ...(minReadySeconds === 0 ? {} : { minReadySeconds }) },
      },
      from,
      to: replicas,
    })
  }
  return actions
}
