import type { Labels } from '#api/meta/labels.ts'
import type { Selector } from '#api/meta/selector.ts'
import type { NodeInfo, PodInfo, Snapshot } from './snapshot.ts'

/** A selector with a text that stands for it. */
export interface NamedSelector {
  readonly id: string
  readonly selector: Selector
}

/** What a plugin may know of the cluster beyond the snapshot. */
export interface PlanContext {
  readonly snapshot: Snapshot
  /** Selectors of the Services and of the controller that a pod belongs to, merged; undefined when there is none. */
  defaultSelector(info: PodInfo): NamedSelector | undefined
  /** The labels of a namespace, for affinity terms that select namespaces. */
  labelsOfNamespace(name: string): Labels | undefined
  /** The names of the namespaces that a selector takes in. */
  namespacesBy(selector: Selector): readonly string[]
}

/** Why a node will not do: upstream's words, which tools parse. */
export type Verdict = readonly string[] | undefined

/** One placement of one pod, from a plugin's point of view: what it computed once, and its judgement of each node. */
export interface Judge {
  /** Reasons against the node; undefined when there are none. */
  filter?(node: NodeInfo): Verdict
  /** Computed over the nodes that passed; the higher the better, 0 to 100 after `normalize`. */
  score?(node: NodeInfo): number
  /** Called with the nodes that passed, before `score`. */
  prepareScores?(nodes: readonly NodeInfo[]): void
  /** Brings scores (in the order of the nodes given to `prepareScores`) to 0..100, in place. */
  normalize?(scores: number[]): void
}

/** A refusal that has nothing to do with any one node. */
export interface Refusal {
  readonly refuses: string
}

/** A rule of placement, named as upstream names it. */
export interface Plugin {
  readonly name: string
  readonly weight: number
  /** Undefined: the plugin has nothing to say about this pod. */
  judge(info: PodInfo, context: PlanContext): Judge | Refusal | undefined
}

export const scoreMax = 100

/** Scales scores so that the largest is 100; `reverse` turns the least into the best. */
export function normalizeToMax(scores: number[], { reverse }: { readonly reverse: boolean }): void {
  const max = Math.max(0, ...scores)
  for (const [i, score] of scores.entries()) {
    const scaled = max === 0 ? 0 : Math.floor((score * scoreMax) / max)
    scores[i] = reverse ? scoreMax - scaled : scaled
  }
}
