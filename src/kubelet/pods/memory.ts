import type { Hindrance, PodEnd, PodMemory, ProbeVerdict, RestartBackoff } from './facts.ts'

/** What a pod's loop remembers between two looks; the plan sees it as `PodMemory`, read-only. */
export class Memory implements PodMemory {
  /** Key -> how many are under way: a stop may be followed by a shorter one. */
  readonly busyCounts = new Map<string, number>()
  readonly stopping = new Map<string, number>()
  readonly stopped = new Set<string>()
  readonly hooking = new Set<string>()
  readonly backoffs = new Map<string, RestartBackoff>()
  readonly hindrances = new Map<string, Hindrance>()
  /** Image -> pulls that failed in a row. */
  readonly pullFailures = new Map<string, number>()
  /** Containers (ids) whose preStop hook has been run. */
  readonly preStopped = new Set<string>()
  verdicts: ReadonlyMap<string, ProbeVerdict> = new Map()
  volumes: 'none' | 'mounted' = 'none'
  sandboxRetryAt = 0
  sandboxFailures = 0
  volumesRetryAt = 0
  volumesFailures = 0
  end: PodEnd | undefined
  lastWordWritten = false
  readonly seenAt: number

  constructor(seenAt: number) {
    this.seenAt = seenAt
  }

  get busy(): ReadonlySet<string> {
    return new Set(this.busyCounts.keys())
  }

  begin(key: string): void {
    this.busyCounts.set(key, (this.busyCounts.get(key) ?? 0) + 1)
  }

  finish(key: string): void {
    const left = (this.busyCounts.get(key) ?? 1) - 1
    if (left === 0) this.busyCounts.delete(key)
    else this.busyCounts.set(key, left)
  }
}
