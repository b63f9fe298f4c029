import type { PodSpec } from '#api/gen/core-v1.ts'
import { parseTime } from '#api/meta/time.ts'
import { annotations, containerHash } from '../containers/container-config.ts'
import type { ContainerRecord, SandboxStatus } from '../runtime/runtime.ts'
import {
  type ContainerView,
  isEnding,
  isLive,
  isStarted,
  isTerminal,
  type PodEnd,
  type PodFacts,
  viewsOf,
} from './facts.ts'
import { restartableAt, runsAgain } from './restart.ts'

/** One thing to do for a pod. Each is safe to be done again after a crash in the middle of it. */
export type Action =
  | { readonly do: 'mount-volumes' }
  | { readonly do: 'unmount-volumes' }
  /** Stops the sandboxes before it first: a pod has one address. */
  | { readonly do: 'create-sandbox'; readonly attempt: number; readonly stopFirst: readonly string[] }
  | { readonly do: 'stop-sandbox'; readonly id: string }
  /** Stops it too, and removes its containers. */
  | { readonly do: 'remove-sandbox'; readonly id: string }
  | {
      readonly do: 'start-container'
      readonly name: string
      readonly attempt: number
      readonly sandboxId: string
      /** The run before, whose end raises the back-off. */
      readonly after: string | undefined
    }
  | {
      readonly do: 'stop-container'
      readonly id: string
      readonly name: string
      readonly graceSeconds: number
      readonly why: string
    }
  | { readonly do: 'remove-container'; readonly id: string }
  | { readonly do: 'end-pod'; readonly end: PodEnd }
  /** Files and cgroup of the pod; nothing of it is left on the node then. */
  | { readonly do: 'clean-up' }
  /** The last word to the API: delete with grace 0, this uid only. */
  | { readonly do: 'delete-object' }

export interface Plan {
  readonly actions: readonly Action[]
  /** When to plan again even though nothing has happened; ms. */
  readonly wakeAt: number | undefined
}

/** What must not be done twice at a time has one key. */
export function keyOf(action: Action): string {
  switch (action.do) {
    case 'mount-volumes':
    case 'unmount-volumes':
      return 'volumes'
    case 'create-sandbox':
    case 'stop-sandbox':
    case 'remove-sandbox':
      return 'sandbox'
    case 'start-container':
      return 'start'
    case 'stop-container':
      return `stop ${action.id}`
    case 'remove-container':
      return `remove ${action.id}`
    case 'end-pod':
      return 'end'
    case 'clean-up':
    case 'delete-object':
      return 'farewell'
    default:
      throw new Error(`Cannot name the action ${JSON.stringify(action satisfies never)}`)
  }
}

/** Upstream's least grace: a process that is killed at once cannot even flush its logs. */
const graceSecondsMin = 2
export const graceSecondsDefault = 30

/** What to do next for a pod. Pure: the same facts give the same plan, and a plan done twice changes nothing. */
export function planPod(facts: PodFacts): Plan {
  const draft = isEnding(facts) ? planEnd(facts) : planRun(facts)
  const { busy } = facts.memory
  const taken = new Set<string>()
  const actions = draft.actions.filter((action) => {
    const key = keyOf(action)
    if (taken.has(key)) return false
    taken.add(key)
    return !busy.has(key) || action.do === 'stop-container'
  })
  return { ...draft, actions }
}

const earliest = (...times: readonly (number | undefined)[]): number | undefined => {
  const known = times.filter((t) => t !== undefined)
  return known.length === 0 ? undefined : Math.min(...known)
}

