import { qosClassOf } from '#api/core/pod/qos.ts'
import type { ContainerStatus, Pod, PodCondition, PodStatus } from '#api/gen/core-v1.ts'
import { isConditionTrue, withCondition } from '#api/meta/conditions.ts'
import { formatTime } from '#api/meta/time.ts'
import { containerStatus, type StatusContext } from './container-status.ts'
import { type ContainerView, isEnding, isLive, isTerminal, type PodFacts, viewsOf } from './facts.ts'
import { isInitialized } from './plan.ts'
import { runsAgain } from './restart.ts'

/** What a status says that does not come from the pod: the node's addresses and the runtime's name. */
export interface StatusOptions {
  readonly nodeIps: readonly string[]
  /** `containerd`: the scheme of container ids. */
  readonly runtimeName: string
}

type Phase = NonNullable<PodStatus['phase']>

/** The status of a pod from what is known of it. Pure. Conditions of others, and their times, are kept. */
export function statusOf(facts: PodFacts, { nodeIps, runtimeName }: StatusOptions): PodStatus {
  const { pod, now, memory } = facts
  const views = viewsOf(facts)
  const old = pod.status ?? {}
  const initialized = isInitialized(facts)
  const context: StatusContext = { facts, runtimeName, initialized }
  const initStatuses = views.init.map((v) => containerStatus(v, context))
  const phase = phaseOf(facts, views)
  // As upstream has it: in a pod that is over no container is still on its way.
  const over = (phase === 'Succeeded' || phase === 'Failed') && initialized && !facts.containers.some(isLive)
  const statuses = views.apps
    .map((v) => containerStatus(v, context))
    .map((s) => (over && s.state.terminated === undefined ? lost(s, old.containerStatuses) : s))
  const sandbox = facts.sandboxes.find((s) => s.ready)
  const ips = pod.spec.hostNetwork === true ? nodeIps : (sandbox?.ips ?? [])
  // An ended pod keeps the address it had: its sandbox is gone, who reads the status wants to know what it was.
  const podIps = ips.length > 0 ? ips.map((ip) => ({ ip })) : ending(phase, facts) ? (old.podIPs ?? []) : []
  const podIp = podIps[0]?.ip
  const hostIp = nodeIps[0]
  const conditions = conditionsOf(facts, phase, {
    initStatuses,
    statuses,
    initialized,
    networked: sandbox !== undefined,
  })
  const end = memory.end ?? (old.reason ? { reason: old.reason, message: old.message ?? '' } : undefined)

  return {
    ...(pod.metadata.generation === undefined ? {} : { observedGeneration: pod.metadata.generation }),
    phase,
    conditions: [...conditions],
    ...(end === undefined ? {} : { reason: end.reason, ...(end.message === '' ? {} : { message: end.message }) }),
    ...(old.nominatedNodeName ? { nominatedNodeName: old.nominatedNodeName } : {}),
    ...(hostIp === undefined ? {} : { hostIP: hostIp, hostIPs: nodeIps.map((ip) => ({ ip })) }),
    ...(podIp === undefined ? {} : { podIP: podIp, podIPs: podIps }),
    startTime: old.startTime ?? formatTime(Math.min(memory.seenAt, now)),
    ...(initStatuses.length === 0 ? {} : { initContainerStatuses: initStatuses }),
    containerStatuses: statuses,
    qosClass: old.qosClass ?? qosClassOf(pod.spec),
  }
}

/** A container of an ended pod that the runtime does not have: what was once told of its end stays told. */
function lost(made: ContainerStatus, old: readonly ContainerStatus[] = []): ContainerStatus {
  const told = old.find((s) => s.name === made.name && s.state.terminated !== undefined)
  const message = 'The container could not be located when the pod was terminated'
  return told ?? { ...made, state: { terminated: { exitCode: 137, reason: 'ContainerStatusUnknown', message } } }
}

const ending = (phase: Phase, facts: PodFacts) => phase === 'Succeeded' || phase === 'Failed' || isEnding(facts)

