import type { ReplicaSet, ReplicaSetStatus } from '#api/gen/apps-v1.ts'
import { replicaSets } from '#api/gen/resources.ts'
import type { KubeObject } from '#api/meta/resource.ts'
import type { Client } from '#client/client.ts'
import { createPods, deletePods, type PodControl, podFromTemplate } from '../workload/pod-control.ts'
import type { Action } from './plan.ts'

/** Does what the plan says; gives back the first failure, which belongs into the status. */
export async function applyReplicas(
  control: PodControl<ReplicaSet>,
  action: Action | undefined,
): Promise<Error | undefined> {
  switch (action?.do) {
    case undefined:
      return undefined
    case 'create-pods': {
      const draft = podFromTemplate(control.owner, control.owner.object.spec.template)
      return createPods(control, Array<typeof draft>(action.count).fill(draft))
    }
    case 'delete-pods':
      return deletePods(control, action.pods)
    default:
      return action satisfies never
  }
}

/** Writes the status; a conflict is thrown, and the set is looked at again. */
export function writeStatus(
  client: Client,
  set: ReplicaSet,
  status: ReplicaSetStatus,
  signal: AbortSignal,
): Promise<KubeObject & ReplicaSet> {
  return client.update(replicaSets, { ...set, status }, { subresource: 'status', signal })
}
