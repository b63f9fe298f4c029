import type { Container, Pod, Probe } from '#api/gen/core-v1.ts'
import { aborted, delay } from '#base/async/delay.ts'
import { isAbort, type Scope } from '#base/async/scope.ts'
import type { Clock } from '#base/clock.ts'
import type { EventRecorder } from '#client/events.ts'
import { fieldPathOf } from '../containers/field-path.ts'
import type { ProbeVerdict } from '../pods/facts.ts'
import { type ContainerRecord, detailOf, type Runtime } from '../runtime/runtime.ts'
import { type Answer, type AskOptions, askHttp, connectTcp, portOf } from './ask.ts'
import { askGrpc } from './grpc-health.ts'
import { initialProbe, type ProbeState, stepProbe, thresholdsOf } from './machine.ts'

export interface ProbesOptions {
  readonly runtime: Runtime
  readonly events: Pick<EventRecorder, 'record'>
  readonly clock: Clock
  readonly scope: Scope
}

/** A running container that is to be probed. */
export interface ProbeTarget {
  readonly container: Container
  readonly record: ContainerRecord
  /** What the API already believes of this very container: an agent that has just come up goes on from there. */
  readonly known: { readonly ready: boolean; readonly started: boolean } | undefined
}

type ProbeName = 'startup' | 'liveness' | 'readiness'

interface Follower {
  readonly ended: AbortController
  readonly states: Record<ProbeName, ProbeState | undefined>
  readonly container: Container
  /** Aborted and replaced: wakes the readiness loop when the startup probe has succeeded. */
  readonly started: PromiseWithResolvers<void>
}

/** First tries of a readiness probe that is about to succeed: most servers listen within some milliseconds. */
const eagerFirstMs = 20

/**
 * The probes of this node's containers: a loop per probe, results kept by container id. Whoever listens is told the
 * pod's uid when a belief has changed, and reads it from `verdicts`.
 */
export class Probes {
  readonly #options: ProbesOptions
  readonly #followers = new Map<string, Map<string, Follower>>()
  readonly #listeners = new Set<(podUid: string) => void>()

  constructor(options: ProbesOptions) {
    this.#options = options
  }

  onChange(listener: (podUid: string) => void): void {
    this.#listeners.add(listener)
  }

  /** Container id -> what its probes say; containers without probes are not in it. */
  verdicts(podUid: string): ReadonlyMap<string, ProbeVerdict> {
    const all = this.#followers.get(podUid) ?? new Map<string, Follower>()
    return new Map([...all].map(([id, follower]) => [id, verdictOf(follower)]))
  }

