import type { Condition } from '#api/gen/meta-v1.ts'
import { withCondition } from '#api/meta/conditions.ts'

/** A condition before it is written: what was found, without time and generation. */
export interface Verdict {
  readonly type: string
  readonly status: 'True' | 'False'
  readonly reason: string
  readonly message: string
}

export const isTrue = (type: string, reason: string, message = ''): Verdict => ({
  type,
  status: 'True',
  reason,
  message,
})
export const isFalse = (type: string, reason: string, message: string): Verdict => ({
  type,
  status: 'False',
  reason,
  message,
})

/**
 * The conditions that say `verdicts` of generation `generation`: a transition time moves only where the status does.
 * Types that are not among the verdicts go, so that nothing stays that is no longer so.
 */
export function conditionsOf(
  verdicts: readonly Verdict[],
  generation: number,
  old: readonly Condition[] | undefined,
  nowText: string,
): Condition[] {
  return verdicts.map((verdict) => {
    const next: Condition = { ...verdict, observedGeneration: generation, lastTransitionTime: nowText }
    const present = old?.filter(({ type }) => type === verdict.type)
    return withCondition(present, next, nowText).at(-1) ?? next
  })
}
