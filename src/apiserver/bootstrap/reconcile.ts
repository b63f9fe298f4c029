import type { ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, Subject } from '#api/gen/rbac-v1.ts'
import { beyond } from '../authorize/rules.ts'

/** Pure: what a bootstrap object should become, or undefined when it is right as it is. */

const autoupdate = 'rbac.authorization.kubernetes.io/autoupdate'

interface Labelled {
  readonly metadata: { labels?: Record<string, string>; annotations?: Record<string, string> }
}

/** Somebody who sets the annotation to false has taken the object over. */
const isOurs = ({ metadata }: Labelled): boolean => metadata.annotations?.[autoupdate] !== 'false'

function withLabels<T extends Labelled>(present: T, wanted: T): { next: T; changed: boolean } {
  const labels = { ...present.metadata.labels, ...wanted.metadata.labels }
  const annotations = { ...wanted.metadata.annotations, ...present.metadata.annotations }
  const changed =
    Object.keys(labels).length !== Object.keys(present.metadata.labels ?? {}).length ||
    Object.keys(annotations).length !== Object.keys(present.metadata.annotations ?? {}).length
  return { next: { ...present, metadata: { ...present.metadata, labels, annotations } }, changed }
}

/** Rights that are missing are added; what somebody added is left, as upstream leaves it. */
export function reconcileRole<R extends Role | ClusterRole>(present: R, wanted: R): R | undefined {
  if (!isOurs(present)) return undefined
  const { next, changed } = withLabels(present, wanted)
  const aggregation = 'aggregationRule' in wanted ? wanted.aggregationRule : undefined
  if (aggregation) {
    const same = 'aggregationRule' in present && JSON.stringify(present.aggregationRule) === JSON.stringify(aggregation)
    return same && !changed ? undefined : { ...next, aggregationRule: aggregation }
  }
  const missing: PolicyRule[] = beyond(present.rules ?? [], wanted.rules ?? [])
  if (missing.length === 0 && !changed) return undefined
  return { ...next, rules: [...(present.rules ?? []), ...missing] }
}

/** `replace`: a binding's role cannot change, so the binding is made anew. */
export function reconcileBinding<B extends RoleBinding | ClusterRoleBinding>(
  present: B,
  wanted: B,
): { readonly do: 'nothing' } | { readonly do: 'replace' } | { readonly do: 'write'; readonly next: B } {
  if (!isOurs(present)) return { do: 'nothing' }
  if (present.roleRef.kind !== wanted.roleRef.kind || present.roleRef.name !== wanted.roleRef.name)
    return { do: 'replace' }
  const { next, changed } = withLabels(present, wanted)
  const key = ({ kind, name, namespace = '' }: Subject): string => `${kind}/${namespace}/${name}`
  const have = new Set((present.subjects ?? []).map(key))
  const missing = (wanted.subjects ?? []).filter((s) => !have.has(key(s)))
  if (missing.length === 0 && !changed) return { do: 'nothing' }
  return {
    do: 'write',
    next: missing.length === 0 ? next : { ...next, subjects: [...(present.subjects ?? []), ...missing] },
  }
}
