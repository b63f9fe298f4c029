import type { ObjectMeta, OwnerReference } from '#api/gen/meta-v1.ts'
import { foregroundFinalizer, orphanFinalizer } from '#api/meta/finalizers.ts'
import { formatApiVersion } from '#api/meta/gvk.ts'
import type { KubeObject, Resource } from '#api/meta/resource.ts'
import { isStatus } from '#api/meta/status.ts'
import type { Client } from '#client/client.ts'
import type { EventRecorder } from '#client/events.ts'
import type { ReconcileContext } from '#reconcile/controller.ts'
import type { Consequences, Graph, Item } from './graph.ts'
import type { Monitors } from './monitors.ts'
import { dropFinalizer, dropOwners, type KnownOwner, type OwnerState, planItem, unblockOwners } from './plan.ts'

export interface CollectionOptions {
  readonly client: Client
  readonly graph: Graph
  readonly monitors: Monitors
  readonly events: EventRecorder
  readonly onConsequences: (consequences: Consequences) => void
}

/** The owners that were found not to be there; a uid never comes back, so this cannot become wrong, only full. */
const absentMax = 500

/** Looks at single objects and does what the plan says. */
export class Collection {
  readonly #options: CollectionOptions
  readonly #absent = new Set<string>()

  constructor(options: CollectionOptions) {
    this.#options = options
  }

  /** One object: is there still somebody it belongs to? Does it still have to wait for its dependents? */
  async look(uid: string, { signal, log }: ReconcileContext): Promise<void> {
    const { graph } = this.#options
    const item = graph.get(uid)
    // A virtual item is nobody's garbage: whoever names it as owner is looked at instead.
    if (item?.resource === undefined) return
    if (item.waitsForDependents) await this.#finishForeground(item, signal)
    if (item.isGoing) return
    // The graph may be behind, but never ahead: an owner that it has was there. Nothing to ask in the usual case.
    if (item.owners.every((owner) => this.#stateInGraph(item, owner) === 'solid')) return
    const metadata = await this.#live(item, signal)
    if (metadata === undefined) return
    const owners: KnownOwner[] = []
    for (const reference of metadata.ownerReferences ?? [])
      owners.push({ reference, state: await this.#state(item, metadata, reference, signal) })
    const dependents = [...item.dependents]
    const action = planItem(metadata, owners, {
      count: dependents.length,
      anyWaits: dependents.some((d) => d.waitsForDependents),
    })
    const key = { namespace: metadata.namespace, name: metadata.name }
    const { client } = this.#options
    switch (action.do) {
      case 'nothing':
        return
      case 'drop-owners':
        await this.#patch(item.resource, metadata, dropOwners(metadata, action.uids), signal)
        return
      case 'delete': {
        let { resourceVersion } = metadata
        if (action.unblock)
          resourceVersion =
            (await this.#patch(item.resource, metadata, unblockOwners(metadata), signal)) ?? resourceVersion
        const propagationPolicy = action.policy
        log.debug({ resource: item.resource.resource, ...key, propagationPolicy }, 'deleting what nobody owns')
        try {
          const preconditions = { uid, resourceVersion }
          await client.delete(item.resource, key, { propagationPolicy, preconditions, signal })
        } catch (error) {
          if (!isStatus(error, 'NotFound')) throw error
        }
        return
      }
      default:
        action satisfies never
    }
  }

  /** One object that goes and whose dependents stay: takes itself out of their owners, then the finalizer off itself. */
  async letGo(uid: string, { signal }: ReconcileContext): Promise<void> {
    const item = this.#options.graph.get(uid)
    if (item?.resource === undefined) return
    for (const dependent of [...item.dependents]) {
      if (dependent.resource === undefined) continue
      const metadata = await this.#live(dependent, signal)
      if (metadata === undefined || !metadata.ownerReferences?.some((o) => o.uid === uid)) continue
      await this.#patch(dependent.resource, metadata, dropOwners(metadata, [uid]), signal)
    }
    await this.#dropFinalizer(item, orphanFinalizer, signal)
  }

  /** An owner that waits: it may go when nobody blocks it any more; those that still do are looked at. */
  async #finishForeground(item: Item, signal: AbortSignal): Promise<void> {
    const blocking = [...item.dependents].filter((d) =>
      d.owners.some((o) => o.uid === item.uid && o.blockOwnerDeletion === true),
    )
    if (blocking.length === 0) await this.#dropFinalizer(item, foregroundFinalizer, signal)
    else this.#options.onConsequences({ look: blocking.filter((d) => !d.isGoing).map((d) => d.uid), orphan: [] })
  }

  async #dropFinalizer(item: Item, finalizer: string, signal: AbortSignal): Promise<void> {
    const metadata = await this.#live(item, signal)
    if (metadata === undefined || item.resource === undefined || !metadata.finalizers?.includes(finalizer)) return
    await this.#patch(item.resource, metadata, dropFinalizer(metadata, finalizer), signal)
  }

  /** The object as the server has it now; undefined (and out of the graph) when it, or its namesake's uid, is not it. */
  async #live(item: Item, signal: AbortSignal): Promise<ObjectMeta | undefined> {
    const { client, graph, onConsequences } = this.#options
    if (item.resource === undefined) return undefined
    const { namespace, name, uid } = item
    try {
      const found = await client.get(item.resource, { namespace: namespace || undefined, name }, { signal })
      if (found.metadata.uid === uid) return found.metadata
    } catch (error) {
      if (!isStatus(error, 'NotFound')) throw error
    }
    onConsequences(graph.remove(uid))
    return undefined
  }

  /** Resolves to the new revision; undefined when the object is gone. */
  async #patch(
    resource: Resource,
    metadata: ObjectMeta,
    patch: object,
    signal: AbortSignal,
  ): Promise<string | undefined> {
    const { namespace, name } = metadata
    try {
      const written = await this.#options.client.patch(resource, { namespace, name }, 'merge', patch, { signal })
      return written.metadata.resourceVersion
    } catch (error) {
      if (isStatus(error, 'NotFound')) return undefined
      throw error
    }
  }

  /** What the graph knows without asking; undefined where it must be asked. */
  #stateInGraph(item: Item, reference: OwnerReference): OwnerState | undefined {
    const owner = this.#options.graph.get(reference.uid)
    if (owner?.resource === undefined) return undefined
    const isWhatItSays =
      owner.name === reference.name &&
      owner.resource.kind === reference.kind &&
      (owner.namespace === '' || owner.namespace === item.namespace)
    if (!isWhatItSays) return undefined
    return owner.waitsForDependents ? 'waiting' : 'solid'
  }