  /** Probes exactly these containers of the pod from now on. An ending pod is only asked whether it is ready. */
  sync(pod: Pod, targets: readonly ProbeTarget[], ip: string, ending: boolean): void {
    const { uid } = pod.metadata
    const followers = this.#followers.get(uid) ?? new Map<string, Follower>()
    this.#followers.set(uid, followers)
    for (const [id, follower] of followers) {
      if (targets.some((t) => t.record.id === id)) continue
      follower.ended.abort()
      followers.delete(id)
    }
    if (ending) return
    for (const target of targets) {
      const { livenessProbe, readinessProbe, startupProbe } = target.container
      if (!livenessProbe && !readinessProbe && !startupProbe) continue
      if (!followers.has(target.record.id)) followers.set(target.record.id, this.#follow(pod, target, ip))
    }
  }

  forget(podUid: string): void {
    for (const follower of this.#followers.get(podUid)?.values() ?? []) follower.ended.abort()
    this.#followers.delete(podUid)
  }

  #follow(pod: Pod, { container, record, known }: ProbeTarget, ip: string): Follower {
    const { livenessProbe, readinessProbe, startupProbe } = container
    const follower: Follower = {
      ended: new AbortController(),
      container,
      started: Promise.withResolvers<void>(),
      states: {
        startup: startupProbe && initialProbe(known?.started ?? false),
        liveness: livenessProbe && initialProbe(true),
        readiness: readinessProbe && initialProbe(known?.ready ?? false),
      },
    }
    if (follower.states.startup?.result !== false) follower.started.resolve()
    const begin = (name: ProbeName, probe: Probe | undefined) => {
      if (probe === undefined || (name === 'startup' && follower.states.startup?.result === true)) return
      this.#options.scope.start(async (signal) => {
        const both = AbortSignal.any([signal, follower.ended.signal])
        try {
          await this.#loop(name, probe, pod, follower, record, ip, both)
        } catch (error) {
          if (!both.aborted && !isAbort(error)) throw error
        }
      })
    }
    begin('startup', startupProbe)
    begin('liveness', livenessProbe)
    begin('readiness', readinessProbe)
    return follower
  }

  async #loop(
    name: ProbeName,
    probe: Probe,
    pod: Pod,
    follower: Follower,
    record: ContainerRecord,
    ip: string,
    signal: AbortSignal,
  ): Promise<void> {
    const { clock, events } = this.#options
    const thresholds = thresholdsOf(probe)
    if (name !== 'startup') await Promise.race([follower.started.promise, aborted(signal)])
    signal.throwIfAborted()
    const wait = record.startedAt + thresholds.initialDelayMs - clock.now()
    if (wait > 0) await delay(wait, signal, clock)
    if (name === 'readiness' && !probe.exec) await this.#eager(probe, follower, record, ip, signal)

    for (;;) {
      const before = verdictOf(follower)
      const answer = await this.#ask(probe, follower.container, record, ip, { timeoutMs: thresholds.timeoutMs, signal })
      if (signal.aborted) return
      const state = stepProbe(follower.states[name] ?? initialProbe(false), answer.ok, thresholds)
      follower.states[name] = state
      if (!answer.ok) {
        const title = `${name[0]?.toUpperCase()}${name.slice(1)}`
        const message = `${title} probe failed: ${answer.message}`
        const fieldPath = fieldPathOf(pod, follower.container)
        events.record(pod, { type: 'Warning', reason: 'Unhealthy', message, fieldPath })
      }
      if (name === 'startup' && state.result) follower.started.resolve()
      this.#tell(pod.metadata.uid, before, verdictOf(follower))
      // What has started has started; what is to be killed is asked no more.
      if (name === 'startup' && state.result) return
      if (verdictOf(follower).failed !== undefined) return
      await delay(thresholds.periodMs, signal, clock)
    }
  }

  /** Within the first period, tries that fail do not count and are not told; the first that succeeds ends it. */
  async #eager(
    probe: Probe,
    follower: Follower,
    record: ContainerRecord,
    ip: string,
    signal: AbortSignal,
  ): Promise<void> {
    const { clock } = this.#options
    const { periodMs, timeoutMs } = thresholdsOf(probe)
    const end = clock.now() + periodMs
    if (follower.states.readiness?.result === true) return
    for (let wait = eagerFirstMs; clock.now() + wait < end; wait *= 2) {
      const answer = await this.#ask(probe, follower.container, record, ip, { timeoutMs, signal })
      if (answer.ok || signal.aborted) return
      await delay(wait, signal, clock)
    }
  }

  #tell(podUid: string, before: ProbeVerdict, after: ProbeVerdict): void {
    const same =
      before.ready === after.ready &&
      before.started === after.started &&
      (before.failed === undefined) === (after.failed === undefined)
    if (!same) for (const listener of this.#listeners) listener(podUid)
  }

  async #ask(
    probe: Probe,
    container: Container,
    { id }: ContainerRecord,
    ip: string,
    options: AskOptions,
  ): Promise<Answer> {
    try {
      if (probe.exec) return await this.#exec(id, probe.exec.command ?? [], options)
      if (probe.httpGet) return await askHttp(probe.httpGet, container, ip, options)
      if (probe.tcpSocket)
        return await connectTcp(probe.tcpSocket.host || ip, portOf(probe.tcpSocket.port, container), options)
      if (probe.grpc) return await askGrpc(ip, probe.grpc.port, probe.grpc.service ?? '', options)
      return { ok: false, message: 'the probe has no action' }
    } catch (error) {
      return { ok: false, message: error instanceof Error ? error.message : String(error) }
    }
  }

  async #exec(id: string, command: readonly string[], { timeoutMs, signal }: AskOptions): Promise<Answer> {
    try {
      const { exitCode, stdout, stderr } = await this.#options.runtime.execSync(id, command, timeoutMs / 1000, signal)
      return { ok: exitCode === 0, message: Buffer.concat([stdout, stderr]).toString('utf8').slice(0, 1024) }
    } catch (error) {
      return { ok: false, message: `command timed out: ${detailOf(error)}` }
    }
  }
}

function verdictOf({ states, container }: Follower): ProbeVerdict {
  const { startup, liveness, readiness } = states
  const started = startup?.result ?? true
  const ready = started && (readiness?.result ?? true)
  const failedStartup = startup !== undefined && !startup.result && isExhausted(startup, container.startupProbe)
  if (failedStartup)
    return { started, ready, failed: { probe: 'startup', graceSeconds: graceOf(container.startupProbe) } }
  if (liveness !== undefined && !liveness.result)
    return { started, ready, failed: { probe: 'liveness', graceSeconds: graceOf(container.livenessProbe) } }
  return { started, ready, failed: undefined }
}

const graceOf = (probe: Probe | undefined): number | undefined => probe?.terminationGracePeriodSeconds

/** A startup probe begins as failed; only its threshold makes it a reason to end the container. */
const isExhausted = (state: ProbeState, probe: Probe | undefined): boolean =>
  probe !== undefined && state.last === false && state.run >= thresholdsOf(probe).failureThreshold
