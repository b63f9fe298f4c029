import { identityFirst, type NamedPort } from '#api/core/pod/identity.ts'
import type { Labels } from '#api/meta/labels.ts'
import { identityText, type Relevance } from '#api/networking/relevance.ts'

/** A pod of the cluster that has addresses, as its metadata tells. */
export interface PeerPod {
  /** `namespace/name`. */
  readonly key: string
  readonly uid: string
  readonly namespace: string
  readonly labels: Labels
  readonly ports: readonly NamedPort[]
  readonly addresses: readonly string[]
  /** As the control plane numbered it; undefined: it did not. */
  readonly identity: number | undefined
}

/** What a number stands for. */
export interface Meaning {
  readonly namespace: string
  readonly labels: Labels
  readonly ports: readonly NamedPort[]
}

export interface NumberingOptions {
  readonly relevance: Relevance
  /** The node's own numbers begin here. */
  readonly localFirst: number
  /** A number means this from now on, or nobody has it any more. */
  readonly onMeaning: (number: number, meaning: Meaning | undefined) => void
  /** The number of a pod's addresses changed; `pod` undefined: it is gone. */
  readonly onPod: (key: string, pod: PeerPod | undefined, number: number) => void
}

interface Numbered {
  pod: PeerPod
  text: string
  number: number
}

interface Owner {
  text: string
  count: number
  /** One of those that have it: what the number means to policies. */
  readonly pod: PeerPod
}

/**
 * Which number stands for a pod on this node. The control plane's, as long as all pods that have it are the same to every
 * live policy; pods that differ from the others of their number (a policy that looks at a new label came a moment ago, or
 * the control plane is another one and numbers nothing) get a number of the node's own, which never leaves it. So what a
 * set says of a number is right at any moment, however far behind the control plane is. Deterministic; no effects.
 */
export class Numbering {
  readonly #options: NumberingOptions
  readonly #pods = new Map<string, Numbered>()
  #owners = new Map<number, Owner>()
  #locals = new Map<string, number>()
  /** Numbers without pods, and one that had them: it still holds for packets on their way, so nobody else may have them yet. */
  readonly #idle = new Map<number, PeerPod>()
  readonly #adopted = new Map<string, number>()
  #nextLocal: number

  constructor(options: NumberingOptions) {
    this.#options = options
    this.#nextLocal = options.localFirst
  }

  get size(): number {
    return this.#pods.size
  }

