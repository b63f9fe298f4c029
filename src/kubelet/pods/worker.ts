import type { Pod, PodStatus } from '#api/gen/core-v1.ts'
import { pods } from '#api/gen/resources.ts'
import { isStatus } from '#api/meta/status.ts'
import { delay } from '#base/async/delay.ts'
import { isAbort, Scope } from '#base/async/scope.ts'
import type { Log } from '#base/log/log.ts'
import { terminationMessage } from '../containers/termination-message.ts'
import type { ContainerRecord, SandboxStatus } from '../runtime/runtime.ts'
import { applyAction } from './apply.ts'
import { backOffNotes } from './back-off.ts'
import { Exits } from './exits.ts'
import { isEnding, isLive, isTerminal, type PodFacts, viewsOf } from './facts.ts'
import { Memory } from './memory.ts'
import type { NodeContext } from './node-context.ts'
import { type Action, keyOf, planPod } from './plan.ts'
import { adoptedBackoff } from './restart.ts'
import { sameStatus, statusOf } from './status.ts'

/** While a sandbox or a container is on its way, a status in between is not worth a write; longer than this it is. */
const quietMs = 400
const statusRetryMs = 2_000
const failedActionMs = 1_000
/** What is mounted stays as it is meanwhile, so there is no hurry. */
const refreshRetryMs = 10_000
/**
 * One pod's loop: look, plan, start what the plan says, write the status, wait for the next event. Whatever takes time
 * (a pull, a grace period) goes on beside it, so that a deletion is seen while a container is still stopping.
 */
export class PodWorker {
  readonly uid: string
  readonly #context: NodeContext
  readonly #log: Log
  readonly #memory: Memory
  #pod: Pod
  #gone: boolean
  #done = false
  #wake: (() => void) | undefined
  #woken = true
  #cancelTimer: (() => void) | undefined
  readonly #exits: Exits
  readonly #ended = new Map<string, ContainerRecord>()
  readonly #sandboxes = new Map<string, SandboxStatus>()
  #busySince: number | undefined
  #publishing = false
  #statusRetryAt = 0
  #adopted = false
  readonly #ending = new AbortController()
  #refreshWanted = false
  #refreshRetryAt = 0
  #timerAt: number | undefined

  constructor(context: NodeContext, pod: Pod, gone: boolean) {
    this.uid = pod.metadata.uid
    this.#context = context
    this.#pod = pod
    this.#gone = gone
    const { name, namespace, uid } = pod.metadata
    this.#log = context.log.child({ pod: `${namespace}/${name}`, uid })
    this.#memory = new Memory(context.clock.now())
    this.#exits = new Exits(context, uid, () => this.wake())
    // What an agent before us mounted for a pod that is over still has to go; a living pod's is brought up to date.
    if (context.volumes.exists(uid) && (gone || isTerminal(pod))) this.#memory.volumes = 'mounted'
  }

  get pod(): Pod {
    return this.#pod
  }

