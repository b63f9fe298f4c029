import { formatNamedPorts, type NamedPort } from '#api/core/pod/identity.ts'
import type { Labels } from '#api/meta/labels.ts'
import type { PolicyEntry } from '#datapath/maps/policy.ts'
import type { Network } from './networks.ts'
import type { Direction, Policy } from './parse.ts'
import { RuleBook } from './rules.ts'
import { Selectors } from './selectors.ts'
import { type Allowed, entryOf, PolicySet } from './set.ts'

/** A pod of this node, as policies see it. */
export interface LocalPod {
  readonly namespace: string
  readonly labels: Labels
  readonly ports: readonly NamedPort[]
}

/** Numbers of sets; 0: not isolated. */
export interface SetNumbers {
  readonly ingress: number
  readonly egress: number
}

/** What to write, in this order; `settle()` afterwards says that it was. */
export interface Round {
  /** Into sets: those that are new, and peers that joined old ones. */
  readonly add: readonly PolicyEntry[]
  readonly networksAdded: readonly Network[]
  /** Endpoints with other sets than before. */
  readonly endpoints: ReadonlyMap<string, SetNumbers>
  /** Out of sets that stay. */
  readonly remove: readonly PolicyEntry[]
  readonly networksRemoved: readonly Network[]
  settle(): void
}

interface Selected {
  readonly pod: LocalPod
  readonly policies: Set<Policy>
  /** Policies that it has and its sets do not, and the other way round. */
  readonly added: Set<Policy>
  readonly removed: Set<Policy>
  /** Sums of the policies' marks: same policies, same sums. */
  readonly sums: Record<Direction, { a: number; b: number; count: number; named: number }>
  readonly sets: Record<Direction, PolicySet | undefined>
  numbers: SetNumbers | undefined
}

const directions: readonly Direction[] = ['ingress', 'egress']

/** Sums stay whole numbers: 2^53 is far above 100,000 policies of 2^32 each. */
const markMax = 2 ** 32

/**
 * Policies, identities, namespaces and the node's pods in; sets, and who has which, out. A set is made once for all pods
 * with the same policies, and each change costs what depends on it: one policy the pods of its namespace on this node,
 * one identity the peers that could mean it. Pure in the sense of `plan`: it reads and writes nothing outside itself.
 */
export class Compiler {
  readonly rules = new RuleBook()
  readonly shared = new Selectors()
  readonly #random: () => number
  readonly #policies = new Map<string, Map<string, Policy>>()
  readonly #marks = new WeakMap<Policy, { readonly a: number; readonly b: number }>()
  readonly #pods = new Map<string, Selected>()
  readonly #podsOf = new Map<string, Set<string>>()
  readonly #sets = new Map<string, PolicySet>()
  readonly #byNumber = new Map<number, { readonly set: PolicySet; readonly key: string }>()
  readonly #touched = new Set<PolicySet>()
  readonly #moved = new Set<string>()
  /** Sets without endpoints, kept until somebody takes them away. */
  readonly #unused = new Set<PolicySet>()
  #nextSet = 1
  #firstSet = 1

  constructor(random: () => number = Math.random) {
    this.#random = random
  }

  /** Numbers that the kernel has from an earlier agent are not given out again. */
  startAfter({ set, rule }: { readonly set: number; readonly rule: number }): void {
    this.#nextSet = Math.max(this.#nextSet, set + 1)
    this.#firstSet = this.#nextSet
    this.rules.startAfter(rule)
  }

