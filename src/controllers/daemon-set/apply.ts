import type { ControllerRevision, DaemonSet, DaemonSetStatus } from '#api/gen/apps-v1.ts'
import { controllerRevisions, daemonSets } from '#api/gen/resources.ts'
import { isControlledBy } from '#api/meta/owner.ts'
import { isStatus } from '#api/meta/status.ts'
import type { Client, Draft } from '#client/client.ts'
import { createPods, deletePods, type PodControl, podFromTemplate } from '../workload/pod-control.ts'
import { sameStatus } from '../workload/status.ts'
import { type History, matches } from './history.ts'
import { templateFor } from './nodes.ts'
import type { Plan } from './plan.ts'

export interface Effects {
  readonly client: Client
  readonly set: DaemonSet
  readonly signal: AbortSignal
  wroteRevision(answer: ControllerRevision): void
  deletedRevision(revision: ControllerRevision): void
  wroteSet(answer: DaemonSet): void
}

/** Writes what the history lacks; gives back the present revision. */
export async function applyHistory(effects: Effects, { current, write }: History): Promise<ControllerRevision> {
  const { client, signal } = effects
  if (write === undefined) {
    if (current === undefined) throw new Error('Cannot go on without a revision of the present template')
    return current
  }
  if (write.do === 'create') return createRevision(effects, write.revision)
  const answer = await client.update(controllerRevisions, write.revision, { signal })
  effects.wroteRevision(answer)
  return answer
}

async function createRevision(effects: Effects, draft: Draft<ControllerRevision>): Promise<ControllerRevision> {
  const { client, set, signal } = effects
  try {
    const answer = await client.create(controllerRevisions, draft, { signal })
    effects.wroteRevision(answer)
    return answer
  } catch (error) {
    if (!isStatus(error, 'AlreadyExists')) throw error
    const { name = '', namespace } = draft.metadata
    const found = await client.get(controllerRevisions, { name, namespace }, { signal })
    if (isControlledBy(found, set) && matches(set, found)) return found
    await writeStatus(effects, { ...set.status, collisionCount: (set.status?.collisionCount ?? 0) + 1 })
    throw new Error(`Cannot create revision ${name}: its hash is another's, trying the next`, { cause: error })
  }
}

/** Makes and deletes pods; gives back the first failure. */
export async function applyPods(control: PodControl<DaemonSet>, plan: Plan, hash: string): Promise<Error | undefined> {
  const { object } = control.owner
  const drafts = plan.create.map((nodeName) => podFromTemplate(control.owner, templateFor(object, hash, nodeName)))
  for (const { pod, because, nodeName } of plan.remove) {
    const subject = `daemon pod ${pod.metadata.namespace}/${pod.metadata.name} on node ${nodeName}`
    if (because === 'failed')
      control.events.record(object, {
        type: 'Warning',
        reason: 'FailedDaemonPod',
        message: `Found failed ${subject}, will try to kill it`,
      })
    if (because === 'succeeded')
      control.events.record(object, {
        type: 'Normal',
        reason: 'SucceededDaemonPod',
        message: `Found succeeded ${subject}, will try to delete it`,
      })
  }
  const created = await createPods(control, drafts)
  const deleted = await deletePods(
    control,
    plan.remove.map(({ pod }) => pod),
  )
  return created ?? deleted
}

export async function removeRevisions(effects: Effects, surplus: readonly ControllerRevision[]): Promise<void> {
  for (const revision of surplus) {
    try {
      const { uid } = revision.metadata
      await effects.client.delete(controllerRevisions, revision.metadata, {
        preconditions: { uid },
        signal: effects.signal,
      })
      effects.deletedRevision(revision)
    } catch (error) {
      if (!isStatus(error, 'NotFound') && !isStatus(error, 'Conflict')) throw error
    }
  }
}

export async function writeStatus({ client, set, signal, wroteSet }: Effects, status: DaemonSetStatus): Promise<void> {
  if (sameStatus(set.status, status)) return
  try {
    wroteSet(await client.update(daemonSets, { ...set, status }, { subresource: 'status', signal }))
  } catch (error) {
    if (!isStatus(error, 'NotFound')) throw error
  }
}
