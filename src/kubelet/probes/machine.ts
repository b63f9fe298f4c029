import type { Probe } from '#api/gen/core-v1.ts'

export interface Thresholds {
  readonly initialDelayMs: number
  readonly periodMs: number
  readonly timeoutMs: number
  readonly successThreshold: number
  readonly failureThreshold: number
}

/** Upstream's defaults, which the API server has usually filled in already. */
export function thresholdsOf(probe: Probe): Thresholds {
  return {
    initialDelayMs: (probe.initialDelaySeconds ?? 0) * 1000,
    periodMs: (probe.periodSeconds || 10) * 1000,
    timeoutMs: (probe.timeoutSeconds || 1) * 1000,
    successThreshold: probe.successThreshold || 1,
    failureThreshold: probe.failureThreshold || 3,
  }
}

/** How often in a row the same answer came, and what is believed because of it. */
export interface ProbeState {
  readonly last: boolean | undefined
  readonly run: number
  readonly result: boolean
}

export const initialProbe = (result: boolean): ProbeState => ({ last: undefined, run: 0, result })

/** The state after one more answer. Pure. The belief changes when the threshold of its side is reached. */
export function stepProbe(
  state: ProbeState,
  ok: boolean,
  { successThreshold, failureThreshold }: Thresholds,
): ProbeState {
  const run = state.last === ok ? state.run + 1 : 1
  const reached = run >= (ok ? successThreshold : failureThreshold)
  return { last: ok, run, result: reached ? ok : state.result }
}
