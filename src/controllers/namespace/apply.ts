import type { PartialObjectMetadata } from '#api/gen/meta-v1.ts'
import type { Resource } from '#api/meta/resource.ts'
import { isStatus } from '#api/meta/status.ts'
import type { Client } from '#client/client.ts'
import type { Discovered, ServedResource } from '#client/discovery.ts'
import { countName, type Findings, planDeletion } from './plan.ts'

/** Pages while counting what remains. */
const pageItems = 500

interface Counts {
  readonly remaining: Map<string, number>
  readonly finalizers: Map<string, number>
  readonly failures: { readonly resource: Resource; readonly error: unknown }[]
  graceSeconds: number
}

/** Tells everything in a namespace to go, pods before all else, and says what is still there. */
export async function deleteContent(
  client: Client,
  namespace: string,
  discovered: Discovered,
  signal: AbortSignal,
): Promise<Findings> {
  const { pods, rest } = planDeletion(discovered)
  const counts: Counts = { remaining: new Map(), finalizers: new Map(), failures: [], graceSeconds: 0 }
  for (const resource of pods) await deleteAll(client, namespace, resource, counts, signal)
  // As long as a pod runs, it may need its secrets, its account, its volumes.
  const podsGone = counts.remaining.size === 0 && counts.failures.length === 0
  if (podsGone) await Promise.all(rest.map((resource) => deleteAll(client, namespace, resource, counts, signal)))
  return { ...counts, discoveryFailures: discovered.failures }
}

async function deleteAll(
  client: Client,
  namespace: string,
  resource: ServedResource,
  counts: Counts,
  signal: AbortSignal,
): Promise<void> {
  try {
    const collection = resource.verbs.has('deletecollection')
    if (collection) await client.deleteCollection(resource, { namespace, propagationPolicy: 'Background', signal })
    for await (const { metadata } of objectsOf(client, namespace, resource, signal)) {
      if (!collection) {
        try {
          await client.delete(resource, metadata, { propagationPolicy: 'Background', signal })
        } catch (error) {
          if (!isStatus(error, 'NotFound')) throw error
        }
      }
      add(counts.remaining, countName(resource))
      for (const finalizer of metadata.finalizers ?? []) add(counts.finalizers, finalizer)
      counts.graceSeconds = Math.max(counts.graceSeconds, metadata.deletionGracePeriodSeconds ?? 0)
    }
  } catch (error) {
    signal.throwIfAborted()
    // A resource that is no longer served has no objects in it (its definition went a moment ago).
    if (isStatus(error, 'NotFound') || isStatus(error, 'MethodNotAllowed')) return
    counts.failures.push({ resource, error })
  }
}

async function* objectsOf(
  client: Client,
  namespace: string,
  resource: Resource,
  signal: AbortSignal,
): AsyncGenerator<PartialObjectMetadata, void> {
  const metadata = resource as Resource<PartialObjectMetadata>
  let token: string | undefined
  do {
    const from = token === undefined ? {} : { continue: token }
    const page = await client.list(metadata, { namespace, metadataOnly: true, limit: pageItems, ...from, signal })
    yield* page.items
    token = page.metadata.continue
  } while (token)
}

const add = (counts: Map<string, number>, name: string): void => {
  counts.set(name, (counts.get(name) ?? 0) + 1)
}
