import type { Container, ContainerStatus, Pod } from '../../gen/core-v1.ts'
import type { Column } from '../../kind.ts'
import { ageColumn, column, nameColumn, wideColumn } from '../../meta/columns.ts'
import { isConditionTrue } from '../../meta/conditions.ts'
import { age } from '../../meta/time.ts'

/** How `kubectl get pods` tells what a pod is doing (kk:pkg/printers/internalversion printPod). */
export interface PodSummary {
  readonly ready: number
  readonly total: number
  readonly reason: string
  readonly restarts: number
  /** When the newest of those restarts began. */
  readonly lastRestart: string | undefined
}

export function summarizePod(pod: Pod): PodSummary {
  const { status } = pod
  const initContainers = pod.spec.initContainers ?? []
  const sidecars = new Set(initContainers.filter(isSidecar).map(({ name }) => name))
  let ready = 0
  let restarts = 0
  let sidecarRestarts = 0
  let lastRestart: string | undefined
  let lastSidecarRestart: string | undefined
  let reason = status.reason || status.phase || ''
  if (status.conditions?.some((c) => c.type === 'PodScheduled' && c.reason === 'SchedulingGated')) {
    reason = 'SchedulingGated'
  }

  let isInitializing = false
  for (const [i, container] of (status.initContainerStatuses ?? []).entries()) {
    const isOwnSidecar = sidecars.has(container.name)
    restarts += container.restartCount
    lastRestart = later(lastRestart, container)
    if (isOwnSidecar) {
      sidecarRestarts += container.restartCount
      lastSidecarRestart = later(lastSidecarRestart, container)
    }
    const { terminated, waiting } = container.state ?? {}
    if (terminated?.exitCode === 0) continue
    if (isOwnSidecar && container.started) {
      if (container.ready) ready++
      continue
    }
    isInitializing = true
    if (terminated) reason = `Init:${terminated.reason || exitReason(terminated)}`
    else if (waiting?.reason && waiting.reason !== 'PodInitializing') reason = `Init:${waiting.reason}`
    else reason = `Init:${i}/${initContainers.length}`
    break
  }

  if (!isInitializing || isConditionTrue(status.conditions, 'Initialized')) {
    restarts = sidecarRestarts
    lastRestart = lastSidecarRestart
    let hasRunning = false
    for (const container of (status.containerStatuses ?? []).toReversed()) {
      restarts += container.restartCount
      lastRestart = later(lastRestart, container)
      const { terminated, waiting, running } = container.state ?? {}
      if (waiting?.reason) reason = waiting.reason
      else if (terminated) reason = terminated.reason || exitReason(terminated)
      else if (container.ready && running) {
        hasRunning = true
        ready++
      }
    }
    if (reason === 'Completed' && hasRunning) {
      reason = isConditionTrue(status.conditions, 'Ready') ? 'Running' : 'NotReady'
    }
  }
  const isTerminal = status.phase === 'Failed' || status.phase === 'Succeeded'
  if (pod.metadata.deletionTimestamp !== undefined) {
    if (status.reason === 'NodeLost') reason = 'Unknown'
    else if (!isTerminal) reason = 'Terminating'
  }
  return { ready, total: (pod.spec.containers ?? []).length + sidecars.size, reason, restarts, lastRestart }
}

const isSidecar = (container: Container): boolean => container.restartPolicy === 'Always'

const exitReason = ({ signal, exitCode }: { signal?: number; exitCode: number }): string =>
  signal ? `Signal:${signal}` : `ExitCode:${exitCode}`

function later(time: string | undefined, container: ContainerStatus): string | undefined {
  const finished = container.lastState?.terminated?.finishedAt
  return finished !== undefined && (time === undefined || finished > time) ? finished : time
}

// The cells of a row are asked one after the other: the pod is summarised once for all of them.
let lastPod: Pod | undefined
let lastSummary: PodSummary | undefined

function summary(pod: Pod): PodSummary {
  if (lastPod !== pod || lastSummary === undefined) {
    lastPod = pod
    lastSummary = summarizePod(pod)
  }
  return lastSummary
}

export const podColumns: readonly Column<Pod>[] = [
  nameColumn,
  column('Ready', 'Containers that are ready, of all that should be.', (pod) => {
    const { ready, total } = summary(pod)
    return `${ready}/${total}`
  }),
  column('Status', 'What the pod is doing, or why it is not.', (pod) => summary(pod).reason),
  column('Restarts', 'How often its containers were restarted, and when last.', (pod, now) => {
    const { restarts, lastRestart } = summary(pod)
    return restarts !== 0 && lastRestart !== undefined ? `${restarts} (${age(lastRestart, now)} ago)` : `${restarts}`
  }),
  ageColumn,
  wideColumn('IP', 'First address of the pod.', ({ status }) => status.podIPs?.[0]?.ip || status.podIP || '<none>'),
  wideColumn('Node', 'The node it was scheduled to.', (pod) => pod.spec.nodeName || '<none>'),
  wideColumn(
    'Nominated Node',
    'The node on which room is being made for it.',
    (pod) => pod.status.nominatedNodeName || '<none>',
  ),
  wideColumn('Readiness Gates', 'Gates that are open, of all that it has.', ({ spec, status }) => {
    const gates = spec.readinessGates ?? []
    if (gates.length === 0) return '<none>'
    const open = gates.filter(({ conditionType }) => isConditionTrue(status.conditions, conditionType))
    return `${open.length}/${gates.length}`
  }),
]
