import type { Pod, PodAffinityTerm } from '#api/gen/core-v1.ts'
import { type Selector, selectorFrom } from '#api/meta/selector.ts'
import { withLabelsOf } from '../label-keys.ts'
import { type Judge, type PlanContext, type Plugin, scoreMax } from '../plugin.ts'
import type { NodeInfo, PodCount } from '../snapshot.ts'

const affinityReasons = ["node(s) didn't match pod affinity rules"]
const antiAffinityReasons = ["node(s) didn't match pod anti-affinity rules"]
const existingReasons = ["node(s) didn't satisfy existing pods anti-affinity rules"]
/** What a required affinity of a placed pod weighs, when another that it wants near is placed. */
const hardAffinityWeight = 1

interface Term {
  readonly key: string
  readonly id: string
  readonly selector: Selector
  readonly namespaces: readonly string[]
}

/** Domains as `key=value`: a node is in one for each of its labels that a term names. */
type Domains = Map<string, number>

/** Keeps pods near to or away from other pods, by what either side asks. */
export const interPodAffinity: Plugin = {
  name: 'InterPodAffinity',
  weight: 2,
  judge({ pod }, context) {
    const { podAffinity, podAntiAffinity } = pod.spec.affinity ?? {}
    const required = podAffinity?.requiredDuringSchedulingIgnoredDuringExecution ?? []
    const refused = podAntiAffinity?.requiredDuringSchedulingIgnoredDuringExecution ?? []
    const wanted = podAffinity?.preferredDuringSchedulingIgnoredDuringExecution ?? []
    const unwanted = podAntiAffinity?.preferredDuringSchedulingIgnoredDuringExecution ?? []
    const { snapshot } = context
    const own = required.length + refused.length + wanted.length + unwanted.length
    if (own === 0 && snapshot.affine.size === 0) return undefined

    const compileAll = (terms: readonly PodAffinityTerm[]) => terms.map((term) => compile(pod, term, context))
    const filters = [
      nearFilter(pod, compileAll(required), context),
      awayFilter(compileAll(refused), context),
      existingFilter(pod, context),
    ].filter((filter) => filter !== undefined)

    const scores: Domains = new Map()
    for (const { weight, podAffinityTerm } of wanted)
      addMatches(scores, compile(pod, podAffinityTerm, context), weight, context)
    for (const { weight, podAffinityTerm } of unwanted)
      addMatches(scores, compile(pod, podAffinityTerm, context), -weight, context)
    addWishesOfOthers(scores, pod, context)
    if (filters.length === 0 && scores.size === 0) return undefined
    const judge: Judge = {}
    if (filters.length > 0)
      judge.filter = (node) => {
        for (const filter of filters) {
          const reasons = filter(node)
          if (reasons !== undefined) return reasons
        }
        return undefined
      }
    if (scores.size > 0) Object.assign(judge, score(scores))
    return judge
  },
}

function compile(pod: Pod, term: PodAffinityTerm, { namespacesBy }: Pick<PlanContext, 'namespacesBy'>): Term {
  const { topologyKey, namespaces = [], namespaceSelector } = term
  const labelSelector = withLabelsOf(pod, term)
  const named = new Set(namespaces)
  if (namespaceSelector !== undefined) for (const name of namespacesBy(selectorFrom(namespaceSelector))) named.add(name)
  if (namespaces.length === 0 && namespaceSelector === undefined) named.add(pod.metadata.namespace)
  return {
    key: topologyKey,
    id: JSON.stringify(labelSelector ?? null),
    selector: selectorFrom(labelSelector),
    namespaces: [...named],
  }
}

const matches = ({ namespaces, selector }: Term, pod: Pod): boolean =>
  namespaces.includes(pod.metadata.namespace) && selector.matches(pod.metadata.labels)

function domainOf({ node }: NodeInfo, key: string): string | undefined {
  const value = node?.metadata.labels?.[key]
  return value === undefined ? undefined : `${key}=${value}`
}

const countsOf = ({ namespaces, id, selector }: Term, { snapshot }: PlanContext): PodCount[] =>
  namespaces.map((namespace) => snapshot.count(namespace, id, selector, { going: true }))

/** Adds `weight` per matching pod to the domains these are in. */
function addMatches(domains: Domains, term: Term, weight: number, context: PlanContext): void {
  for (const { byNode } of countsOf(term, context)) {
    for (const [name, count] of byNode) {
      const node = context.snapshot.node(name)
      const domain = node === undefined ? undefined : domainOf(node, term.key)
      if (domain !== undefined) domains.set(domain, (domains.get(domain) ?? 0) + count * weight)
    }
  }
}

type NodeFilter = NonNullable<Judge['filter']>