  async #state(item: Item, metadata: ObjectMeta, reference: OwnerReference, signal: AbortSignal): Promise<OwnerState> {
    const inGraph = this.#stateInGraph(item, reference)
    if (inGraph !== undefined) return inGraph
    if (this.#absent.has(`${metadata.namespace ?? ''}/${reference.uid}`)) return 'absent'
    const { client, monitors } = this.#options
    const resource = monitors.resourceOf(reference.apiVersion, reference.kind)
    if (resource === undefined) {
      monitors.resync()
      throw new Error(`Cannot tell whether owner ${nameOf(reference)} exists: no such kind is served`)
    }
    if (resource.namespaced && !metadata.namespace) {
      // An object of the whole cluster cannot belong to one of a namespace. Nobody can tell what was meant: it stays.
      this.#complain(item, metadata, reference, 'is in a namespace, but its dependent is not')
      return 'solid'
    }
    const namespace = resource.namespaced ? metadata.namespace : undefined
    try {
      const owner = await client.get<KubeObject>(resource, { namespace, name: reference.name }, { signal })
      if (owner.metadata.uid === reference.uid) {
        const { deletionTimestamp, finalizers = [] } = owner.metadata
        return deletionTimestamp !== undefined && finalizers.includes(foregroundFinalizer) ? 'waiting' : 'solid'
      }
    } catch (error) {
      if (!isStatus(error, 'NotFound')) throw error
    }
    const elsewhere = this.#options.graph.get(reference.uid)
    if (elsewhere?.resource !== undefined && elsewhere.namespace !== metadata.namespace)
      this.#complain(item, metadata, reference, `does not exist in namespace "${metadata.namespace}"`)
    this.#remember(`${metadata.namespace ?? ''}/${reference.uid}`)
    return 'absent'
  }

  #remember(id: string): void {
    this.#absent.add(id)
    if (this.#absent.size <= absentMax) return
    const [oldest] = this.#absent
    if (oldest !== undefined) this.#absent.delete(oldest)
  }

  #complain(item: Item, metadata: ObjectMeta, reference: OwnerReference, words: string): void {
    if (item.resource === undefined) return
    const about: KubeObject = { apiVersion: formatApiVersion(item.resource), kind: item.resource.kind, metadata }
    this.#options.events.record(about, {
      type: 'Warning',
      reason: 'OwnerRefInvalidNamespace',
      message: `ownerRef [${nameOf(reference)}] ${words}`,
    })
  }
}

const nameOf = ({ apiVersion, kind, name, uid }: OwnerReference): string =>
  `${apiVersion}/${kind}, name: ${name}, uid: ${uid}`