  /** Numbers that pods' addresses have in the kernel from an earlier agent: the node's own among them are kept. */
  adopt(present: Iterable<readonly [string, number]>): void {
    for (const [address, number] of present) {
      if (number < identityFirst) continue
      this.#adopted.set(address, number)
      if (number >= this.#options.localFirst) this.#nextLocal = Math.max(this.#nextLocal, number + 1)
    }
  }

  get(key: string): { readonly pod: PeerPod; readonly number: number } | undefined {
    return this.#pods.get(key)
  }

  list(): Iterable<{ readonly pod: PeerPod; readonly number: number }> {
    return this.#pods.values()
  }

  set(key: string, pod: PeerPod | undefined): void {
    const old = this.#pods.get(key)
    if (pod === undefined) {
      if (old === undefined) return
      this.#pods.delete(key)
      this.#leave(old.number)
      this.#options.onPod(key, undefined, old.number)
      return
    }
    const text = this.#textOf(pod)
    const number = this.#choose(pod, text, old?.number)
    this.#join(number, text, pod)
    this.#pods.set(key, { pod, text, number })
    if (old !== undefined) this.#leave(old.number)
    if (old?.number !== number || !sameAddresses(old.pod, pod)) this.#options.onPod(key, pod, number)
  }

  /** A number for something that is no pod but counts as one: the node's own resolver. */
  setLocal(key: string, pod: Omit<PeerPod, 'identity'>): void {
    this.set(key, { ...pod, identity: undefined })
  }

  /**
   * Policies look at other labels or port names than before: every pod is looked at again. A number never passes from pods
   * that have it to others: who has it comes first.
   */
  refresh(): void {
    const old = this.#owners
    this.#owners = new Map()
    this.#locals = new Map()
    const rest: [string, Numbered][] = []
    for (const [key, numbered] of this.#pods) {
      numbered.text = this.#textOf(numbered.pod)
      const { number, text, pod } = numbered
      const isOurs = number >= this.#options.localFirst
      // One of ours that is alike with another group by now has no reason to be any more.
      if (this.#owners.has(number) ? this.#owners.get(number)?.text !== text : isOurs && pod.identity !== undefined) {
        rest.push([key, numbered])
        continue
      }
      this.#join(number, text, pod)
      if (isOurs && !this.#locals.has(text)) this.#locals.set(text, number)
    }
    for (const [key, numbered] of rest) {
      const number = this.#choose(numbered.pod, numbered.text, numbered.number)
      this.#join(number, numbered.text, numbered.pod)
      if (number === numbered.number) continue
      numbered.number = number
      this.#options.onPod(key, numbered.pod, number)
    }
    for (const [number, { pod }] of old) if (!this.#owners.has(number)) this.#idle.set(number, pod)
  }

  /**
   * What there is at the start, all at once: who has in the kernel the number that he is to have comes first. What others
   * have there means them until they have been written anew.
   */
  load(pods: readonly PeerPod[]): void {
    const has = (pod: PeerPod): boolean => pod.addresses.some((a) => this.#adopted.get(a) === pod.identity)
    for (const pod of pods.toSorted((a, b) => Number(has(b)) - Number(has(a)))) this.set(pod.key, pod)
    for (const { pod, number } of this.#pods.values()) {
      for (const address of pod.addresses) {
        const present = this.#adopted.get(address)
        if (present === undefined || present === number || this.#owners.has(present) || this.#idle.has(present))
          continue
        this.#mean(present, pod)
        this.#idle.set(present, pod)
      }
    }
  }

  /** Numbers that no pod has since a while are given up: call it when packets of their pods can no longer be on their way. */
  giveUp(numbers: Iterable<number>): void {
    for (const number of numbers) if (this.#idle.delete(number)) this.#options.onMeaning(number, undefined)
  }

  idle(): number[] {
    return [...this.#idle.keys()]
  }

  #textOf({ namespace, labels, ports }: PeerPod): string {
    return identityText(namespace, labels, ports, this.#options.relevance)
  }

  #choose({ identity, addresses }: PeerPod, text: string, current: number | undefined): number {
    const isFree = (number: number): boolean => {
      const owner = this.#owners.get(number)
      if (owner !== undefined) return owner.text === text
      // Policies may by now tell apart what they did not when its last pod left it.
      const last = this.#idle.get(number)
      return last === undefined || this.#textOf(last) === text
    }
    if (identity !== undefined && isFree(identity)) return identity
    const local = this.#locals.get(text)
    if (local !== undefined) return local
    const { localFirst } = this.#options
    const kept = [current, ...addresses.map((a) => this.#adopted.get(a))].find(
      (n) => n !== undefined && n >= localFirst && isFree(n),
    )
    const number = kept ?? this.#nextLocal++
    this.#locals.set(text, number)
    return number
  }

  #join(number: number, text: string, pod: PeerPod): void {
    this.#idle.delete(number)
    const owner = this.#owners.get(number)
    if (owner !== undefined) {
      owner.count++
      return
    }
    this.#owners.set(number, { text, count: 1, pod })
    this.#mean(number, pod)
  }

  #mean(number: number, pod: PeerPod): void {
    const { relevance, onMeaning } = this.#options
    const ports = pod.ports.filter((port) => relevance.ports.has(port.name))
    onMeaning(number, { namespace: pod.namespace, labels: pod.labels, ports })
  }

  #leave(number: number): void {
    const owner = this.#owners.get(number)
    if (owner === undefined || --owner.count > 0) return
    this.#owners.delete(number)
    if (this.#locals.get(owner.text) === number) this.#locals.delete(owner.text)
    this.#idle.set(number, owner.pod)
  }
}

const sameAddresses = (a: PeerPod, b: PeerPod): boolean => a.addresses.join() === b.addresses.join() && a.uid === b.uid
