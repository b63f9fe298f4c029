import type { Deployment, ReplicaSet } from '#api/gen/apps-v1.ts'
import { deployments, replicaSets } from '#api/gen/resources.ts'
import { controllerReference } from '#api/meta/owner.ts'
import { compareText } from '#base/order.ts'
import type { Draft } from '#client/client.ts'
import { sameTemplate, templateHash } from '../workload/template.ts'
import { hashLabel, historyAnnotation, ownAnnotations, revisionAnnotation } from './names.ts'
import { type SetDraft, sizeAnnotations } from './rollout.ts'

/** Revisions: which ReplicaSet is the present template's, which number it has, and which old ones may go. */

/** Characters of history kept on a set: annotations are limited, a roll-back loop is not. */
const historyCharactersMax = 2000

/** Oldest first; of the same second, by name. */
export const byAge = (a: ReplicaSet, b: ReplicaSet): number =>
  compareText(a.metadata.creationTimestamp, b.metadata.creationTimestamp) ||
  compareText(a.metadata.name, b.metadata.name)

/** The set of the present template; the oldest, where a clash of clocks left two. */
export const findNewSet = (deployment: Deployment, byAgeSets: readonly ReplicaSet[]): ReplicaSet | undefined =>
  byAgeSets.find((set) => sameTemplate(set.spec.template, deployment.spec.template, [hashLabel]))

export function revisionOf(annotations: Readonly<Record<string, string>> | undefined): number {
  const text = annotations?.[revisionAnnotation]
  return text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : 0
}

export const nextRevision = (old: readonly SetDraft[]): number =>
  1 + Math.max(0, ...old.map((draft) => revisionOf(draft.annotations)))

/** Notes on the new set what the Deployment says of itself, and its revision; a set rolled back to keeps its old one. */
export function noteRevision(deployment: Deployment, draft: SetDraft, revision: number): void {
  const annotations = { ...draft.annotations, ...inherited(deployment) }
  const own = revisionOf(draft.annotations)
  if (own < revision) {
    annotations[revisionAnnotation] = String(revision)
    const before = draft.annotations[revisionAnnotation]
    if (before !== undefined) annotations[historyAnnotation] = appended(annotations[historyAnnotation], before)
  }
  draft.annotations = annotations
  draft.minReadySeconds = deployment.spec.minReadySeconds ?? 0
}

function appended(history: string | undefined, revision: string): string {
  const entries = history === undefined || history === '' ? [] : history.split(',')
  entries.push(revision)
  while (entries.join(',').length > historyCharactersMax) entries.shift()
  return entries.join(',')
}

const inherited = (deployment: Deployment): Record<string, string> =>
  Object.fromEntries(Object.entries(deployment.metadata.annotations ?? {}).filter(([key]) => !ownAnnotations.has(key)))

/** A ReplicaSet of the present template. */
export function newSet(deployment: Deployment, revision: number, replicas: number): Draft<ReplicaSet> {
  const { name, namespace } = deployment.metadata
  const { template, selector, minReadySeconds = 0 } = deployment.spec
  const hash = templateHash(template, deployment.status?.collisionCount)
  const labels = { ...template.metadata?.labels, [hashLabel]: hash }
  return {
    apiVersion: 'apps/v1',
    kind: replicaSets.kind as 'ReplicaSet',
    metadata: {
      name: `${name}-${hash}`,
      namespace,
      labels,
      annotations: {
        ...inherited(deployment),
        ...sizeAnnotations(deployment),
        [revisionAnnotation]: String(revision),
      },
      ownerReferences: [controllerReference(deployments, deployment)],
    },
    spec: {
      replicas,
      ...(minReadySeconds === 0 ? {} : { minReadySeconds }),
      selector: { ...selector, matchLabels: { ...selector.matchLabels, [hashLabel]: hash } },
      template: { ...template, metadata: { ...template.metadata, labels } },
    },
  }
}

/** Old sets beyond the history limit, oldest revision first; one with pods, or with news not yet acted on, stays. */
export function surplusSets(deployment: Deployment, old: readonly SetDraft[]): ReplicaSet[] {
  const limit = deployment.spec.revisionHistoryLimit
  if (limit === undefined) return []
  const candidates = old.filter(({ set }) => set.metadata.deletionTimestamp === undefined)
  return candidates
    .toSorted((a, b) => revisionOf(a.annotations) - revisionOf(b.annotations) || byAge(a.set, b.set))
    .slice(0, Math.max(0, candidates.length - limit))
    .filter(
      ({ set, replicas }) =>
        replicas === 0 &&
        (set.spec.replicas ?? 1) === 0 &&
        (set.status?.replicas ?? 0) === 0 &&
        (set.metadata.generation ?? 0) <= (set.status?.observedGeneration ?? 0),
    )
    .map(({ set }) => set)
}