function planRun(facts: PodFacts): Plan {
  const { pod, now, memory } = facts
  const views = viewsOf(facts)
  const deadline = deadlineOf(facts)
  if (deadline !== undefined && now >= deadline) {
    const end = { reason: 'DeadlineExceeded', message: 'Pod was active on the node longer than the specified deadline' }
    return { actions: [{ do: 'end-pod', end }], wakeAt: undefined }
  }

  const actions: Action[] = []
  const [sandbox] = facts.sandboxes
  const wants = isTerminal(pod) ? 'done' : wantedContainers(facts, views, sandbox)
  if (wants === 'done') return planRest(facts)

  if (memory.volumes === 'none' && now >= memory.volumesRetryAt) actions.push({ do: 'mount-volumes' })
  if (sandbox === undefined || !sandbox.ready) {
    return planSandbox(facts, actions, deadline)
  }
  actions.push(...leftovers(facts, sandbox))
  // A run that lives beside a newer one of its name (an agent died between two steps), or that the spec has no name for.
  const newest = new Set([...views.init, ...views.apps].map((v) => v.record?.id))
  const stray = facts.containers.filter((c) => isLive(c) && !newest.has(c.id))
  actions.push(...stopAll(stray, facts, graceOf(pod.spec), 'Stopping container'))
  const waits: (number | undefined)[] = [deadline]
  if (memory.volumes === 'none') waits.push(memory.volumesRetryAt > now ? memory.volumesRetryAt : undefined)

  for (const { spec, record } of [...views.init, ...views.apps]) {
    if (record === undefined || !isLive(record) || memory.stopping.has(record.id)) continue
    // The runtime died while it made it, and does not know what became of it: that has to be settled first.
    if (record.state === 'unknown') {
      const why = `Container ${spec.name} is in an unknown state, will be restarted`
      actions.push({ do: 'stop-container', id: record.id, name: spec.name, graceSeconds: graceOf(pod.spec), why })
      continue
    }
    const hash = record.annotations[annotations.hash]
    if (hash !== undefined && hash !== containerHash(spec)) {
      const why = `Container ${spec.name} definition changed, will be restarted`
      actions.push({ do: 'stop-container', id: record.id, name: spec.name, graceSeconds: graceOf(pod.spec), why })
      continue
    }
    const failed = memory.verdicts.get(record.id)?.failed
    if (failed === undefined) continue
    const grace = failed.graceSeconds ?? graceOf(pod.spec)
    const why = `Container ${spec.name} failed ${failed.probe} probe, will be restarted`
    actions.push({ do: 'stop-container', id: record.id, name: spec.name, graceSeconds: Math.max(grace, 1), why })
  }

  for (const view of wants) {
    if (stray.some((c) => c.name === view.spec.name)) continue
    const ready = startableAt(view, facts)
    if (ready > now) {
      const renamed = memory.hindrances.get(view.spec.name)?.later?.at ?? 0
      waits.push(renamed > now ? Math.min(renamed, ready) : ready)
      continue
    }
    if (memory.volumes === 'none') continue
    // Made but never started: the agent died in between. Its name is taken until it is removed.
    if (view.record?.state === 'created') {
      if (!memory.busy.has('start')) actions.push({ do: 'remove-container', id: view.record.id })
      continue
    }
    const attempt = view.record === undefined ? 0 : view.record.attempt + 1
    const after = view.record?.id
    actions.push({ do: 'start-container', name: view.spec.name, attempt, sandboxId: sandbox.id, after })
  }
  return { actions, wakeAt: earliest(...waits) }
}

/** When the container that is wanted may be started: after its back-off, and what hinders it. */
function startableAt({ spec, record }: ContainerView, { memory }: PodFacts): number {
  const hindered = memory.hindrances.get(spec.name)?.retryAt ?? 0
  if (record === undefined || record.state !== 'exited') return hindered
  return Math.max(hindered, restartableAt(record, memory.backoffs.get(spec.name)))
}

/**
 * The containers that should be started now, in order; `done` when the pod has nothing left to run.
 * Init containers one after the other, each when the one before has succeeded (a sidecar: has started).
 */
