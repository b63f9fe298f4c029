import type { Pod } from '#api/gen/core-v1.ts'
import type { LabelSelector } from '#api/gen/meta-v1.ts'

interface Selecting {
  readonly labelSelector?: LabelSelector
  readonly matchLabelKeys?: readonly string[]
  readonly mismatchLabelKeys?: readonly string[]
}

/** `matchLabelKeys` and `mismatchLabelKeys`: pods whose value of these labels is, or is not, the pod's own. */
export function withLabelsOf(pod: Pod, term: Selecting): LabelSelector | undefined {
  const { labelSelector, matchLabelKeys = [], mismatchLabelKeys = [] } = term
  const by = (operator: string) => (key: string) => {
    const value = pod.metadata.labels?.[key]
    return value === undefined ? [] : [{ key, operator, values: [value] }]
  }
  const added = [...matchLabelKeys.flatMap(by('In')), ...mismatchLabelKeys.flatMap(by('NotIn'))]
  if (labelSelector === undefined || added.length === 0) return labelSelector
  return { ...labelSelector, matchExpressions: [...(labelSelector.matchExpressions ?? []), ...added] }
}
