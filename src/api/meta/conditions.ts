/** The fields that conditions of all kinds share. */
export interface ConditionLike {
  type: string
  status: string
  lastTransitionTime?: string
  reason?: string
  message?: string
}

export function findCondition<C extends ConditionLike>(
  conditions: readonly C[] | undefined,
  type: string,
): C | undefined {
  return conditions?.find((condition) => condition.type === type)
}

export function isConditionTrue(conditions: readonly ConditionLike[] | undefined, type: string): boolean {
  return findCondition(conditions, type)?.status === 'True'
}

/**
 * The list with `next` in place of the condition of its type. The transition time moves only when the status does;
 * an unchanged condition gives back the very same list, so that a caller can see there is nothing to write.
 */
export function withCondition<C extends ConditionLike>(
  conditions: readonly C[] | undefined,
  next: C,
  nowText: string,
): readonly C[] {
  const old = findCondition(conditions, next.type)
  const time = old && old.status === next.status ? old.lastTransitionTime : nowText
  const merged: C = { ...next, ...(time === undefined ? {} : { lastTransitionTime: time }) }
  if (old === undefined) return [...(conditions ?? []), merged]
  if (conditions && sameCondition(old, merged)) return conditions
  return (conditions ?? []).map((condition) => (condition.type === next.type ? merged : condition))
}

function sameCondition(a: ConditionLike, b: ConditionLike): boolean {
  const keys = new Set([...Object.keys(a), ...Object.keys(b)])
  for (const key of keys) {
    if ((a as unknown as Record<string, unknown>)[key] !== (b as unknown as Record<string, unknown>)[key]) return false
  }
  return true
}
