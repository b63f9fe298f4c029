import type { Node, Pod } from '#api/gen/core-v1.ts'
import { namespaces, nodes, pods, replicaSets, services } from '#api/gen/resources.ts'
import { findCondition } from '#api/meta/conditions.ts'
import { controllerOf } from '#api/meta/owner.ts'
import type { KubeObject, Resource } from '#api/meta/resource.ts'
import { type Selector, selectorFrom } from '#api/meta/selector.ts'
import { isStatus } from '#api/meta/status.ts'
import { isAbort, Scope } from '#base/async/scope.ts'
import { EventRecorder } from '#client/events.ts'
import { syncedWithin } from '#client/informer.ts'
import { keyOf } from '#client/key.ts'
import { isAccessDenied } from '#reconcile/errors.ts'
import type { LoopContext } from '#reconcile/loop.ts'
import type { Part } from '#reconcile/manager.ts'
import { bind, reportUnscheduled } from './apply.ts'
import { type Placement, planPlacement } from './plan.ts'
import type { NamedSelector, PlanContext } from './plugin.ts'
import { SchedulingQueue, type Waiter } from './queue.ts'
import { type PodInfo, Snapshot } from './snapshot.ts'

/** Pods that name another scheduler are left alone. */
export const schedulerName = 'default-scheduler'

/** Bindings and reports on their way at once: what is beyond waits in line, where it is cheap. */
const writesMax = 256
/** Milliseconds of deciding after which others get their turn. */
const turnMs = 8
const syncMs = 60_000
const reads: readonly Resource<KubeObject>[] = [nodes, pods, namespaces, services, replicaSets]

/**
 * Gives pods their nodes. One decision at a time over an exact picture of the cluster (snapshot.ts); a decision counts
 * in that picture at once (the pod is assumed on its node), and its binding is written while the next is made.
 */
export function scheduler(
  context: LoopContext,
  { random = Math.random }: { readonly random?: () => number } = {},
): Part {
  return {
    name: context.name,
    async run(signal, started) {
      const { client, informers, clock } = context
      for (const resource of reads) await client.list(resource, { limit: 1, signal })
      for (const resource of reads) await syncedWithin(informers.of(resource), syncMs, signal, clock)
      await using scope = new Scope(signal)
      const work = new Scheduling(context, scope, random)
      try {
        work.begin()
        started()
        await new Promise((resolve) => scope.signal.addEventListener('abort', resolve, { once: true }))
      } finally {
        work.end()
      }
      await scope.done()
    },
  }
}

class Scheduling {
  readonly #context: LoopContext
  readonly #scope: Scope
  readonly #random: () => number
  readonly #events: EventRecorder
  readonly #snapshot = new Snapshot()
  readonly #queue: SchedulingQueue
  readonly #plan: PlanContext
  #writes = 0
  #isAwake = false
  #startAt = 0

  constructor(context: LoopContext, scope: Scope, random: () => number) {
    const { client, clock, log } = context
    this.#context = context
    this.#scope = scope
    this.#random = random
    this.#events = new EventRecorder({ client, component: schedulerName, clock, log })
    this.#queue = new SchedulingQueue(clock, () => this.#wake())
    this.#plan = planContext(context, this.#snapshot)
    context.metrics?.gauge(
      'scheduler_pending_pods',
      'Pods without a node: to be tried now, after a pause, or when something changes',
      () => {
        const { active, backoff, waiting } = this.#queue.size
        return Object.entries({ active, backoff, unschedulable: waiting }).map(([queue, value]) => ({
          labels: { queue },
          value,
        }))
      },
    )
  }

