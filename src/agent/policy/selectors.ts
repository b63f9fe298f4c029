import type { NamedPort } from '#api/core/pod/identity.ts'
import type { Labels } from '#api/meta/labels.ts'
import { means, type Network, Networks } from './networks.ts'
import type { Peer } from './parse.ts'

/** What stands behind an identity number. */
export interface Identity {
  readonly namespace: string
  readonly labels: Labels
  readonly ports: readonly NamedPort[]
}

/** One peer of rules, and the numbers it means at the moment; shared by all sets that have it. */
export interface LiveSelector {
  readonly peer: Peer
  readonly members: Set<number>
  /** Told when a number joins or leaves. */
  readonly users: Set<(number: number) => void>
}

/**
 * Every peer that a live set has, with the identities and classes that it means, kept up one change at a time: a new
 * identity is compared with the peers that could mean it, a new peer with the identities it could mean.
 */
export class Selectors {
  readonly networks = new Networks()
  readonly identities = new Map<number, Identity>()
  readonly #byNamespace = new Map<string, Set<number>>()
  readonly #namespaces = new Map<string, Labels>()
  /** Peers of one namespace, and peers that select namespaces. */
  readonly #own = new Map<string, Set<LiveSelector>>()
  readonly #across = new Set<LiveSelector>()
  /** By the key of its network: what a network is inside of are the beginnings of its own key, at most 129. */
  readonly #blocks = new Map<string, Set<LiveSelector>>()
  readonly #byText = new Map<string, LiveSelector>()
  readonly #networksAdded = new Map<string, Network>()
  readonly #networksRemoved = new Map<string, Network>()

  acquire(peer: Peer, user: (number: number) => void): LiveSelector {
    let live = this.#byText.get(textOf(peer))
    if (live === undefined) {
      live = { peer, members: new Set(), users: new Set() }
      this.#byText.set(textOf(peer), live)
      this.#begin(live)
    }
    live.users.add(user)
    return live
  }

  release(live: LiveSelector, user: (number: number) => void): void {
    live.users.delete(user)
    if (live.users.size > 0) return
    this.#byText.delete(textOf(live.peer))
    this.#end(live)
  }

  /** A number's meaning; undefined: nobody has it any more. */
  setIdentity(number: number, next: Identity | undefined): void {
    const old = this.identities.get(number)
    if (old !== undefined && old.namespace !== next?.namespace) {
      this.#byNamespace.get(old.namespace)?.delete(number)
      for (const live of this.#candidates(old.namespace)) this.#judge(live, number, undefined)
    }
    if (next === undefined) {
      this.identities.delete(number)
      return
    }
    this.identities.set(number, next)
    const there = this.#byNamespace.get(next.namespace) ?? new Set()
    this.#byNamespace.set(next.namespace, there.add(number))
    for (const live of this.#candidates(next.namespace)) this.#judge(live, number, next)
    // Its ports may be others now, which only the users of a peer that means it care for.
    if (old !== undefined)
      for (const live of this.#candidates(next.namespace)) if (live.members.has(number)) tell(live, number)
  }

  setNamespace(name: string, labels: Labels | undefined): void {
    if (labels === undefined) this.#namespaces.delete(name)
    else this.#namespaces.set(name, labels)
    for (const number of this.#byNamespace.get(name) ?? []) {
      for (const live of this.#across) this.#judge(live, number, this.identities.get(number))
    }
  }

  /** Networks that came and went since they were settled. */
  changedNetworks(): { readonly added: readonly Network[]; readonly removed: readonly Network[] } {
    return { added: [...this.#networksAdded.values()], removed: [...this.#networksRemoved.values()] }
  }

  settleNetworks(): void {
    this.#networksAdded.clear()
    this.#networksRemoved.clear()
  }

  *#candidates(namespace: string): Generator<LiveSelector> {
    yield* this.#own.get(namespace) ?? []
    yield* this.#across
  }

  #matches({ peer }: LiveSelector, identity: Identity): boolean {
    if (peer.kind === 'block') return false
    const { namespaces, pods } = peer
    if (typeof namespaces === 'string' ? namespaces !== identity.namespace : !this.#inNamespaces(namespaces, identity))
      return false
    return pods.matches(identity.labels)
  }

  /** A namespace that is not known yet matches nothing, not even the absence of a label. */
  #inNamespaces(selector: { matches(labels: Labels): boolean }, { namespace }: Identity): boolean {
    const labels = this.#namespaces.get(namespace)
    return labels !== undefined && selector.matches(labels)
  }

  #judge(live: LiveSelector, number: number, identity: Identity | undefined): void {
    const is = identity !== undefined && this.#matches(live, identity)
    if (is === live.members.has(number)) return
    if (is) live.members.add(number)
    else live.members.delete(number)
    tell(live, number)
  }

  #begin(live: LiveSelector): void {
    const { peer } = live
    if (peer.kind === 'block') {
      for (const network of this.networks.acquire(peer.block)) this.#addNetwork(network)
      for (const number of this.networks.inside(peer.block)) live.members.add(number)
      const { key } = peer.block
      this.#blocks.set(key, (this.#blocks.get(key) ?? new Set()).add(live))
      return
    }
    const isOwn = typeof peer.namespaces === 'string'
    if (isOwn) {
      const own = this.#own.get(peer.namespaces as string) ?? new Set()
      this.#own.set(peer.namespaces as string, own.add(live))
    } else this.#across.add(live)
    const numbers = isOwn ? (this.#byNamespace.get(peer.namespaces as string) ?? []) : this.identities.keys()
    for (const number of numbers) {
      const identity = this.identities.get(number)
      if (identity !== undefined && this.#matches(live, identity)) live.members.add(number)
    }
  }

  #end(live: LiveSelector): void {
    const { peer } = live
    if (peer.kind === 'block') {
      const { key } = peer.block
      const there = this.#blocks.get(key)
      there?.delete(live)
      if (there?.size === 0) this.#blocks.delete(key)
      for (const network of this.networks.release(peer.block)) this.#removeNetwork(network)
    } else if (typeof peer.namespaces === 'string') this.#own.get(peer.namespaces)?.delete(live)
    else this.#across.delete(live)
  }

  /** Blocks that a network lies in. */
  *#around(key: string): Generator<LiveSelector> {
    for (let length = key.indexOf('/') + 1; length <= key.length; length++) {
      const there = this.#blocks.get(key.slice(0, length))
      if (there !== undefined) yield* there
    }
  }

  /** A network inside of others' blocks takes addresses out of their classes: they must mean it too, before it is there. */
  #addNetwork(network: Network): void {
    this.#networksRemoved.delete(network.key)
    this.#networksAdded.set(network.key, network)
    for (const live of this.#around(network.key)) {
      if (live.peer.kind === 'block' && means(live.peer.block, network.key)) {
        live.members.add(network.class)
        tell(live, network.class)
      }
    }
  }

  #removeNetwork(network: Network): void {
    this.#networksAdded.delete(network.key)
    this.#networksRemoved.set(network.key, network)
    for (const live of this.#around(network.key)) if (live.members.delete(network.class)) tell(live, network.class)
  }
}

const textOf = (peer: Peer): string => `${peer.kind} ${peer.text}`

function tell(live: LiveSelector, number: number): void {
  for (const user of live.users) user(number)
}
