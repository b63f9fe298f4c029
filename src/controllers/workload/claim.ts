import type { OwnerReference } from '#api/gen/meta-v1.ts'
import { controllerOf, controllerReference } from '#api/meta/owner.ts'
import type { KubeObject, Resource } from '#api/meta/resource.ts'
import type { Selector } from '#api/meta/selector.ts'
import { isStatus } from '#api/meta/status.ts'
import type { Client } from '#client/client.ts'
import type { Index, Informer } from '#client/informer.ts'
import { keyOf } from '#client/key.ts'

/** Index by the uid of the controlling owner; objects that nobody controls are found by `orphansIn(namespace)`. */
const byController = (object: KubeObject): readonly string[] => [
  controllerOf(object)?.uid ?? orphansIn(object.metadata.namespace ?? ''),
]

const orphansIn = (namespace: string): string => `orphans in ${namespace}`

export const controllerIndex = <K extends KubeObject>(informer: Informer<K>): Index<K> =>
  informer.index('controller', byController)

const byUid = (object: KubeObject): readonly string[] => [object.metadata.uid]

/** Owners by the uid that references carry: names come back. */
export const uidIndex = <K extends KubeObject>(informer: Informer<K>): Index<K> => informer.index('uid', byUid)

/** Objects that a controller may have to do with: those it controls and those nobody controls. */
export const candidatesFor = <K extends KubeObject>(index: Index<K>, owner: KubeObject): readonly K[] => [
  ...index.get(owner.metadata.uid),
  ...index.get(orphansIn(owner.metadata.namespace ?? '')),
]

export interface Claim<K extends KubeObject> {
  readonly owned: readonly K[]
  /** Nobody's, and the selector matches: to become ours. */
  readonly adopt: readonly K[]
  /** Ours, but the selector no longer matches. */
  readonly release: readonly K[]
}

/**
 * Whose the objects are, by controller reference and selector. An owner that is being deleted neither adopts nor
 * releases; what is being deleted is not adopted.
 */
export function planClaim<K extends KubeObject>(
  owner: KubeObject,
  selector: Selector,
  candidates: readonly K[],
): Claim<K> {
  const isOwnerGoing = owner.metadata.deletionTimestamp !== undefined
  const owned: K[] = []
  const adopt: K[] = []
  const release: K[] = []
  for (const object of candidates) {
    const controller = controllerOf(object)
    const matches = selector.matches(object.metadata.labels)
    if (controller !== undefined) {
      if (controller.uid !== owner.metadata.uid) continue
      if (matches) owned.push(object)
      else if (!isOwnerGoing) release.push(object)
    } else if (matches && !isOwnerGoing && object.metadata.deletionTimestamp === undefined) adopt.push(object)
  }
  return { owned, adopt, release }
}

/**
 * Writes adoptions and releases; gives back what the owner has now. Before the first adoption the owner is read live:
 * a copy that lags must not adopt for an owner that is gone (the garbage collector would take the adopted with it).
 */
export async function applyClaim<O extends KubeObject, K extends KubeObject>(
  client: Client,
  owner: { readonly resource: Resource<O>; readonly object: O },
  resource: Resource<K>,
  claim: Claim<K>,
  { signal, wrote }: { readonly signal: AbortSignal; wrote(answer: K): void },
): Promise<K[]> {
  const owned = [...claim.owned]
  if (claim.adopt.length > 0) await checkMayAdopt(client, owner.resource, owner.object, signal)
  for (const object of claim.adopt) {
    const references = [...(object.metadata.ownerReferences ?? []), controllerReference(owner.resource, owner.object)]
    const adopted = await writeReferences(client, resource, object, references, signal)
    if (adopted === undefined) continue
    wrote(adopted)
    owned.push(adopted)
  }
  for (const object of claim.release) {
    const references = (object.metadata.ownerReferences ?? []).filter((r) => r.uid !== owner.object.metadata.uid)
    const released = await writeReferences(client, resource, object, references, signal)
    if (released !== undefined) wrote(released)
  }
  return owned
}

async function checkMayAdopt<O extends KubeObject>(
  client: Client,
  resource: Resource<O>,
  owner: O,
  signal: AbortSignal,
): Promise<void> {
  const live = await client.get(resource, owner.metadata, { signal })
  const name = `${resource.kind} ${keyOf(owner)}`
  if (live.metadata.uid !== owner.metadata.uid)
    throw new Error(
      `Cannot adopt for ${name}: original is gone: got uid ${live.metadata.uid}, wanted ${owner.metadata.uid}`,
    )
  if (live.metadata.deletionTimestamp !== undefined)
    throw new Error(`Cannot adopt for ${name}: it has just been deleted at ${live.metadata.deletionTimestamp}`)
}

/** Undefined when the object is gone meanwhile, which is as good. The revision keeps us from undoing another's write. */
async function writeReferences<K extends KubeObject>(
  client: Client,
  resource: Resource<K>,
  object: K,
  ownerReferences: readonly OwnerReference[],
  signal: AbortSignal,
): Promise<K | undefined> {
  const { uid, resourceVersion } = object.metadata
  const patch = { metadata: { uid, resourceVersion, ownerReferences } }
  try {
    return await client.patch(resource, object.metadata, 'merge', patch, { signal })
  } catch (error) {
    if (isStatus(error, 'NotFound')) return undefined
    throw error
  }
}