  /** The policy of that name now; undefined: there is none. */
  setPolicy(key: string, next: Policy | undefined): void {
    const namespace = key.slice(0, key.indexOf('/'))
    const there = this.#policies.get(namespace) ?? new Map<string, Policy>()
    const old = there.get(key)
    if (next === undefined) there.delete(key)
    else {
      there.set(key, next)
      this.#policies.set(namespace, there)
    }
    for (const id of this.#podsOf.get(namespace) ?? []) {
      const selected = this.#pods.get(id)
      if (selected === undefined) continue
      const changed = [this.#unselect(selected, old), this.#select(selected, next)]
      if (changed.includes(true)) this.#moved.add(id)
    }
  }

  policy(key: string): Policy | undefined {
    return this.#policies.get(key.slice(0, key.indexOf('/')))?.get(key)
  }

  setPod(id: string, next: LocalPod | undefined): void {
    const old = this.#pods.get(id)
    if (old !== undefined) {
      if (next !== undefined && samePod(old.pod, next)) return
      this.#podsOf.get(old.pod.namespace)?.delete(id)
      for (const direction of directions) this.#leave(old.sets[direction])
      this.#pods.delete(id)
      this.#moved.delete(id)
    }
    if (next === undefined) return
    const none = () => ({ a: 0, b: 0, count: 0, named: 0 })
    const selected: Selected = {
      pod: next,
      policies: new Set(),
      added: new Set(),
      removed: new Set(),
      sums: { ingress: none(), egress: none() },
      sets: { ingress: undefined, egress: undefined },
      numbers: undefined,
    }
    for (const policy of this.#policies.get(next.namespace)?.values() ?? []) this.#select(selected, policy)
    this.#pods.set(id, selected)
    this.#podsOf.set(next.namespace, (this.#podsOf.get(next.namespace) ?? new Set()).add(id))
    this.#moved.add(id)
  }

  /** What is there to be written; undefined: nothing. */
  round(): Round | undefined {
    const endpoints = new Map<string, SetNumbers>()
    const moved = [...this.#moved].flatMap((id) => this.#pods.get(id) ?? [])
    for (const direction of directions) this.#place(moved, direction)
    for (const { added, removed } of moved) {
      added.clear()
      removed.clear()
    }
    for (const id of this.#moved) {
      const selected = this.#pods.get(id)
      if (selected === undefined) continue
      const numbers = { ingress: selected.sets.ingress?.number ?? 0, egress: selected.sets.egress?.number ?? 0 }
      if (selected.numbers?.ingress !== numbers.ingress || selected.numbers.egress !== numbers.egress)
        endpoints.set(id, numbers)
    }
    const add: PolicyEntry[] = []
    const remove: PolicyEntry[] = []
    // One that nobody has is brought up to date when somebody has it again.
    const wanted = [...this.#touched].flatMap((set) => (set.users > 0 ? [[set, set.wanted()] as const] : []))
    for (const [set, peers] of wanted)
      for (const [peer, allowed] of peers) compare(set.number, peer, set.written.get(peer), allowed, add, remove)
    const networks = this.shared.changedNetworks()
    if (add.length + remove.length + endpoints.size + networks.added.length + networks.removed.length === 0) {
      this.#settle(wanted, endpoints)
      return undefined
    }
    return {
      add,
      remove,
      endpoints,
      networksAdded: networks.added,
      networksRemoved: networks.removed,
      settle: () => this.#settle(wanted, endpoints),
    }
  }

  /** Numbers of sets that no endpoint has. */
  unused(): number[] {
    return [...this.#unused].map((set) => set.number)
  }

  /** Forgets a set that no endpoint has, and returns what the kernel has of it; undefined: somebody has it again. */
  drop(number: number): PolicyEntry[] | undefined {
    const found = this.#byNumber.get(number)
    if (found === undefined || found.set.users > 0) return undefined
    const { set, key } = found
    this.#byNumber.delete(number)
    this.#sets.delete(key)
    this.#unused.delete(set)
    this.#touched.delete(set)
    const entries = [...set.written].flatMap(([peer, allowed]) =>
      [...allowed].map(([cell, rule]) => entryOf(set.number, peer, cell, rule)),
    )
    set.release()
    return entries
  }

  /** Sets with lower numbers are an earlier agent's. */
  get firstSet(): number {
    return this.#firstSet
  }

  /** Policies that select a pod. */
  policiesFor(id: string): readonly Policy[] {
    return [...(this.#pods.get(id)?.policies ?? [])]
  }

  /** The policies behind a set's number. */
  policiesOf(number: number): readonly Policy[] {
    return this.#byNumber.get(number)?.set.policies ?? []
  }

  directionOf(number: number): Direction | undefined {
    return this.#byNumber.get(number)?.set.direction
  }

  /** What the kernel has of the pod is not what was settled: the next round writes it again. */
  forgetNumbers(id: string): void {
    const selected = this.#pods.get(id)
    if (selected === undefined) return
    selected.numbers = undefined
    this.#moved.add(id)
  }

  numbersOf(id: string): SetNumbers | undefined {
    return this.#pods.get(id)?.numbers
  }

  get status(): { readonly policies: number; readonly sets: number; readonly entries: number } {
    let policies = 0
    for (const there of this.#policies.values()) policies += there.size
    let entries = 0
    for (const set of this.#sets.values()) for (const allowed of set.written.values()) entries += allowed.size
    return { policies, sets: this.#sets.size, entries }
  }

  #settle(
    wanted: readonly (readonly [PolicySet, ReadonlyMap<number, Allowed | undefined>])[],
    endpoints: ReadonlyMap<string, SetNumbers>,
  ): void {
    for (const [set, peers] of wanted) {
      for (const [peer, allowed] of peers) {
        if (allowed === undefined) set.written.delete(peer)
        else set.written.set(peer, allowed)
      }
      set.touched.clear()
      this.#touched.delete(set)
    }
    for (const [id, numbers] of endpoints) {
      const selected = this.#pods.get(id)
      if (selected !== undefined) selected.numbers = numbers
    }
    this.#moved.clear()
    this.shared.settleNetworks()
  }

  #select(selected: Selected, policy: Policy | undefined): boolean {
    if (policy === undefined || !policy.selector.matches(selected.pod.labels)) return false
    selected.policies.add(policy)
    if (!selected.removed.delete(policy)) selected.added.add(policy)
    this.#sum(selected, policy, 1)
    return true
  }

  #unselect(selected: Selected, policy: Policy | undefined): boolean {
    if (policy === undefined || !selected.policies.delete(policy)) return false
    if (!selected.added.delete(policy)) selected.removed.add(policy)
    this.#sum(selected, policy, -1)
    return true
  }

  #sum(selected: Selected, policy: Policy, sign: 1 | -1): void {
    let mark = this.#marks.get(policy)
    if (mark === undefined) {
      mark = { a: Math.floor(this.#random() * markMax), b: Math.floor(this.#random() * markMax) }
      this.#marks.set(policy, mark)
    }
    for (const direction of directions) {
      const rules = policy.rules[direction]
      if (rules === undefined) continue
      const sum = selected.sums[direction]
      sum.a += sign * mark.a
      sum.b += sign * mark.b
      sum.count += sign
      if (direction === 'ingress' && rules.some((rule) => (rule.ports?.names.length ?? 0) > 0)) sum.named += sign
    }
  }

  /**
   * Gives the pods that moved their sets. Where all pods of a set move on together, as they do when one of its policies
   * changes, the set moves with them: what it has no more and what is new to it is all that is to be written. Otherwise the
   * pods get the set of their policies, which is made where nobody had the same before.
   */
  #place(moved: readonly Selected[], direction: Direction): void {
    const groups = new Map<string, Selected[]>()
    for (const selected of moved) {
      const key = keyOf(selected, direction)
      const group = `${selected.sets[direction]?.number ?? 0} ${key}`
      const found = groups.get(group)
      if (found === undefined) groups.set(group, [selected])
      else found.push(selected)
    }
    for (const group of groups.values()) {
      const [first] = group
      if (first === undefined) continue
      const key = keyOf(first, direction)
      const old = first.sets[direction]
      const known = key === undefined ? undefined : this.#sets.get(key)
      if (key !== undefined && known === undefined && old !== undefined && old.users === group.length) {
        if (this.#moveSet(old, key, first, direction)) continue
      }
      const set = key === undefined ? undefined : (known ?? this.#makeSet(key, first, direction))
      if (set === old) continue
      for (const selected of group) {
        if (set !== undefined) set.users++
        this.#leave(old)
        selected.sets[direction] = set
      }
      if (set !== undefined) this.#unused.delete(set)
    }
  }

  /** Named ports are part of what a set was made of; where they differ a new one is made. */
  #moveSet(set: PolicySet, key: string, { added, removed }: Selected, direction: Direction): boolean {
    const found = this.#byNumber.get(set.number)
    if (found === undefined || portsOf(found.key) !== portsOf(key)) return false
    for (const policy of removed) set.remove(policy)
    for (const policy of added) if (policy.rules[direction] !== undefined) set.add(policy)
    this.#sets.delete(found.key)
    this.#sets.set(key, set)
    this.#byNumber.set(set.number, { set, key })
    return true
  }

  #makeSet(key: string, { pod, policies }: Selected, direction: Direction): PolicySet {
    const own = [...policies].filter((policy) => policy.rules[direction] !== undefined)
    const ports = portsOf(key) === '' ? [] : pod.ports
    const set = new PolicySet(this.#nextSet++, direction, own, ports, this.shared, this.rules, (touched) =>
      this.#touched.add(touched),
    )
    this.#sets.set(key, set)
    this.#byNumber.set(set.number, { set, key })
    return set
  }

  #leave(set: PolicySet | undefined): void {
    if (set !== undefined && --set.users === 0) this.#unused.add(set)
  }
}

/** Undefined: not isolated. Policies of another namespace have other marks, so the namespace needs no place in it. */
function keyOf({ sums, pod }: Selected, direction: Direction): string | undefined {
  const { a, b, count, named } = sums[direction]
  return count === 0 ? undefined : `${direction} ${count} ${a} ${b} ${named > 0 ? formatNamedPorts(pod.ports) : ''}`
}

/** The named ports in a key. */
const portsOf = (key: string): string => key.slice(key.lastIndexOf(' ') + 1)

function compare(
  set: number,
  peer: number,
  old: Allowed | undefined,
  next: Allowed | undefined,
  add: PolicyEntry[],
  remove: PolicyEntry[],
): void {
  if (old === next) return
  for (const [cell, rule] of next ?? []) if (old?.get(cell) !== rule) add.push(entryOf(set, peer, cell, rule))
  for (const [cell, rule] of old ?? []) if (next?.has(cell) !== true) remove.push(entryOf(set, peer, cell, rule))
}

function samePod(a: LocalPod, b: LocalPod): boolean {
  return (
    a.namespace === b.namespace &&
    formatNamedPorts(a.ports) === formatNamedPorts(b.ports) &&
    JSON.stringify(Object.entries(a.labels).sort()) === JSON.stringify(Object.entries(b.labels).sort())
  )
}
