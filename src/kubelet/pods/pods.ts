import type { Pod } from '#api/gen/core-v1.ts'
import { delay } from '#base/async/delay.ts'
import type { Scope } from '#base/async/scope.ts'
import type { Informer } from '#client/informer.ts'
import { podLabels } from '../runtime/runtime.ts'
import type { NodeContext } from './node-context.ts'
import { PodWorker } from './worker.ts'

export interface PodsOptions {
  readonly context: NodeContext
  /** Of this node's pods only. */
  readonly informer: Informer<Pod>
  /** How often everything is looked at, for what no event told; ms. */
  readonly relistMs?: number
}

const relistMsDefault = 5_000
/** Before a loop that failed is begun anew. */
const restartMs = 5_000

/**
 * The pods of this node: a loop per pod, found by uid, fed by the API's events, by exits, by probes and by changes of
 * what is mounted; a slow relist of the runtime is the net under all of them.
 */
export class Pods {
  readonly #context: NodeContext
  readonly #informer: Informer<Pod>
  readonly #relistMs: number
  readonly #workers = new Map<string, PodWorker>()

  constructor({ context, informer, relistMs = relistMsDefault }: PodsOptions) {
    this.#context = context
    this.#informer = informer
    this.#relistMs = relistMs
  }

  /** The pods that are on this node now. */
  list(): Pod[] {
    return [...this.#workers.values()].map((w) => w.pod)
  }

  find(namespace: string, name: string): Pod | undefined {
    return this.#informer.get(`${namespace}/${name}`)
  }

  async run(scope: Scope): Promise<void> {
    const { signal } = scope
    await this.#informer.whenSynced(signal)
    this.#informer.onChange((next, old) => this.#changed(next, old, scope), signal)
    this.#context.probes.onChange((uid) => this.#workers.get(uid)?.wake())
    this.#context.objects.onChange((uid) => this.#workers.get(uid)?.refreshVolumes())
    const seen = new Map<string, string>()
    for (;;) {
      await this.#relist(seen, scope)
      await delay(this.#relistMs, signal, this.#context.clock)
    }
  }

  #changed(next: Pod | undefined, old: Pod | undefined, scope: Scope): void {
    if (old !== undefined && next?.metadata.uid !== old.metadata.uid)
      this.#workers.get(old.metadata.uid)?.update(undefined)
    if (next === undefined) return
    const worker = this.#workers.get(next.metadata.uid)
    if (worker === undefined) this.#begin(new PodWorker(this.#context, next, false), scope)
    else {
      worker.update(next)
      // Labels and annotations may be files of a downwardAPI volume.
      if (hasDownwardFiles(next) && metadataChanged(next, old)) worker.refreshVolumes()
    }
  }

  #begin(worker: PodWorker, scope: Scope): void {
    this.#workers.set(worker.uid, worker)
    scope.start(async (signal) => {
      try {
        await worker.run(signal)
        this.#workers.delete(worker.uid)
      } catch (error) {
        if (signal.aborted) throw error
        // One pod that we cannot deal with must not take the others along; it gets a fresh loop.
        const { namespace, name } = worker.pod.metadata
        this.#context.log.error({ err: error, pod: `${namespace}/${name}` }, "a pod's loop failed and is begun anew")
        await delay(restartMs, signal, this.#context.clock)
        this.#begin(worker.again(), scope)
      }
    })
  }

  /** Wakes the pods of which the runtime has something else than before, and ends what belongs to nobody. */
  async #relist(seen: Map<string, string>, scope: Scope): Promise<void> {
    const { runtime, log, volumes } = this.#context
    try {
      const [sandboxes, containers] = await Promise.all([
        runtime.listSandboxes(undefined, scope.signal),
        runtime.listContainers(undefined, scope.signal),
      ])
      const now = new Map<string, string>()
      const say = (uid: string, words: string) => now.set(uid, `${now.get(uid) ?? ''}${words};`)
      for (const s of sandboxes) say(s.podUid, `${s.id} ${s.ready}`)
      for (const c of containers) say(c.podUid, `${c.id} ${c.state}`)
      for (const [uid, words] of now) if (seen.get(uid) !== words) this.#workers.get(uid)?.wake()
      seen.clear()
      for (const [uid, words] of now) seen.set(uid, words)
      for (const s of sandboxes)
        if (!this.#workers.has(s.podUid)) this.#begin(orphan(this.#context, s.podUid, s.namespace, s.name), scope)
      for (const c of containers) {
        const { labels, podUid } = c
        if (podUid === '' || this.#workers.has(podUid)) continue
        this.#begin(
          orphan(this.#context, podUid, labels[podLabels.namespace] ?? '', labels[podLabels.name] ?? ''),
          scope,
        )
      }
      for (const uid of volumes.known())
        if (!this.#workers.has(uid)) this.#begin(orphan(this.#context, uid, '', ''), scope)
    } catch (error) {
      if (scope.signal.aborted) throw error
      log.warn({ err: error }, 'cannot list what the runtime has')
    }
  }
}

/** Something of a pod that the API does not know: all that is left is to end it and to clean up. */
function orphan(context: NodeContext, uid: string, namespace: string, name: string): PodWorker {
  const pod: Pod = {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace, uid, resourceVersion: '', creationTimestamp: '' },
    spec: { containers: [] },
    status: {},
  }
  return new PodWorker(context, pod, true)
}

const hasDownwardFiles = ({ spec }: Pod): boolean =>
  (spec.volumes ?? []).some(
    (v) => v.downwardAPI !== undefined || v.projected?.sources?.some((s) => s.downwardAPI !== undefined),
  )

const metadataChanged = (next: Pod, old: Pod | undefined): boolean =>
  JSON.stringify([next.metadata.labels, next.metadata.annotations]) !==
  JSON.stringify([old?.metadata.labels, old?.metadata.annotations])
