import type { ContainerState, ContainerStatus } from '#api/gen/core-v1.ts'
import { formatTime } from '#api/meta/time.ts'
import type { ContainerRecord } from '../runtime/runtime.ts'
import { type ContainerView, isEnding, isStarted, isTerminal, type PodFacts } from './facts.ts'
import { restartableAt, runsAgain } from './restart.ts'

export interface StatusContext {
  readonly facts: PodFacts
  readonly runtimeName: string
  readonly initialized: boolean
}

/** One entry of `containerStatuses`, with upstream's reasons and words. Pure. */
export function containerStatus(view: ContainerView, context: StatusContext): ContainerStatus {
  const { spec, record, previous, kind } = view
  const { facts, runtimeName } = context
  const state = stateOf(view, context)
  // A container that waits to run again shows how the run before ended; that is then the newest there is.
  const last = state.waiting !== undefined && record?.state === 'exited' ? record : previous
  const started = isStarted(record, facts.memory)
  const ready =
    kind === 'init'
      ? record?.state === 'exited' && record.exitCode === 0
      : started && (facts.memory.verdicts.get(record?.id ?? '')?.ready ?? true)
  return {
    name: spec.name,
    state,
    lastState: last?.state === 'exited' ? { terminated: terminated(last, runtimeName) } : {},
    ready,
    restartCount: record?.attempt ?? 0,
    image: record?.image || (spec.image ?? ''),
    imageID: record?.imageRef ?? '',
    ...(record === undefined ? {} : { containerID: `${runtimeName}://${record.id}` }),
    started: kind === 'init' ? record?.state === 'running' && started : started,
    ...(spec.resources?.requests === undefined ? {} : { allocatedResources: spec.resources.requests }),
    ...(spec.resources?.requests === undefined && spec.resources?.limits === undefined
      ? {}
      : { resources: spec.resources }),
  }
}

function stateOf(view: ContainerView, context: StatusContext): ContainerState {
  const { spec, record, kind } = view
  const { facts, runtimeName, initialized } = context
  const { memory, now, pod } = facts
  const hindered = memory.hindrances.get(spec.name)
  const hindrance = hindered?.later !== undefined && hindered.later.at <= now ? hindered.later : hindered
  if (record?.state === 'running') return { running: { startedAt: formatTime(record.startedAt) } }
  if (record?.state === 'exited') {
    const ended = { terminated: terminated(record, runtimeName) }
    if (isEnding(facts) || isTerminal(pod) || !runsAgain(spec, pod.spec, record.exitCode, kind)) return ended
    if (kind === 'init' && initialized) return ended
    if (hindrance !== undefined) return { waiting: { reason: hindrance.reason, message: hindrance.message } }
    const backoff = memory.backoffs.get(spec.name)
    if (restartableAt(record, backoff) <= now) return ended
    const { namespace, name, uid } = pod.metadata
    const message = `back-off ${formatWait(backoff?.waitMs ?? 0)} restarting failed container=${spec.name} pod=${name}_${namespace}(${uid})`
    return { waiting: { reason: 'CrashLoopBackOff', message } }
  }
  if (hindrance !== undefined) return { waiting: { reason: hindrance.reason, message: hindrance.message } }
  const waitsForInit = kind === 'app' && !initialized && (pod.spec.initContainers ?? []).length > 0
  return { waiting: { reason: waitsForInit || kind !== 'app' ? 'PodInitializing' : 'ContainerCreating' } }
}

/** Go's way of writing a duration of whole seconds: `10s`, `1m20s`, `5m0s`. */
export function formatWait(ms: number): string {
  const seconds = Math.round(ms / 1000)
  return seconds < 60 ? `${seconds}s` : `${Math.trunc(seconds / 60)}m${seconds % 60}s`
}

function terminated(record: ContainerRecord, runtimeName: string): NonNullable<ContainerState['terminated']> {
  const message = record.message
  return {
    exitCode: record.exitCode,
    reason: record.reason === '' ? (record.exitCode === 0 ? 'Completed' : 'Error') : record.reason,
    ...(message === '' ? {} : { message }),
    ...(record.startedAt > 0 ? { startedAt: formatTime(record.startedAt) } : {}),
    ...(record.finishedAt > 0 ? { finishedAt: formatTime(record.finishedAt) } : {}),
    containerID: `${runtimeName}://${record.id}`,
  }
}