  /** One attempt at a pod, from looking at it until it is bound or refused. */
  #count(result: 'scheduled' | 'unschedulable' | 'error', begun: number): void {
    const { metrics, clock } = this.#context
    const labels = { result, profile: schedulerName }
    metrics?.count('scheduler_schedule_attempts_total', 'Attempts to give a pod a node, by result', labels)
    const help = 'Time of an attempt, the writing of the binding included'
    metrics?.observe('scheduler_scheduling_attempt_duration_seconds', help, labels, (clock.monotonic() - begun) / 1000)
  }

  begin(): void {
    const { informers } = this.#context
    const { signal } = this.#scope
    informers.of(nodes).onChange((next, old) => this.#onNode(next, old), signal)
    informers.of(pods).onChange((next, old) => this.#onPod(next, old), signal)
    this.#scope.start((inner) => this.#events.run(inner))
  }

  end(): void {
    this.#queue.close()
  }

  #onNode(next: Node | undefined, old: Node | undefined): void {
    if (next !== undefined) {
      // Heartbeats: nothing that placement looks at.
      if (old !== undefined && sameForPlacement(next, old)) return
      this.#snapshot.setNode(next)
      this.#queue.tell({ what: 'node-changed', node: next, old })
    } else if (old !== undefined) {
      this.#snapshot.removeNode(old.metadata.name)
      this.#queue.tell({ what: 'node-removed' })
    }
  }

  #onPod(next: Pod | undefined, old: Pod | undefined): void {
    const pod = next ?? old
    if (pod === undefined) return
    const { uid } = pod.metadata
    if (next === undefined) {
      this.#queue.remove(uid)
      this.#snapshot.removePod(uid)
      if (pod.spec.nodeName) this.#tellGone(pod, pod.spec.nodeName)
    } else if (next.spec.nodeName) this.#onPlaced(next, old)
    else if ((next.spec.schedulerName ?? schedulerName) === schedulerName) this.#onUnplaced(next)
  }

  #onPlaced(pod: Pod, old: Pod | undefined): void {
    const { uid } = pod.metadata
    this.#queue.remove(uid)
    const wasPlaced = old !== undefined && Boolean(old.spec.nodeName)
    if (isEnded(pod)) {
      this.#snapshot.removePod(uid)
      if (wasPlaced && !isEnded(old)) this.#tellGone(pod, pod.spec.nodeName ?? '')
      return
    }
    if (wasPlaced && samePlaced(pod, old)) return
    this.#snapshot.setPod(pod)
    this.#queue.tell({ what: 'pod-placed', pod })
  }

  #tellGone(pod: Pod, nodeName: string): void {
    this.#queue.tell({ what: 'pod-gone', pod, node: this.#snapshot.node(nodeName) })
  }

  #onUnplaced(pod: Pod): void {
    const { uid, deletionTimestamp } = pod.metadata
    // Old news, while or after its binding is written.
    if (this.#snapshot.isAssumed(uid)) return
    const isGated = (pod.spec.schedulingGates ?? []).length > 0
    if (deletionTimestamp === undefined && !isEnded(pod) && !isGated) {
      this.#queue.put(pod)
      return
    }
    this.#queue.remove(uid)
    if (isGated && findCondition(pod.status.conditions, 'PodScheduled')?.reason !== 'SchedulingGated')
      this.#report(pod, 'SchedulingGated', 'Scheduling is blocked due to non-empty scheduling gates')
  }

  /** Decides soon: after what else happened in this turn is known, so that the most important pod is the first. */
  #wake(): void {
    if (this.#isAwake || this.#scope.signal.aborted) return
    this.#isAwake = true
    queueMicrotask(() => this.#decide())
  }

  #decide(): void {
    this.#isAwake = false
    const { clock } = this.#context
    const begun = clock.monotonic()
    while (this.#writes < writesMax && !this.#scope.signal.aborted) {
      if (clock.monotonic() - begun > turnMs) {
        this.#isAwake = true
        setImmediate(() => this.#decide())
        return
      }
      const waiter = this.#queue.pop()
      if (waiter === undefined) return
      this.#place(waiter)
    }
  }

  #place(waiter: Waiter): void {
    const { info } = waiter
    const begun = this.#context.clock.monotonic()
    const { placement, looked } = planPlacement(info, this.#plan, { startAt: this.#startAt, random: this.#random })
    this.#startAt = (this.#startAt + looked) % Math.max(1, this.#snapshot.nodes.length)
    switch (placement.do) {
      case 'bind':
        this.#snapshot.assume(info, placement.nodeName)
        this.#write(() => this.#bind(waiter, info, placement.nodeName, begun))
        break
      case 'wait':
        this.#queue.reject(waiter, placement.rejectedBy)
        this.#count('unschedulable', begun)
        this.#refuse(info.pod, placement)
        break
      default:
        placement satisfies never
    }
  }

  async #bind(waiter: Waiter, { pod }: PodInfo, nodeName: string, begun: number): Promise<void> {
    const { client, log } = this.#context
    try {
      await bind(client, pod, nodeName, this.#scope.signal)
    } catch (error) {
      this.#snapshot.forget(pod.metadata.uid)
      if (isAbort(error) || isAccessDenied(error)) throw error
      this.#count('error', begun)
      // What was kept free for it is free again.
      this.#tellGone(pod, nodeName)
      const present = this.#context.informers.of(pods).get(keyOf(pod))
      if (isStatus(error, 'NotFound') || present?.metadata.uid !== pod.metadata.uid || present.spec.nodeName) {
        this.#queue.remove(pod.metadata.uid)
        return
      }
      this.#queue.put(present)
      log.warn({ err: error, pod: keyOf(pod), node: nodeName }, 'cannot bind a pod, will try again')
      const message = `binding rejected: ${error instanceof Error ? error.message : String(error)}`
      this.#events.record(pod, { type: 'Warning', reason: 'FailedScheduling', message })
      this.#queue.fail(waiter)
      return
    }
    this.#queue.remove(pod.metadata.uid)
    this.#count('scheduled', begun)
    const message = `Successfully assigned ${pod.metadata.namespace}/${pod.metadata.name} to ${nodeName}`
    this.#events.record(pod, { type: 'Normal', reason: 'Scheduled', message })
  }

  #refuse(pod: Pod, { message }: Placement & { readonly do: 'wait' }): void {
    this.#events.record(pod, { type: 'Warning', reason: 'FailedScheduling', message })
    this.#report(pod, 'Unschedulable', message)
  }

  #report(pod: Pod, reason: string, message: string): void {
    const { client, clock, log } = this.#context
    this.#write(async () => {
      try {
        await reportUnscheduled(client, pod, { reason, message }, clock.now(), this.#scope.signal)
      } catch (error) {
        if (isAbort(error) || isAccessDenied(error)) throw error
        // The next attempt at the pod says it again.
        log.warn({ err: error, pod: keyOf(pod) }, 'cannot say why a pod has no node')
      }
    })
  }

  #write(task: () => Promise<void>): void {
    this.#writes++
    this.#scope.start(async () => {
      try {
        await task()
      } finally {
        this.#writes--
        this.#wake()
      }
    })
  }
}

