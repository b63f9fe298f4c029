import type { ObjectMeta, OwnerReference } from '#api/gen/meta-v1.ts'
import { foregroundFinalizer, orphanFinalizer } from '#api/meta/finalizers.ts'

/** What an owner that a reference names turned out to be. */
export type OwnerState =
  /** It is there and stays. */
  | 'solid'
  /** It is not there, or one of another uid is. */
  | 'absent'
  /** It is being deleted in the foreground, and waits for its dependents. */
  | 'waiting'

export interface KnownOwner {
  readonly reference: OwnerReference
  readonly state: OwnerState
}

export type Policy = 'Background' | 'Foreground' | 'Orphan'

export type Action =
  | { readonly do: 'nothing' }
  /** Somebody else owns it too: only the references that mean nothing any more go. */
  | { readonly do: 'drop-owners'; readonly uids: readonly string[] }
  /** `unblock`: first stop holding up its owners, because it will itself wait for its dependents (they may own each other). */
  | { readonly do: 'delete'; readonly policy: Policy; readonly unblock: boolean }

/**
 * What becomes of an object, given what its owners turned out to be. `hasWaitingDependents`: some of its own dependents
 * are being deleted in the foreground. Pure.
 */
export function planItem(
  metadata: ObjectMeta,
  owners: readonly KnownOwner[],
  dependents: { readonly count: number; readonly anyWaits: boolean },
): Action {
  if (owners.length === 0) return { do: 'nothing' }
  const useless = owners.filter((o) => o.state !== 'solid')
  if (useless.length < owners.length)
    return useless.length === 0 ? { do: 'nothing' } : { do: 'drop-owners', uids: useless.map((o) => o.reference.uid) }
  if (owners.some((o) => o.state === 'waiting') && dependents.count > 0)
    return { do: 'delete', policy: 'Foreground', unblock: dependents.anyWaits }
  return { do: 'delete', policy: policyOf(metadata), unblock: false }
}

/** How the object itself was told to be deleted, if somebody did; otherwise in the background. */
function policyOf({ finalizers = [] }: ObjectMeta): Policy {
  if (finalizers.includes(orphanFinalizer)) return 'Orphan'
  return finalizers.includes(foregroundFinalizer) ? 'Foreground' : 'Background'
}

/** The patch that takes references away, refused when the object has changed since it was looked at. Pure. */
export function dropOwners(metadata: ObjectMeta, uids: readonly string[]): object {
  const ownerReferences = (metadata.ownerReferences ?? []).filter((o) => !uids.includes(o.uid))
  return {
    metadata: {
      uid: metadata.uid,
      resourceVersion: metadata.resourceVersion,
      ownerReferences: ownerReferences.length === 0 ? null : ownerReferences,
    },
  }
}

/** The patch that makes the object hold up none of its owners. Pure. */
export function unblockOwners(metadata: ObjectMeta): object {
  const ownerReferences = (metadata.ownerReferences ?? []).map((o) => ({ ...o, blockOwnerDeletion: false }))
  return { metadata: { uid: metadata.uid, resourceVersion: metadata.resourceVersion, ownerReferences } }
}

/** The patch that takes one finalizer away. Pure. */
export function dropFinalizer(metadata: ObjectMeta, finalizer: string): object {
  const finalizers = (metadata.finalizers ?? []).filter((f) => f !== finalizer)
  return {
    metadata: {
      uid: metadata.uid,
      resourceVersion: metadata.resourceVersion,
      finalizers: finalizers.length === 0 ? null : finalizers,
    },
  }
}
