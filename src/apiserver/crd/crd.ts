import type { CustomResourceDefinition, CustomResourceDefinitionCondition } from '#api/gen/apiextensions-v1.ts'
import { customResourceDefinitions } from '#api/gen/resources.ts'
import type { KindDefinition } from '#api/kind.ts'
import { withCondition } from '#api/meta/conditions.ts'
import type { Resource } from '#api/meta/resource.ts'
import { isStatus } from '#api/meta/status.ts'
import { formatTime } from '#api/meta/time.ts'
import { Backoff } from '#base/async/backoff.ts'
import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log/log.ts'
import type { Registry, User } from '../step.ts'
import { fromCustomResourceDefinition } from './custom-kind.ts'
import type { CustomKind } from './kind.ts'
import { conditionOf, decideNames, takenNames } from './names.ts'

/** Whoever serves kinds: the registry. */
export interface KindHost {
  /** Starts to serve a kind, or serves it by another definition. */
  serve(kind: KindDefinition): Promise<void>
  forget(resource: Resource): void
}

export interface CustomResourcesOptions {
  readonly registry: Registry
  readonly host: KindHost
  /** Whose names and groups a definition may not take. */
  readonly builtIn: readonly KindDefinition[]
  readonly clock: Clock
  readonly log: Log
}

/** Removes every object of a definition before the definition itself goes. */
export const cleanupFinalizer = 'customresourcecleanup.apiextensions.k8s.io'
const identity: User = { name: 'system:apiserver', groups: ['system:masters', 'system:authenticated'] }

/**
 * Serves what CustomResourceDefinitions define: decides on their names, has their kinds served, then says so in their
 * status (in that order: who sees Established can create at once), and empties them when they are deleted.
 * One definition is worked on at a time; a failure is tried again with back-off.
 */
export class CustomResources {
  readonly #options: CustomResourcesOptions
  /** Definition name -> the kinds served for it, with the generation they were made from. */
  readonly #served = new Map<string, { readonly mark: string; readonly kinds: readonly CustomKind[] }>()
  readonly #dirty = new Set<string>()
  readonly #backoffs = new Map<string, Backoff>()
  readonly #timers = new Set<() => void>()
  #wake: (() => void) | undefined
  #stopped = false

  constructor(options: CustomResourcesOptions) {
    this.#options = options
  }

  /** The kinds that are served now. */
  kinds(): CustomKind[] {
    return [...this.#served.values()].flatMap((s) => s.kinds)
  }

  /** Serves what is established in the store already, and listens from now on. Before the server is ready. */
  async start(): Promise<void> {
    const { registry } = this.#options
    registry.onChange(customResourceDefinitions, (next, old) => this.#changed(next, old))
    for (const definition of registry.list(customResourceDefinitions)) {
      if (conditionOf(definition, 'Established')?.status === 'True') await this.#serve(definition)
      this.#dirty.add(definition.metadata.name)
    }
  }

  /** Works until the signal aborts; resolves when the last write has settled. */
  async run(signal: AbortSignal): Promise<void> {
    signal.addEventListener('abort', () => this.#stop(), { once: true })
    if (signal.aborted) this.#stop()
    while (!this.#stopped) {
      const [name] = this.#dirty
      if (name === undefined) {
        await new Promise<void>((resolve) => {
          this.#wake = resolve
        })
        continue
      }
      this.#dirty.delete(name)
      try {
        if (await this.#reconcile(name)) this.#backoffs.delete(name)
        else this.#again(name)
      } catch (err) {
        this.#options.log.error({ err, definition: name }, 'cannot bring a custom resource definition into effect')
        this.#again(name)
      }
    }
  }

  #stop(): void {
    this.#stopped = true
    for (const cancel of this.#timers) cancel()
    this.#timers.clear()
    this.#wake?.()
  }

  #changed(next: CustomResourceDefinition | undefined, old: CustomResourceDefinition | undefined): void {
    const definition = next ?? old
    if (definition === undefined) return
    this.#mark(definition.metadata.name)
    // Names that were taken may have become free.
    for (const other of this.#options.registry.list(customResourceDefinitions))
      if (other.spec.group === definition.spec.group && conditionOf(other, 'NamesAccepted')?.status === 'False')
        this.#mark(other.metadata.name)
  }

  #mark(name: string): void {
    this.#dirty.add(name)
    this.#wake?.()
    this.#wake = undefined
  }

  #again(name: string): void {
    const backoff = this.#backoffs.get(name) ?? new Backoff({ firstMs: 50, maxMs: 5_000 })
    this.#backoffs.set(name, backoff)
    const cancel = this.#options.clock.schedule(backoff.next(), () => {
      this.#timers.delete(cancel)
      this.#mark(name)
    })
    this.#timers.add(cancel)
  }

