import type { Container, Event, Pod, PodSpec } from '#api/gen/core-v1.ts'
import { events, pods } from '#api/gen/resources.ts'
import { isConditionTrue } from '#api/meta/conditions.ts'
import { adminClient } from '#cli/cluster/ready.ts'
import type { DeepPartial, Draft } from '#client/client.ts'
import type { HttpClient } from '#client/http.ts'
import type { TestCluster } from './cluster.ts'

export type PodDraft = DeepPartial<PodSpec>
const withinMs = 40_000

/** The API of a test cluster, and every version that a watch showed of every pod: what only lasted a moment is there too. */
export class Watched implements AsyncDisposable {
  readonly client: HttpClient
  /** `namespace/name` -> versions, oldest first. */
  readonly #versions = new Map<string, Pod[]>()
  /** Uids whose object has been seen to go. */
  readonly #gone = new Set<string>()
  readonly #listeners = new Set<() => void>()
  readonly #stop = new AbortController()
  readonly #watching: Promise<void>

  private constructor(client: HttpClient) {
    this.client = client
    this.#watching = this.#watch()
  }

  static async start(cluster: TestCluster): Promise<Watched> {
    return new Watched(await adminClient(cluster.layout))
  }

  async #watch(): Promise<void> {
    const { signal } = this.#stop
    try {
      for await (const event of this.client.watch(pods, { signal, sendInitialEvents: true })) {
        if (event.type === 'BOOKMARK') continue
        const { namespace, name, uid } = event.object.metadata
        const key = `${namespace}/${name}`
        this.#versions.set(key, [...(this.#versions.get(key) ?? []), event.object])
        if (event.type === 'DELETED') this.#gone.add(uid)
        for (const listener of this.#listeners) listener()
      }
    } catch (error) {
      if (!signal.aborted) throw error
    }
  }

  create(name: string, spec: PodDraft, metadata: Partial<Pod['metadata']> = {}): Promise<Pod> {
    const object = { metadata: { namespace: 'default', labels: { app: name }, ...metadata, name }, spec }
    return this.client.create<Pod>(pods, object as Draft<Pod>)
  }

  /** Every version of the pod so far. */
  history(name: string, namespace = 'default'): readonly Pod[] {
    return this.#versions.get(`${namespace}/${name}`) ?? []
  }

  /** The first version of the pod, past ones included, for which it holds. */
  until(name: string, holds: (pod: Pod) => boolean, namespace = 'default'): Promise<Pod> {
    return this.#eventually(
      () => this.history(name, namespace).find(holds),
      () => `pod ${name} did not become so: ${JSON.stringify(this.history(name, namespace).at(-1)?.status, null, 1)}`,
    )
  }

  /** The newest version, as soon as it holds for that. */
  now(name: string, holds: (pod: Pod) => boolean): Promise<Pod> {
    return this.#eventually(
      () => this.history(name).slice(-1).find(holds),
      () => `pod ${name} is not so: ${JSON.stringify(this.history(name).at(-1)?.status, null, 1)}`,
    )
  }

  /** Waits for the object's end and returns its last version. */
  gone({ metadata: { name, namespace, uid } }: Pod, limitMs = withinMs): Promise<Pod> {
    return this.#eventually(
      () => (this.#gone.has(uid) ? this.history(name, namespace).findLast((p) => p.metadata.uid === uid) : undefined),
      () => `pod ${name} did not go`,
      limitMs,
    )
  }

  async #eventually<T>(find: () => T | undefined, words: () => string, limitMs = withinMs): Promise<T> {
    const found = find()
    if (found !== undefined) return found
    return new Promise<T>((resolve, reject) => {
      const listener = () => {
        const value = find()
        if (value === undefined) return
        finish()
        resolve(value)
      }
      const timer = setTimeout(() => {
        finish()
        reject(new Error(`${words()}\nwithin ${limitMs / 1000} s`))
      }, limitMs)
      const finish = () => {
        clearTimeout(timer)
        this.#listeners.delete(listener)
      }
      this.#listeners.add(listener)
    })
  }

  async log(name: string, container = 'c'): Promise<string> {
    return String(
      await this.client.raw('GET', `/api/v1/namespaces/default/pods/${name}/log?container=${container}&tailLines=1000`),
    )
  }

  /** The log, line by line, of a pod that has run to its end. */
  async linesOf(name: string, container = 'c'): Promise<string[]> {
    await this.until(name, (p) => p.status.phase === 'Succeeded' || p.status.phase === 'Failed')
    return (await this.log(name, container)).trimEnd().split('\n')
  }

  async events(name: string): Promise<Event[]> {
    const { items } = await this.client.list(events, {
      namespace: 'default',
      fieldSelector: `involvedObject.name=${name}`,
    })
    return [...items]
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort()
    await this.#watching.finally(() => this.client[Symbol.dispose]())
  }
}

export const isReady = (pod: Pod): boolean => isConditionTrue(pod.status.conditions, 'Ready')
export const restarts = (pod: Pod): number => pod.status.containerStatuses?.[0]?.restartCount ?? 0
export const waitsFor = (pod: Pod): string | undefined =>
  [...(pod.status.initContainerStatuses ?? []), ...(pod.status.containerStatuses ?? [])].find((s) => s.state?.waiting)
    ?.state?.waiting?.reason

/** A container that runs a shell script. */
export const shell = (name: string, script: string, more: DeepPartial<Container> = {}): DeepPartial<Container> => ({
  name,
  image: 'weft.local/busybox:1',
  command: ['sh', '-c', script],
  ...more,
})
/** Runs until it is told to stop, and stops at once then. */
export const idle = 'trap "exit 0" TERM; while true; do sleep 1 & wait $!; done'