const isEnded = ({ status }: Pod): boolean => status.phase === 'Succeeded' || status.phase === 'Failed'

const same = (a: unknown, b: unknown): boolean => JSON.stringify(a ?? null) === JSON.stringify(b ?? null)

/** Status reports of pods are frequent, changes of what they take and how they are labelled are not. */
const samePlaced = (a: Pod, b: Pod): boolean =>
  a.metadata.generation !== undefined &&
  a.metadata.generation === b.metadata.generation &&
  a.metadata.deletionTimestamp === b.metadata.deletionTimestamp &&
  same(a.metadata.labels, b.metadata.labels)

const sameForPlacement = (a: Node, b: Node): boolean =>
  a.metadata.uid === b.metadata.uid &&
  same(a.metadata.labels, b.metadata.labels) &&
  same(a.spec, b.spec) &&
  same(a.status.allocatable, b.status.allocatable) &&
  same(a.status.images, b.status.images)

function planContext({ informers }: LoopContext, snapshot: Snapshot): PlanContext {
  const namespaceInformer = informers.of(namespaces)
  const serviceInformer = informers.of(services)
  const setInformer = informers.of(replicaSets)
  return {
    snapshot,
    labelsOfNamespace: (name) => namespaceInformer.get(name)?.metadata.labels,
    namespacesBy: (selector) =>
      namespaceInformer
        .list()
        .filter(({ metadata }) => selector.matches(metadata.labels))
        .map(({ metadata }) => metadata.name),
    defaultSelector({ pod }): NamedSelector | undefined {
      const { labels, namespace } = pod.metadata
      if (labels === undefined) return undefined
      const exact: Record<string, string> = {}
      for (const { spec } of serviceInformer.list(namespace)) {
        const entries = Object.entries(spec.selector ?? {})
        if (entries.length > 0 && entries.every(([key, value]) => labels[key] === value))
          for (const [key, value] of entries) exact[key] = value
      }
      const owner = controllerOf(pod)
      const set = owner?.kind === 'ReplicaSet' ? setInformer.get(`${namespace}/${owner.name}`) : undefined
      const own = set?.spec.selector
      const merged = {
        matchLabels: { ...exact, ...own?.matchLabels },
        matchExpressions: own?.matchExpressions ?? [],
      }
      if (Object.keys(merged.matchLabels).length + merged.matchExpressions.length === 0) return undefined
      const selector: Selector = selectorFrom(merged)
      return { id: JSON.stringify(selector.requirements), selector }
    },
  }
}