/** Each domain that a term names must have a pod that matches all terms; the first of a group of friends may go anywhere. */
function nearFilter(pod: Pod, terms: readonly Term[], context: PlanContext): NodeFilter | undefined {
  const [first] = terms
  if (first === undefined) return undefined
  const selector: Selector = {
    requirements: terms.flatMap((term) => term.selector.requirements),
    matches: (labels) => terms.every((term) => term.selector.matches(labels)),
  }
  const together = {
    id: JSON.stringify(terms.map((term) => term.id)),
    selector,
    namespaces: first.namespaces.filter((name) => terms.every((term) => term.namespaces.includes(name))),
  }
  const domains: Domains = new Map()
  for (const { key } of terms) addMatches(domains, { ...together, key }, 1, context)
  const isFirst = domains.size === 0 && terms.every((term) => matches(term, pod))
  return (node) => {
    for (const { key } of terms) {
      const domain = domainOf(node, key)
      if (domain === undefined) return affinityReasons
      if (!isFirst && (domains.get(domain) ?? 0) === 0) return affinityReasons
    }
    return undefined
  }
}

function awayFilter(terms: readonly Term[], context: PlanContext): NodeFilter | undefined {
  if (terms.length === 0) return undefined
  const domains: Domains = new Map()
  for (const term of terms) addMatches(domains, term, 1, context)
  return inNone(domains, terms, antiAffinityReasons)
}

/** Pods that are placed already may refuse this one. */
function existingFilter(pod: Pod, context: PlanContext): NodeFilter | undefined {
  const domains: Domains = new Map()
  const keys = new Map<string, { key: string }>()
  for (const { pod: placed } of context.snapshot.affine.values()) {
    const terms = placed.spec.affinity?.podAntiAffinity?.requiredDuringSchedulingIgnoredDuringExecution ?? []
    for (const term of terms) addIfMatching(domains, placed, term, 1, pod, context)
    for (const { topologyKey } of terms) keys.set(topologyKey, { key: topologyKey })
  }
  return domains.size === 0 ? undefined : inNone(domains, [...keys.values()], existingReasons)
}

const inNone =
  (domains: Domains, terms: readonly { readonly key: string }[], reasons: readonly string[]): NodeFilter =>
  (node) =>
    terms.some(({ key }) => (domains.get(domainOf(node, key) ?? '') ?? 0) > 0) ? reasons : undefined

/** Where a term of a placed pod takes in `pod`, adds `weight` to the placed pod's domain. */
function addIfMatching(
  domains: Domains,
  placed: Pod,
  term: PodAffinityTerm,
  weight: number,
  pod: Pod,
  context: PlanContext,
): void {
  const node = context.snapshot.node(placed.spec.nodeName ?? '')
  const domain = node === undefined ? undefined : domainOf(node, term.topologyKey)
  if (domain === undefined || !takesIn(placed, term, pod, context)) return
  domains.set(domain, (domains.get(domain) ?? 0) + weight)
}

/** As `matches`, without listing the namespaces of every placed pod's terms. */
function takesIn(placed: Pod, term: PodAffinityTerm, pod: Pod, { labelsOfNamespace }: PlanContext): boolean {
  const { namespaces = [], namespaceSelector } = term
  const { namespace } = pod.metadata
  const isNear =
    namespaces.length === 0 && namespaceSelector === undefined
      ? namespace === placed.metadata.namespace
      : namespaces.includes(namespace) ||
        (namespaceSelector !== undefined && selectorFrom(namespaceSelector).matches(labelsOfNamespace(namespace)))
  return isNear && selectorFrom(withLabelsOf(placed, term)).matches(pod.metadata.labels)
}

function addWishesOfOthers(scores: Domains, pod: Pod, context: PlanContext): void {
  for (const { pod: placed } of context.snapshot.affine.values()) {
    const { podAffinity, podAntiAffinity } = placed.spec.affinity ?? {}
    for (const term of podAffinity?.requiredDuringSchedulingIgnoredDuringExecution ?? [])
      addIfMatching(scores, placed, term, hardAffinityWeight, pod, context)
    for (const { weight, podAffinityTerm } of podAffinity?.preferredDuringSchedulingIgnoredDuringExecution ?? [])
      addIfMatching(scores, placed, podAffinityTerm, weight, pod, context)
    for (const { weight, podAffinityTerm } of podAntiAffinity?.preferredDuringSchedulingIgnoredDuringExecution ?? [])
      addIfMatching(scores, placed, podAffinityTerm, -weight, pod, context)
  }
}

function score(domains: Domains): Pick<Judge, 'score' | 'normalize'> {
  const keys = new Set([...domains.keys()].map((domain) => domain.slice(0, domain.indexOf('='))))
  return {
    score(node) {
      let sum = 0
      for (const key of keys) sum += domains.get(domainOf(node, key) ?? '') ?? 0
      return sum
    },
    normalize(scores) {
      const min = Math.min(...scores)
      const max = Math.max(...scores)
      for (const [i, value] of scores.entries())
        scores[i] = max === min ? 0 : Math.floor((scoreMax * (value - min)) / (max - min))
    },
  }
}