  /** A worker for the same pod that remembers nothing. */
  again(): PodWorker {
    return new PodWorker(this.#context, this.#pod, this.#gone)
  }

  /** The API has a newer version of the pod; undefined: it is gone. */
  update(pod: Pod | undefined): void {
    if (pod === undefined) this.#gone = true
    else if (isNewer(pod, this.#pod)) this.#pod = pod
    this.wake()
  }

  wake(): void {
    this.#woken = true
    this.#wake?.()
  }

  /** Content of mounted ConfigMaps, Secrets or tokens has changed or aged: it is written anew. */
  refreshVolumes(): void {
    if (this.#memory.volumes === 'mounted' && !isEnding(this.#facts([], []))) this.#refreshWanted = true
    this.wake()
  }

  /** Until the pod has left this node, or `signal` aborts; leaves containers as they are then. */
  async run(signal: AbortSignal): Promise<void> {
    await using scope = new Scope(signal)
    scope.signal.addEventListener('abort', () => this.wake(), { once: true })
    try {
      while (!this.#done && !scope.signal.aborted) {
        this.#woken = false
        await this.#turn(scope)
        if (!this.#done) await this.#wait(scope.signal)
      }
    } finally {
      this.#cancelTimer?.()
      this.#exits.stop()
      this.#context.probes.forget(this.uid)
    }
  }

  async #turn(scope: Scope): Promise<void> {
    let facts: PodFacts
    try {
      facts = await this.#observe(scope.signal)
    } catch (error) {
      if (scope.signal.aborted || isAbort(error)) return
      this.#log.warn({ err: error }, 'cannot see what the runtime has of a pod')
      this.#wakeAt(this.#context.clock.now() + failedActionMs)
      return
    }
    if (isEnding(facts)) this.#ending.abort()
    this.#probe(facts)
    const verdicts = this.#context.probes.verdicts(this.uid)
    this.#memory.verdicts = verdicts
    const plan = planPod(facts)
    for (const action of plan.actions) this.#start(action, facts, scope)
    this.#renew(facts, scope)
    this.#publish(facts, scope)
    if (plan.wakeAt !== undefined) this.#wakeAt(plan.wakeAt)
  }

  #facts(sandboxes: readonly SandboxStatus[], containers: readonly ContainerRecord[]): PodFacts {
    const now = this.#context.clock.now()
    return { pod: this.#pod, gone: this.#gone, now, sandboxes, containers, memory: this.#memory }
  }

  async #observe(signal: AbortSignal): Promise<PodFacts> {
    const { runtime } = this.#context
    const [sandboxes, containers] = await Promise.all([
      runtime.listSandboxes(this.uid, signal),
      runtime.listContainers(this.uid, signal),
    ])
    const statuses = await Promise.all(
      sandboxes.map(async (s) => {
        const known = this.#sandboxes.get(s.id)
        if (known?.ready === s.ready) return known
        const status = (await runtime.sandboxStatus(s.id, signal)) ?? { ...s, ips: [] }
        this.#sandboxes.set(s.id, status)
        return status
      }),
    )
    const records = await Promise.all(
      containers.map(async (c) => {
        const ended = this.#ended.get(c.id)
        if (ended !== undefined) return ended
        const status = await runtime.containerStatus(c.id, signal)
        if (status === undefined) return undefined
        const record = { ...status, sandboxId: c.sandboxId }
        if (record.state !== 'exited') return record
        const said = { ...record, message: terminationMessage(record, this.#context.volumes.podDir(this.uid)) }
        this.#ended.set(c.id, said)
        return said
      }),
    )
    const found = records
      .filter((r) => r !== undefined)
      .toSorted((a, b) => b.createdAt - a.createdAt || b.attempt - a.attempt)
    this.#forget(
      sandboxes.map((s) => s.id),
      found.map((r) => r.id),
    )
    const lookAgainAt = this.#exits.follow(found.filter(isLive).map((r) => r.id))
    if (lookAgainAt !== undefined) this.#wakeAt(lookAgainAt)
    this.#adopt(found)
    return this.#facts(
      statuses.toSorted((a, b) => b.createdAt - a.createdAt || b.attempt - a.attempt),
      found,
    )
  }

  #forget(sandboxIds: readonly string[], containerIds: readonly string[]): void {
    for (const id of this.#sandboxes.keys()) if (!sandboxIds.includes(id)) this.#sandboxes.delete(id)
    for (const id of this.#ended.keys()) if (!containerIds.includes(id)) this.#ended.delete(id)
  }

  /** The first look finds what an agent before us left running. */
  #adopt(records: readonly ContainerRecord[]): void {
    if (this.#adopted) return
    this.#adopted = true
    for (const record of records) {
      if (this.#memory.backoffs.has(record.name)) continue
      const backoff = adoptedBackoff(record)
      if (backoff !== undefined) this.#memory.backoffs.set(record.name, backoff)
    }
  }

  #probe(facts: PodFacts): void {
    const { pod, sandboxes, memory } = facts
    const { init, apps } = viewsOf(facts)
    const ip = pod.spec.hostNetwork === true ? this.#context.node().ips[0] : sandboxes[0]?.ips[0]
    const targets = [...init.filter((v) => v.kind === 'sidecar'), ...apps].flatMap(({ spec, record }) => {
      if (record?.state !== 'running' || memory.hooking.has(record.id)) return []
      const told = [...(pod.status?.containerStatuses ?? []), ...(pod.status?.initContainerStatuses ?? [])]
      const same = told.find((s) => s.containerID?.endsWith(`://${record.id}`))
      return [{ container: spec, record, known: same && { ready: same.ready, started: same.started === true } }]
    })
    this.#context.probes.sync(pod, targets, ip ?? '127.0.0.1', isEnding(facts))
  }

  #start(action: Action, facts: PodFacts, scope: Scope): void {
    const memory = this.#memory
    const key = keyOf(action)
    memory.begin(key)
    const work = {
      context: this.#context,
      facts,
      memory,
      log: this.#log,
      ending: this.#ending.signal,
      vanished: (what: 'object' | 'everything') => this.#vanished(what),
    }
    this.#log.debug({ action }, 'pod action')
    scope.start(async (signal) => {
      try {
        await applyAction(action, work, signal)
      } catch (error) {
        if (signal.aborted || isAbort(error)) return
        this.#log.warn({ err: error, action: action.do }, 'a pod action failed')
        // At once again would be a storm: the key stays taken for a moment.
        await delay(failedActionMs, signal, this.#context.clock).catch(() => {})
      } finally {
        memory.finish(key)
        this.wake()
      }
    })
  }

  #vanished(what: 'object' | 'everything'): void {
    this.#gone = true
    if (what === 'everything') this.#done = true
  }

  /** Brings the volumes' content up to date where something asked for it, or where a token ages. */
  #renew(facts: PodFacts, scope: Scope): void {
    const { now, memory } = facts
    if (memory.volumes !== 'mounted' || isEnding(facts)) return
    const due = this.#context.volumes.refreshAt(this.uid)
    if (due !== undefined && due <= now) this.#refreshWanted = true
    const next = this.#refreshWanted ? this.#refreshRetryAt : due
    if (next !== undefined && next > now) this.#wakeAt(next)
    // While the volumes are busy their end wakes us.
    if (this.#refreshWanted && this.#refreshRetryAt <= now && !memory.busy.has('volumes')) this.#refresh(scope)
  }

  #refresh(scope: Scope): void {
    this.#refreshWanted = false
    this.#memory.begin('volumes')
    scope.start(async (signal) => {
      try {
        await this.#context.volumes.mount(this.#pod, signal)
      } catch (error) {
        if (signal.aborted) return
        const message = error instanceof Error ? error.message : String(error)
        this.#context.events.record(this.#pod, { type: 'Warning', reason: 'FailedMount', message })
        this.#refreshWanted = true
        this.#refreshRetryAt = this.#context.clock.now() + refreshRetryMs
      } finally {
        this.#memory.finish('volumes')
        this.wake()
      }
    })
  }

  /** Writes the status where it differs, beside the loop: an API server out of reach must not hold a pod up. */
  #publish(facts: PodFacts, scope: Scope): void {
    if (facts.gone || this.#publishing) return
    const { now, memory } = facts
    const { node, runtimeName } = this.#context
    const wanted = statusOf(facts, { nodeIps: node().ips, runtimeName })
    const atRest = isEnding(facts) && !facts.containers.some(isLive) && !memory.busy.has('start')
    if (sameStatus(facts.pod.status, wanted)) {
      if (atRest && !this.#memory.lastWordWritten) {
        this.#memory.lastWordWritten = true
        this.wake()
      }
      return
    }
    const later = this.#quietUntil(now, memory.busy)
    if (later > now) {
      this.#wakeAt(later)
      return
    }
    for (const note of backOffNotes(facts.pod, wanted)) this.#context.events.record(facts.pod, note)
    this.#publishing = true
    scope.start(async (signal) => {
      try {
        const written = await this.#write(wanted, signal)
        if (atRest && written) this.#memory.lastWordWritten = true
      } finally {
        this.#publishing = false
        this.wake()
      }
    })
  }

  #quietUntil(now: number, busy: ReadonlySet<string>): number {
    if (!busy.has('sandbox') && !busy.has('start')) {
      this.#busySince = undefined
      return this.#statusRetryAt
    }
    this.#busySince ??= now
    return Math.max(this.#statusRetryAt, this.#busySince + quietMs)
  }

  async #write(status: PodStatus, signal: AbortSignal): Promise<boolean> {
    const { client, clock } = this.#context
    const { namespace, name, uid, resourceVersion } = this.#pod.metadata
    const old = this.#pod.status ?? {}
    // A merge patch keeps what it does not name: what has gone from the status is named as null.
    const removed = Object.fromEntries(
      Object.keys(old)
        .filter((k) => !(k in status) && ours.has(k))
        .map((k) => [k, null]),
    )
    try {
      // The version makes conditions of others safe: a list is replaced whole.
      const patch = { metadata: { uid, resourceVersion }, status: { ...removed, ...status } }
      const next = await client.patch(pods, { namespace, name }, 'merge', patch, { subresource: 'status', signal })
      if (isNewer(next, this.#pod)) this.#pod = next
      return true
    } catch (error) {
      if (signal.aborted) return false
      // Nobody is left to read it.
      if (isStatus(error, 'NotFound')) return true
      if (isStatus(error, 'Conflict')) await this.#reread(signal)
      else {
        this.#log.warn({ err: error }, 'cannot write the status of a pod')
        this.#statusRetryAt = clock.now() + statusRetryMs
      }
      return false
    }
  }

  async #reread(signal: AbortSignal): Promise<void> {
    const { namespace, name } = this.#pod.metadata
    try {
      const next = await this.#context.client.get(pods, { namespace, name }, { signal })
      if (next.metadata.uid === this.uid && isNewer(next, this.#pod)) this.#pod = next
    } catch (error) {
      if (signal.aborted || isStatus(error, 'NotFound')) return
      this.#statusRetryAt = this.#context.clock.now() + statusRetryMs
    }
  }

  /** Wakes the loop at `at`, or before: one timer, for the earliest. */
  #wakeAt(at: number): void {
    if (this.#timerAt !== undefined && this.#timerAt <= at) return
    this.#cancelTimer?.()
    this.#timerAt = at
    // A timer of more than 24 days would fire at once; whoever wakes early only looks again.
    const ms = Math.min(Math.max(1, at - this.#context.clock.now()), 86_400_000)
    this.#cancelTimer = this.#context.clock.schedule(ms, () => {
      this.#timerAt = undefined
      this.wake()
    })
  }

  async #wait(signal: AbortSignal): Promise<void> {
    if (this.#woken || signal.aborted) return
    await new Promise<void>((resolve) => {
      this.#wake = resolve
    })
    this.#wake = undefined
  }
}

/** Fields of a status that the kubelet owns; others it leaves alone. */
const ours = new Set([
  'reason',
  'message',
  'podIP',
  'podIPs',
  'hostIP',
  'hostIPs',
  'initContainerStatuses',
  'containerStatuses',
])

/** Whether `a` is a later version of the object than `b`; versions of the API count upwards. */
function isNewer(a: Pod, b: Pod): boolean {
  return BigInt(a.metadata.resourceVersion || '0') > BigInt(b.metadata.resourceVersion || '0')
}