function wantedContainers(
  { pod: { spec }, memory }: PodFacts,
  { init, apps }: { readonly init: readonly ContainerView[]; readonly apps: readonly ContainerView[] },
  sandbox: SandboxStatus | undefined,
): ContainerView[] | 'done' {
  const inSandbox = (record: ContainerRecord | undefined) => record !== undefined && record.sandboxId === sandbox?.id
  const over = ({ record, spec: container, kind }: ContainerView) =>
    record?.state === 'exited' && !runsAgain(container, spec, record.exitCode, kind)
  // Sidecars do not keep a pod alive.
  if (apps.every(over)) return 'done'

  const wanted: ContainerView[] = []
  const appsBegan = apps.some((v) => inSandbox(v.record))
  for (const view of init) {
    const { record, kind } = view
    if (kind === 'sidecar') {
      if (!isLive(record) || !inSandbox(record)) wanted.push(view)
      if (!appsBegan && !(inSandbox(record) && isStarted(record, memory))) return wanted
      continue
    }
    if (appsBegan) continue
    if (inSandbox(record) && record?.state === 'exited' && record.exitCode === 0) continue
    if (over(view) && record?.exitCode !== 0) return 'done'
    return isLive(record) && inSandbox(record) ? wanted : [...wanted, view]
  }
  for (const view of apps) {
    const alive = isLive(view.record) && inSandbox(view.record)
    if (!alive && !over(view)) wanted.push(view)
  }
  return wanted
}

function planSandbox(facts: PodFacts, actions: Action[], deadline: number | undefined): Plan {
  const { sandboxes, containers, now, memory, pod } = facts
  // Containers of a sandbox that broke can live on in it; they must not meet their successors.
  const live = containers.filter(isLive)
  if (live.length > 0) {
    actions.push(...stopAll(live, facts, graceOf(pod.spec), 'Pod sandbox changed, stopping container'))
    return { actions, wakeAt: deadline }
  }
  // One without containers is only in the way: half made, or left by a crash. Its name stays taken until it is removed.
  const empty = sandboxes.find((s) => !s.ready && !containers.some((c) => c.sandboxId === s.id))
  if (empty !== undefined) return { actions: [...actions, { do: 'remove-sandbox', id: empty.id }], wakeAt: deadline }
  if (now < memory.sandboxRetryAt) return { actions, wakeAt: earliest(deadline, memory.sandboxRetryAt) }
  const attempt = sandboxes.length === 0 ? 0 : Math.max(...sandboxes.map((s) => s.attempt)) + 1
  const stopFirst = sandboxes.filter((s) => !memory.stopped.has(s.id)).map((s) => s.id)
  return { actions: [...actions, { do: 'create-sandbox', attempt, stopFirst }], wakeAt: deadline }
}

/** Old sandboxes that nothing is kept in, and runs older than the last but one: logs --previous shows that one. */
function leftovers({ sandboxes, containers, memory }: PodFacts, current: SandboxStatus): Action[] {
  const actions: Action[] = []
  const kept = new Set<string>()
  for (const name of new Set(containers.map((c) => c.name))) {
    const runs = containers.filter((c) => c.name === name)
    for (const run of runs.slice(0, 2)) kept.add(run.id)
    for (const run of runs.slice(2)) if (run.state === 'exited') actions.push({ do: 'remove-container', id: run.id })
  }
  for (const old of sandboxes) {
    if (old.id === current.id) continue
    if (!containers.some((c) => c.sandboxId === old.id && kept.has(c.id)))
      actions.push({ do: 'remove-sandbox', id: old.id })
    else if (!memory.stopped.has(old.id)) actions.push({ do: 'stop-sandbox', id: old.id })
  }
  return actions
}

/** All that was to run has run: sidecars end, the sandbox and the volumes are given back; logs stay. */
function planRest(facts: PodFacts): Plan {
  const actions = wind(facts, graceOf(facts.pod.spec), 'Stopping container')
  return { actions, wakeAt: undefined }
}

