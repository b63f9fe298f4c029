import type { Container, Pod } from '#api/gen/core-v1.ts'
import type { ContainerRecord, SandboxStatus } from '../runtime/runtime.ts'

/** What probes say of one container; undefined while they have not said anything. */
export interface ProbeVerdict {
  /** False holds `started`, and with it the other probes, back. True without a startup probe. */
  readonly started: boolean
  /** True without a readiness probe, once started. */
  readonly ready: boolean
  /** Set when a liveness or startup probe asks for the container's end. */
  readonly failed: ProbeFailure | undefined
}

export interface ProbeFailure {
  readonly probe: 'liveness' | 'startup'
  readonly graceSeconds: number | undefined
}

/** Why a container cannot be started: shown as its waiting state until it can. */
export interface Hindrance {
  readonly reason: string
  readonly message: string
  /** Not to be tried again before; ms. */
  readonly retryAt: number
  /** What it is called from then on: `ErrImagePull` becomes `ImagePullBackOff`. */
  readonly later?: { readonly at: number; readonly reason: string; readonly message: string }
}

/** A decision that the pod ends, whatever its containers do: it never becomes undone. */
export interface PodEnd {
  readonly reason: string
  readonly message: string
}

/** Restart back-off of one container (restart.ts). */
export interface RestartBackoff {
  readonly waitMs: number
  /** When it was last raised; ms. */
  readonly at: number
}

/** Everything a plan is made from, and a status: what the API says, what the runtime says, what the loop remembers. */
export interface PodFacts {
  readonly pod: Pod
  /** The object is gone from the API (or was never seen: left over from before): all that is left is cleaning up. */
  readonly gone: boolean
  readonly now: number
  /** Newest first. */
  readonly sandboxes: readonly SandboxStatus[]
  /** Newest first. */
  readonly containers: readonly ContainerRecord[]
  readonly memory: PodMemory
}

export interface PodMemory {
  /** Keys of actions that are being carried out (`keyOf`). */
  readonly busy: ReadonlySet<string>
  /** Container id -> when its grace ends, ms: for stops under way. */
  readonly stopping: ReadonlyMap<string, number>
  readonly volumes: 'none' | 'mounted'
  /** Sandboxes that were stopped by us: a stop is idempotent but not free. */
  readonly stopped: ReadonlySet<string>
  /** Container id -> verdict. */
  readonly verdicts: ReadonlyMap<string, ProbeVerdict>
  /** Containers (ids) whose postStart hook has yet to end well. */
  readonly hooking: ReadonlySet<string>
  readonly backoffs: ReadonlyMap<string, RestartBackoff>
  /** Container name -> what keeps it from starting. */
  readonly hindrances: ReadonlyMap<string, Hindrance>
  /** Not to try a sandbox or the volumes before; ms. */
  readonly sandboxRetryAt: number
  readonly volumesRetryAt: number
  readonly end: PodEnd | undefined
  /** When this agent took the pod on; ms. */
  readonly seenAt: number
  /** The status that says how it all ended is written. */
  readonly lastWordWritten: boolean
}

export type ContainerKind = 'init' | 'sidecar' | 'app'

/** A container of the spec with what has become of it. */
export interface ContainerView {
  readonly spec: Container
  readonly kind: ContainerKind
  /** The newest, and the one before it. */
  readonly record: ContainerRecord | undefined
  readonly previous: ContainerRecord | undefined
}

/** An init container with `restartPolicy: Always` is a sidecar (KEP-753). */
const kindOfInit = (spec: Container): ContainerKind => (spec.restartPolicy === 'Always' ? 'sidecar' : 'init')

export function viewsOf(facts: Pick<PodFacts, 'pod' | 'containers'>): { init: ContainerView[]; apps: ContainerView[] } {
  const view = (spec: Container, kind: ContainerKind): ContainerView => {
    const [record, previous] = facts.containers.filter((c) => c.name === spec.name)
    return { spec, kind, record, previous }
  }
  const { initContainers = [], containers } = facts.pod.spec
  return {
    init: initContainers.map((spec) => view(spec, kindOfInit(spec))),
    apps: containers.map((spec) => view(spec, 'app')),
  }
}

/** Whether the container may still have a process. */
export const isLive = (record: ContainerRecord | undefined): boolean =>
  record !== undefined && (record.state === 'running' || record.state === 'unknown')

/** Running, past its postStart hook and its startup probe. */
export function isStarted(record: ContainerRecord | undefined, memory: PodMemory): boolean {
  if (record?.state !== 'running' || memory.hooking.has(record.id)) return false
  return memory.verdicts.get(record.id)?.started ?? true
}

/** Whether the pod is to end: deleted, gone, or decided. */
export function isEnding({ pod, gone, memory }: Pick<PodFacts, 'pod' | 'gone' | 'memory'>): boolean {
  return gone || pod.metadata.deletionTimestamp !== undefined || memory.end !== undefined
}

/** A pod that the API has as ended stays so, whatever is found of it here. */
export const isTerminal = (pod: Pod): boolean => pod.status?.phase === 'Succeeded' || pod.status?.phase === 'Failed'
