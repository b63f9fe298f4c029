import type { Deployment, DeploymentStatus, ReplicaSet } from '#api/gen/apps-v1.ts'
import { deployments, replicaSets } from '#api/gen/resources.ts'
import { isControlledBy } from '#api/meta/owner.ts'
import { isStatus } from '#api/meta/status.ts'
import { isAbort } from '#base/async/scope.ts'
import type { Client, Draft } from '#client/client.ts'
import type { EventRecorder } from '#client/events.ts'
import { isAccessDenied, isNamespaceTerminating } from '#reconcile/errors.ts'
import { sameStatus } from '../workload/status.ts'
import { sameTemplate } from '../workload/template.ts'
import { hashLabel, revisionAnnotation } from './names.ts'
import type { Action, Plan } from './plan.ts'
import { condition, deadlineSeconds, withCondition } from './status.ts'

export interface Effects {
  readonly client: Client
  readonly events: EventRecorder
  readonly deployment: Deployment
  readonly signal: AbortSignal
  readonly now: number
  wroteSet(answer: ReplicaSet): void
  deletedSet(set: ReplicaSet): void
  wroteDeployment(answer: Deployment): void
}

/** Does what the plan says, the sets first, then the status. */
export async function applyPlan(effects: Effects, plan: Plan): Promise<void> {
  for (const action of plan.actions) await applyAction(effects, action, plan.status)
  await writeStatus(effects, plan.status, plan.revision)
}

async function applyAction(effects: Effects, action: Action, status: DeploymentStatus): Promise<void> {
  const { client, deployment, signal } = effects
  switch (action.do) {
    case 'create-set':
      return createSet(effects, action.set, action.replicas, status)
    case 'update-set': {
      effects.wroteSet(await client.update(replicaSets, action.set, { signal }))
      const { from, to } = action
      if (from === to) return
      const message = `Scaled ${to > from ? 'up' : 'down'} replica set ${action.set.metadata.name} from ${from} to ${to}`
      effects.events.record(deployment, { type: 'Normal', reason: 'ScalingReplicaSet', message })
      return
    }
    case 'delete-set':
      try {
        const { uid } = action.set.metadata
        await client.delete(replicaSets, action.set.metadata, { preconditions: { uid }, signal })
        effects.deletedSet(action.set)
      } catch (error) {
        if (!isStatus(error, 'NotFound') && !isStatus(error, 'Conflict')) throw error
      }
      return
    default:
      action satisfies never
  }
}

async function createSet(
  effects: Effects,
  draft: Draft<ReplicaSet>,
  replicas: number,
  status: DeploymentStatus,
): Promise<void> {
  const { client, events, deployment, signal, now } = effects
  try {
    effects.wroteSet(await client.create(replicaSets, draft, { signal }))
    if (replicas === 0) return
    const message = `Scaled up replica set ${draft.metadata.name} from 0 to ${replicas}`
    events.record(deployment, { type: 'Normal', reason: 'ScalingReplicaSet', message })
  } catch (error) {
    if (!(error instanceof Error) || isAbort(error) || isAccessDenied(error)) throw error
    if (isNamespaceTerminating(error)) return
    if (isStatus(error, 'AlreadyExists')) return resolveClash(effects, draft, error)
    const message = `Failed to create new replica set "${draft.metadata.name}": ${error.message}`
    events.record(deployment, { type: 'Warning', reason: 'ReplicaSetCreateError', message })
    if (deadlineSeconds(deployment) !== undefined) {
      const failed = condition('Progressing', 'False', 'ReplicaSetCreateError', message, now)
      // The plan's status speaks of the set as created.
      const conditions = [...withCondition(deployment.status?.conditions ?? [], failed)]
      await writeStatus(effects, { ...status, conditions }, undefined)
    }
    throw new Error(message, { cause: error })
  }
}

/** The name is taken: by our own set that the copy lacks yet, or by another whose hash is the same. */
async function resolveClash(effects: Effects, draft: Draft<ReplicaSet>, clash: Error): Promise<void> {
  const { client, deployment, signal } = effects
  const { name = '', namespace } = draft.metadata
  const found = await client.get(replicaSets, { name, namespace }, { signal })
  if (isControlledBy(found, deployment) && sameTemplate(found.spec.template, deployment.spec.template, [hashLabel])) {
    effects.wroteSet(found)
    return
  }
  const status = { ...deployment.status, collisionCount: (deployment.status?.collisionCount ?? 0) + 1 }
  await writeStatus(effects, status, undefined)
  throw new Error(`Cannot create replica set ${name}: its hash is another's, trying the next`, { cause: clash })
}

/** Status and revision are one write: a client that waits for the one has the other. */
async function writeStatus(
  { client, deployment, signal, wroteDeployment }: Effects,
  status: DeploymentStatus,
  revision: string | undefined,
): Promise<void> {
  const annotations = deployment.metadata.annotations ?? {}
  const isRevised = revision !== undefined && annotations[revisionAnnotation] !== revision
  if (!isRevised && sameStatus(deployment.status, status)) return
  const metadata = isRevised
    ? { ...deployment.metadata, annotations: { ...annotations, [revisionAnnotation]: revision } }
    : deployment.metadata
  try {
    wroteDeployment(
      await client.update(deployments, { ...deployment, metadata, status }, { subresource: 'status', signal }),
    )
  } catch (error) {
    if (!isStatus(error, 'NotFound')) throw error
  }
}
