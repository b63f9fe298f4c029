import type { ControllerRevision, DaemonSet } from '#api/gen/apps-v1.ts'
import type { Pod, PodTemplateSpec } from '#api/gen/core-v1.ts'
import { daemonSets } from '#api/gen/resources.ts'
import { controllerReference } from '#api/meta/owner.ts'
import type { Draft } from '#client/client.ts'
import { canonicalTemplate, sameTemplate, templateHash } from '../workload/template.ts'
import { hashLabel } from './nodes.ts'

/**
 * The templates a DaemonSet has had, as ControllerRevisions. Each holds a strategic merge patch that puts its template
 * back, which is what `kubectl rollout undo` sends.
 */

export interface History {
  /** The present template's revision; undefined before it is written. */
  readonly current: ControllerRevision | undefined
  /** Hashes of all revisions that hold the present template. */
  readonly hashes: ReadonlySet<string>
  readonly old: readonly ControllerRevision[]
  /** The write that makes the history right; undefined when it is. */
  readonly write:
    | { readonly do: 'create'; readonly revision: Draft<ControllerRevision> }
    | { readonly do: 'update'; readonly revision: ControllerRevision }
    | undefined
}

export function planHistory(set: DaemonSet, revisions: readonly ControllerRevision[]): History {
  const matching = revisions.filter((r) => matches(set, r)).toSorted(byRevision)
  const current = matching.at(-1)
  const old = revisions.filter((r) => r !== current).toSorted(byRevision)
  const others = revisions.filter((r) => !matching.includes(r))
  const next = 1 + Math.max(0, ...others.map((r) => r.revision))
  const hashes = new Set(matching.map(hashOf))
  if (current === undefined) return { current, hashes, old, write: { do: 'create', revision: revisionOf(set, next) } }
  const write =
    current.revision < next ? ({ do: 'update', revision: { ...current, revision: next } } as const) : undefined
  return { current, hashes, old, write }
}

const byRevision = (a: ControllerRevision, b: ControllerRevision): number =>
  a.revision - b.revision || (a.metadata.name < b.metadata.name ? -1 : 1)

/** Revisions of others' making carry no hash; then the name is as unique. */
export const hashOf = ({ metadata }: ControllerRevision): string => metadata.labels?.[hashLabel] ?? metadata.name

export function matches(set: DaemonSet, { data }: ControllerRevision): boolean {
  const template = (data as { spec?: { template?: PodTemplateSpec & { $patch?: string } } } | undefined)?.spec?.template
  if (template === undefined) return false
  const { $patch: _, ...bare } = template
  return sameTemplate(bare, set.spec.template)
}

function revisionOf(set: DaemonSet, revision: number): Draft<ControllerRevision> {
  const { template } = set.spec
  const hash = templateHash(template, set.status?.collisionCount)
  const { name, namespace, annotations } = set.metadata
  return {
    apiVersion: 'apps/v1',
    kind: 'ControllerRevision',
    metadata: {
      name: `${name}-${hash}`,
      namespace,
      labels: { ...template.metadata?.labels, [hashLabel]: hash },
      ...(annotations === undefined ? {} : { annotations: { ...annotations } }),
      ownerReferences: [controllerReference(daemonSets, set)],
    },
    data: { spec: { template: { ...JSON.parse(canonicalTemplate(template)), $patch: 'replace' } } },
    revision,
  }
}

/** Revisions beyond the limit, oldest first; one whose pods still run stays. */
export function surplusRevisions(
  set: DaemonSet,
  old: readonly ControllerRevision[],
  pods: readonly Pod[],
): ControllerRevision[] {
  const limit = set.spec.revisionHistoryLimit
  if (limit === undefined) return []
  const live = new Set(pods.map((pod) => pod.metadata.labels?.[hashLabel]))
  return old.filter((r) => !live.has(hashOf(r))).slice(0, Math.max(0, old.length - limit))
}