function phaseOf(
  facts: PodFacts,
  { init, apps }: { init: readonly ContainerView[]; apps: readonly ContainerView[] },
): Phase {
  const { pod, memory } = facts
  // Never back: what has ended has ended.
  if (isTerminal(pod)) return pod.status.phase as Phase
  const live = facts.containers.some(isLive) || memory.busy.has('start')
  if (memory.end !== undefined) return live ? (pod.status?.phase ?? 'Pending') : 'Failed'
  const stopping = pod.metadata.deletionTimestamp !== undefined
  const over = ({ record, spec, kind }: ContainerView) =>
    record?.state === 'exited' && (stopping || !runsAgain(spec, pod.spec, record.exitCode, kind))

  const failedInit = init.some((v) => v.kind === 'init' && over(v) && v.record?.exitCode !== 0)
  if (failedInit) return live ? (pod.status?.phase ?? 'Pending') : 'Failed'
  const began = apps.some((v) => v.record !== undefined && v.record.state !== 'created')
  if (!began) return stopping && !live && pod.status?.phase === 'Running' ? 'Failed' : (pod.status?.phase ?? 'Pending')
  if (apps.every(over)) {
    // Sidecars still have to end before the pod has.
    if (live) return 'Running'
    return apps.every((v) => v.record?.exitCode === 0) ? 'Succeeded' : 'Failed'
  }
  // A pod is running once each of its containers has been started once.
  const waiting = apps.some((v) => v.record === undefined || v.record.state === 'created')
  return waiting ? (pod.status?.phase ?? 'Pending') : 'Running'
}

interface Findings {
  readonly initStatuses: readonly ContainerStatus[]
  readonly statuses: readonly ContainerStatus[]
  readonly initialized: boolean
  readonly networked: boolean
}

function conditionsOf(facts: PodFacts, phase: Phase, findings: Findings): readonly PodCondition[] {
  const { pod, now } = facts
  const { statuses, initStatuses, initialized, networked } = findings
  const over = phase === 'Succeeded' || phase === 'Failed'
  const sidecars = viewsOf(facts).init.filter((v) => v.kind === 'sidecar')
  const needed = [...initStatuses.filter((s) => sidecars.some((v) => v.spec.name === s.name)), ...statuses]
  const ended = phase === 'Succeeded' ? 'PodCompleted' : phase === 'Failed' ? 'PodFailed' : undefined
  const unready = needed.filter((s) => !s.ready).map((s) => s.name)
  const incomplete = initStatuses.filter((s) => !s.ready).map((s) => s.name)

  const notReady =
    ended !== undefined
      ? { reason: ended }
      : unready.length > 0
        ? { reason: 'ContainersNotReady', message: `containers with unready status: ${formatNames(unready)}` }
        : undefined
  const gatesShut = (pod.spec.readinessGates ?? [])
    .map((g) => g.conditionType)
    .filter((type) => !isConditionTrue(pod.status?.conditions, type))
  const gated =
    notReady ??
    (gatesShut.length > 0
      ? {
          reason: 'ReadinessGatesNotReady',
          message: gatesShut.map((type) => `${gateState(pod, type)} of pod readiness gate "${type}"`).join(', '),
        }
      : undefined)
  const initializedBad =
    initialized || phase === 'Succeeded'
      ? undefined
      : over
        ? { reason: 'PodFailed' }
        : {
            reason: 'ContainersNotInitialized',
            message: `containers with incomplete status: ${formatNames(incomplete)}`,
          }

  const wanted: readonly (readonly [string, boolean, { reason: string; message?: string } | undefined])[] = [
    ['PodReadyToStartContainers', networked && !over, undefined],
    [
      'Initialized',
      initializedBad === undefined,
      initializedBad ?? (ended === 'PodCompleted' ? { reason: ended } : undefined),
    ],
    ['Ready', gated === undefined, gated],
    ['ContainersReady', notReady === undefined, notReady],
  ]
  const generation = pod.metadata.generation
  let conditions: readonly PodCondition[] = pod.status?.conditions ?? []
  if (!conditions.some((c) => c.type === 'PodScheduled'))
    conditions = withCondition(conditions, { type: 'PodScheduled', status: 'True' }, formatTime(now))
  for (const [type, good, why] of wanted) {
    const condition: PodCondition = {
      type,
      status: good ? 'True' : 'False',
      ...(generation === undefined ? {} : { observedGeneration: generation }),
      ...why,
    }
    conditions = withCondition(conditions, condition, formatTime(now))
  }
  return conditions
}

function gateState(pod: Pod, type: string): string {
  const found = pod.status?.conditions?.find((c) => c.type === type)
  return found === undefined ? 'corresponding condition does not exist' : `the status is "${found.status}"`
}

const formatNames = (names: readonly string[]): string => `[${names.join(' ')}]`

/** Whether writing `next` would change what the API has; times of conditions count only with their status. */
export function sameStatus(a: PodStatus | undefined, b: PodStatus): boolean {
  return canonical(a ?? {}) === canonical(b)
}

/** JSON with sorted keys; null and absent are one. */
function canonical(value: unknown): string {
  return JSON.stringify(value, (_, v: unknown) => {
    if (v === null) return undefined
    if (typeof v !== 'object' || Array.isArray(v)) return v
    return Object.fromEntries(Object.entries(v as object).toSorted(([x], [y]) => (x < y ? -1 : x > y ? 1 : 0)))
  })
}
