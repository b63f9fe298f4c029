import type { Taint, Toleration } from '../gen/core-v1.ts'

/** Where a pod may run, as scheduler, DaemonSet controller and node lifecycle have to judge it alike: taints. */

/** Without a key any key, without an effect any effect. */
export function tolerates(toleration: Toleration, taint: Taint): boolean {
  const { effect, key, operator, value = '' } = toleration
  if (effect !== undefined && (effect as string) !== '' && effect !== taint.effect) return false
  if (key !== undefined && key !== '' && key !== taint.key) return false
  switch (operator) {
    case 'Exists':
      return true
    case undefined:
    case 'Equal':
      return value === (taint.value ?? '')
    default:
      // Lt and Gt are behind a gate that is off.
      return (operator as string) === '' && value === (taint.value ?? '')
  }
}

export const isTolerated = (taint: Taint, tolerations: readonly Toleration[] | undefined): boolean =>
  tolerations?.some((toleration) => tolerates(toleration, taint)) ?? false

/** The first taint that keeps new pods away and is not tolerated. */
export const untoleratedTaint = (
  taints: readonly Taint[] | undefined,
  tolerations: readonly Toleration[] | undefined,
): Taint | undefined => taints?.find((taint) => taint.effect !== 'PreferNoSchedule' && !isTolerated(taint, tolerations))
