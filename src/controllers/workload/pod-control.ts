import type { Pod, PodTemplateSpec } from '#api/gen/core-v1.ts'
import { pods } from '#api/gen/resources.ts'
import { dns1123Subdomain } from '#api/meta/names.ts'
import { controllerReference } from '#api/meta/owner.ts'
import type { KubeObject, Resource } from '#api/meta/resource.ts'
import { isStatus } from '#api/meta/status.ts'
import { isAbort } from '#base/async/scope.ts'
import type { Client, Draft } from '#client/client.ts'
import type { EventRecorder } from '#client/events.ts'
import { isAccessDenied, isNamespaceTerminating } from '#reconcile/errors.ts'

/** What making and deleting pods for an owner needs. */
export interface PodControl<O extends KubeObject> {
  readonly client: Client
  readonly events: EventRecorder
  readonly owner: { readonly resource: Resource<O>; readonly object: O }
  readonly signal: AbortSignal
  /** Told of every write, so that the next look waits for it. */
  created(pod: Pod): void
  deleted(pod: Pod): void
}

/** A pod of the template, controlled by the owner; the server chooses the rest of its name. */
export function podFromTemplate<O extends KubeObject>(
  owner: { readonly resource: Resource<O>; readonly object: O },
  template: PodTemplateSpec,
): Draft<Pod> {
  const { name, namespace } = owner.object.metadata
  const { labels, annotations, finalizers } = template.metadata ?? {}
  const prefix = `${name}-`
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      generateName: dns1123Subdomain(prefix.slice(0, -1)).length === 0 ? prefix : name,
      ...(namespace === undefined ? {} : { namespace }),
      ...(labels === undefined ? {} : { labels: { ...labels } }),
      ...(annotations === undefined ? {} : { annotations: { ...annotations } }),
      ...(finalizers === undefined ? {} : { finalizers: [...finalizers] }),
      ownerReferences: [controllerReference(owner.resource, owner.object)],
    },
    spec: template.spec,
  }
}

/**
 * Makes pods in batches of 1, 2, 4…: what fails for one (a quota, a bad template) fails for all, and shall not be asked
 * a thousand times. Gives back the first failure. A namespace that is going is no failure: nothing can be made there.
 */
export async function createPods<O extends KubeObject>(
  control: PodControl<O>,
  drafts: readonly Draft<Pod>[],
): Promise<Error | undefined> {
  for (let done = 0, size = 1; done < drafts.length; done += size, size *= 2) {
    const batch = drafts.slice(done, done + size)
    const failures = await Promise.all(batch.map((draft) => createPod(control, draft)))
    const failure = failures.find((f) => f !== undefined)
    if (failure !== undefined) return failure
  }
  return undefined
}

async function createPod<O extends KubeObject>(
  { client, events, owner, signal, created }: PodControl<O>,
  draft: Draft<Pod>,
): Promise<Error | undefined> {
  try {
    const pod = await client.create(pods, draft, { signal })
    created(pod)
    events.record(owner.object, {
      type: 'Normal',
      reason: 'SuccessfulCreate',
      message: `Created pod: ${pod.metadata.name}`,
    })
    return undefined
  } catch (error) {
    if (!(error instanceof Error) || isAbort(error) || isAccessDenied(error)) throw error
    if (isNamespaceTerminating(error)) return undefined
    events.record(owner.object, {
      type: 'Warning',
      reason: 'FailedCreate',
      message: `Error creating: ${error.message}`,
    })
    return error
  }
}

/** Deletes pods at once; gives back the first failure. One that is gone already is no failure. */
export async function deletePods<O extends KubeObject>(
  control: PodControl<O>,
  doomed: readonly Pod[],
): Promise<Error | undefined> {
  const failures = await Promise.all(doomed.map((pod) => deletePod(control, pod)))
  return failures.find((f) => f !== undefined)
}

async function deletePod<O extends KubeObject>(
  { client, events, owner, signal, deleted }: PodControl<O>,
  pod: Pod,
): Promise<Error | undefined> {
  try {
    await client.delete(pods, pod.metadata, { preconditions: { uid: pod.metadata.uid }, signal })
    deleted(pod)
    events.record(owner.object, {
      type: 'Normal',
      reason: 'SuccessfulDelete',
      message: `Deleted pod: ${pod.metadata.name}`,
    })
    return undefined
  } catch (error) {
    if (!(error instanceof Error) || isAbort(error) || isAccessDenied(error)) throw error
    // Gone, or another of the same name by now: either way the one we meant is no more.
    if (isStatus(error, 'NotFound') || isStatus(error, 'Conflict')) return undefined
    events.record(owner.object, {
      type: 'Warning',
      reason: 'FailedDelete',
      message: `Error deleting: ${error.message}`,
    })
    return error
  }
}