function planEnd(facts: PodFacts): Plan {
  const { pod, gone, memory, containers, sandboxes } = facts
  const requested = gone ? graceSecondsMin : (pod.metadata.deletionGracePeriodSeconds ?? graceOf(pod.spec))
  const actions = wind(facts, Math.max(graceSecondsMin, requested), 'Stopping container')
  if (actions.length > 0 || memory.busy.size > 0) return { actions, wakeAt: undefined }

  const deleted = gone || pod.metadata.deletionTimestamp !== undefined
  if (!deleted) return { actions: [], wakeAt: undefined }
  // The status with every exit code comes before the object's end, so that whoever watches sees how it ended.
  if (!gone && !memory.lastWordWritten) return { actions: [], wakeAt: undefined }
  const [left] = sandboxes
  if (left !== undefined) return { actions: [{ do: 'remove-sandbox', id: left.id }], wakeAt: undefined }
  if (containers.length > 0) {
    return { actions: containers.map((c) => ({ do: 'remove-container', id: c.id })), wakeAt: undefined }
  }
  return { actions: [gone ? { do: 'clean-up' } : { do: 'delete-object' }], wakeAt: undefined }
}

/** Ends what lives, in order; then the sandbox, then the volumes. Empty when all is at rest. */
function wind(facts: PodFacts, graceSeconds: number, why: string): Action[] {
  const { memory, sandboxes, pod } = facts
  const live = facts.containers.filter(isLive)
  if (live.length > 0) {
    const views = viewsOf(facts)
    const sidecars = views.init.filter((v) => v.kind === 'sidecar').map((v) => v.spec.name)
    const mains = live.filter((c) => !sidecars.includes(c.name))
    if (mains.length > 0) return stopAll(mains, facts, graceSeconds, why)
    // Sidecars leave in the reverse of the order in which they came.
    const next = sidecars.toReversed().flatMap((name) => live.filter((c) => c.name === name))[0]
    return stopAll(next === undefined ? live : [next], facts, graceSeconds, why)
  }
  // A start under way may yet bring a container to life; what it makes is seen when it has ended.
  if (memory.busy.has('start')) return []
  const standing = sandboxes.find((s) => !memory.stopped.has(s.id))
  if (standing !== undefined) return [{ do: 'stop-sandbox', id: standing.id }]
  if (memory.volumes === 'mounted' && (pod.spec.volumes ?? []).length > 0) return [{ do: 'unmount-volumes' }]
  return []
}

/** Stops that are not under way, or whose grace has become shorter (`kubectl delete --now` after `kubectl delete`). */
function stopAll(
  live: readonly ContainerRecord[],
  { memory, now }: PodFacts,
  graceSeconds: number,
  why: string,
): Action[] {
  return live.flatMap((c): Action[] => {
    const until = memory.stopping.get(c.id)
    if (until !== undefined && until <= now + graceSeconds * 1000) return []
    return [{ do: 'stop-container', id: c.id, name: c.name, graceSeconds, why: `${why} ${c.name}` }]
  })
}

const graceOf = (spec: PodSpec): number => spec.terminationGracePeriodSeconds ?? graceSecondsDefault

/** When activeDeadlineSeconds is over; counted from the start time that the status has, or from when we saw it. */
function deadlineOf({ pod, memory }: PodFacts): number | undefined {
  const seconds = pod.spec.activeDeadlineSeconds
  if (seconds === undefined) return undefined
  return (parseTime(pod.status?.startTime) ?? memory.seenAt) + seconds * 1000
}

/** For status: whether every init container has done its part. */
export function isInitialized(facts: PodFacts): boolean {
  const { init, apps } = viewsOf(facts)
  if (apps.some((v) => v.record !== undefined && v.record.state !== 'created')) return true
  return init.every(({ kind, record }) =>
    kind === 'sidecar' ? isStarted(record, facts.memory) : record?.state === 'exited' && record.exitCode === 0,
  )
}
