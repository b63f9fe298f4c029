import type { NamedPort } from '../core/pod/identity.ts'
import type { LabelSelector } from '../gen/meta-v1.ts'
import type { NetworkPolicy } from '../gen/networking-v1.ts'
import type { Labels } from '../meta/labels.ts'

/**
 * What live policies look at in a pod: only that makes a difference between two pods of one namespace. The namespace's
 * own labels need no mention: its name is part of every identity, and leads to them.
 */
export interface Relevance {
  readonly labels: ReadonlySet<string>
  /** Names of ports. */
  readonly ports: ReadonlySet<string>
}

/** The label keys that one policy selects pods by, and the port names that it uses. Reads what may be malformed. */
export function relevantTo({ spec }: Pick<NetworkPolicy, 'spec'>): Relevance {
  const labels = new Set<string>()
  const ports = new Set<string>()
  const look = (selector: LabelSelector | undefined): void => {
    for (const key of Object.keys(selector?.matchLabels ?? {})) labels.add(key)
    for (const { key } of selector?.matchExpressions ?? []) labels.add(key)
  }
  look(spec.podSelector)
  const rules = [
    ...(spec.ingress ?? []).map((rule) => ({ peers: rule.from, ports: rule.ports })),
    ...(spec.egress ?? []).map((rule) => ({ peers: rule.to, ports: rule.ports })),
  ]
  for (const rule of rules) {
    for (const peer of rule.peers ?? []) look(peer.podSelector)
    for (const { port } of rule.ports ?? []) if (typeof port === 'string') ports.add(port)
  }
  return { labels, ports }
}

/** Relevance of all live policies, kept up by additions and removals. */
export class LiveRelevance implements Relevance {
  readonly #labels = new Map<string, number>()
  readonly #ports = new Map<string, number>()
  readonly #labelSet = new Set<string>()
  readonly #portSet = new Set<string>()

  get labels(): ReadonlySet<string> {
    return this.#labelSet
  }

  get ports(): ReadonlySet<string> {
    return this.#portSet
  }

  /** Exchanges what one policy looks at. Returns whether anything is relevant now that was not, or no longer. */
  replace(old: Relevance | undefined, next: Relevance | undefined): boolean {
    const labels = count(this.#labels, this.#labelSet, old?.labels, next?.labels)
    const ports = count(this.#ports, this.#portSet, old?.ports, next?.ports)
    return labels || ports
  }
}

function count(
  counts: Map<string, number>,
  live: Set<string>,
  old: ReadonlySet<string> | undefined,
  next: ReadonlySet<string> | undefined,
): boolean {
  const before = live.size
  let changed = false
  for (const key of next ?? []) {
    counts.set(key, (counts.get(key) ?? 0) + 1)
    live.add(key)
  }
  changed = live.size !== before
  for (const key of old ?? []) {
    const left = (counts.get(key) ?? 0) - 1
    if (left > 0) counts.set(key, left)
    else {
      counts.delete(key)
      if (live.delete(key)) changed = true
    }
  }
  return changed
}

/** Pods with the same text are the same to every live policy. Keys in order, so that equal pods read equal. */
export function identityText(
  namespace: string,
  labels: Labels | undefined,
  ports: readonly NamedPort[],
  relevance: Relevance,
): string {
  const parts: string[] = []
  for (const [key, value] of Object.entries(labels ?? {})) if (relevance.labels.has(key)) parts.push(`${key}=${value}`)
  for (const { name, number, protocol } of ports)
    if (relevance.ports.has(name)) parts.push(`:${name}:${number}/${protocol}`)
  return `${namespace}|${parts.sort().join(',')}`
}