  /** True when there is nothing left to do for now. */
  async #reconcile(name: string): Promise<boolean> {
    const { registry, builtIn } = this.#options
    const definition = registry.get(customResourceDefinitions, '', name)
    if (definition === undefined) {
      this.#forget(name)
      return true
    }
    if (definition.metadata.deletionTimestamp !== undefined) return await this.#drain(definition)
    const others = [...registry.list(customResourceDefinitions)].filter((d) => d.metadata.name !== name)
    const decision = decideNames(definition, takenNames(definition.spec.group, builtIn, others))
    if (decision.established) await this.#serve(definition)
    else this.#forget(name)
    await this.#write(name, (copy, now) => {
      const storage = copy.spec.versions.find((v) => v.storage)?.name
      const stored = copy.status.storedVersions ?? []
      return {
        acceptedNames: decision.accepted,
        conditions: mergeConditions(copy, decision.conditions, now),
        storedVersions: storage === undefined || stored.includes(storage) ? stored : [...stored, storage],
      }
    })
    return true
  }

  /** Deletes every object of the definition; done when none is left (their own finalizers may take time). */
  async #drain(definition: CustomResourceDefinition): Promise<boolean> {
    const { name, finalizers = [] } = definition.metadata
    const { registry } = this.#options
    if (!finalizers.includes(cleanupFinalizer)) return true
    await this.#serve(definition)
    const message = 'CustomResource deletion is in progress'
    await this.#terminating(name, { status: 'True', reason: 'InstanceDeletionInProgress', message }, false)
    const kind = this.#served.get(name)?.kinds[0]
    if (kind !== undefined) {
      for (const object of [...registry.list(kind.resource)]) {
        const { namespace = '', name: objectName, uid, deletionTimestamp } = object.metadata
        if (deletionTimestamp !== undefined) continue
        try {
          await registry.remove(kind.resource, namespace, objectName, identity, { preconditions: { uid } })
        } catch (error) {
          // Somebody else was faster.
          if (!isStatus(error, 'NotFound') && !isStatus(error, 'Conflict')) throw error
        }
      }
      for (const _ of registry.list(kind.resource)) return false
    }
    const done = { status: 'False', reason: 'InstanceDeletionCompleted', message: 'removed all instances' } as const
    await this.#terminating(name, done, true)
    return true
  }

  async #terminating(
    name: string,
    condition: { readonly status: 'True' | 'False'; readonly reason: string; readonly message: string },
    isDone: boolean,
  ): Promise<void> {
    await this.#write(
      name,
      (copy, now) => ({
        ...copy.status,
        conditions: mergeConditions(copy, [{ type: 'Terminating', ...condition }], now),
      }),
      isDone,
    )
  }

  async #write(
    name: string,
    status: (copy: CustomResourceDefinition, now: string) => CustomResourceDefinition['status'],
    withoutFinalizer = false,
  ): Promise<void> {
    const { registry, clock } = this.#options
    try {
      await registry.change(customResourceDefinitions, '', name, identity, (copy) => {
        const before = JSON.stringify([copy.status, copy.metadata.finalizers])
        copy.status = status(copy, formatTime(clock.now()))
        const others = (copy.metadata.finalizers ?? []).filter((f) => f !== cleanupFinalizer)
        const isGoing = copy.metadata.deletionTimestamp !== undefined
        if (withoutFinalizer && others.length > 0) copy.metadata.finalizers = others
        else if (withoutFinalizer) delete copy.metadata.finalizers
        else if (!isGoing) copy.metadata.finalizers = [...others, cleanupFinalizer]
        return JSON.stringify([copy.status, copy.metadata.finalizers]) === before ? undefined : copy
      })
    } catch (error) {
      if (!isStatus(error, 'NotFound')) throw error
    }
  }

  async #serve(definition: CustomResourceDefinition): Promise<void> {
    const { name, uid, generation, deletionTimestamp } = definition.metadata
    const storage = definition.spec.versions.find((v) => v.storage)?.name
    const stored = [...new Set([...(definition.status?.storedVersions ?? []), storage])].toSorted()
    const mark = JSON.stringify([uid, generation, definition.spec, deletionTimestamp !== undefined, stored])
    const before = this.#served.get(name)
    if (before?.mark === mark) return
    const kinds = fromCustomResourceDefinition(definition)
    for (const kind of kinds) await this.#options.host.serve(kind)
    for (const old of before?.kinds ?? [])
      if (!kinds.some((k) => k.resource.version === old.resource.version)) this.#options.host.forget(old.resource)
    this.#served.set(name, { mark, kinds })
  }

  #forget(name: string): void {
    for (const kind of this.#served.get(name)?.kinds ?? []) this.#options.host.forget(kind.resource)
    this.#served.delete(name)
  }
}

function mergeConditions(
  { status }: CustomResourceDefinition,
  next: readonly CustomResourceDefinitionCondition[],
  now: string,
): CustomResourceDefinitionCondition[] {
  let merged: readonly CustomResourceDefinitionCondition[] = status.conditions ?? []
  for (const condition of next) merged = withCondition(merged, condition, now)
  if (next.some((c) => c.type === 'NamesAccepted') && !next.some((c) => c.type === 'NonStructuralSchema'))
    merged = merged.filter((c) => c.type !== 'NonStructuralSchema')
  return [...merged]
}
