import type { NamedPort } from '#api/core/pod/identity.ts'
import type { PolicyEntry } from '#datapath/maps/policy.ts'
import { type Direction, type Peer, type Policy, parsePolicy, type Rule } from './parse.ts'
import { type PortPrefix, protocolNumbers } from './ports.ts'
import type { RuleBook } from './rules.ts'
import type { Identity, LiveSelector, Selectors } from './selectors.ts'

/** Anyone, in the place of a peer's number. */
export const anyone = 0

/** A rule for one of its peers. */
interface Part {
  readonly rule: number
  /** Of two that allow the same, the first by this is named: the same whenever and in whatever order they came. */
  readonly order: string
  /** Undefined: who it is for is anyone. */
  readonly live: LiveSelector | undefined
  /** Undefined: any protocol and port. */
  readonly prefixes: readonly PortPrefix[] | undefined
  /** Egress only: ports that each peer's own names lead to. */
  readonly names: readonly { readonly name: string; readonly protocol: number }[]
}

/** Allowances remembered by a set: more than any set has different peers at a time. */
const allowedMax = 16_384

/** What is allowed to a peer: (protocol, port, prefix length) → rule. Shared by the peers of a set that are allowed the same. */
export type Allowed = ReadonlyMap<number, number>

/** A set of policies in one direction, as entries of the kernel's map. */
export class PolicySet {
  readonly number: number
  readonly direction: Direction
  /** Endpoints that have it. */
  users = 0
  /** What the kernel has. */
  readonly written = new Map<number, Allowed>()
  /** Peers to look at again before the next write. */
  readonly touched = new Set<number>()
  readonly #ports: readonly NamedPort[]
  readonly #policies = new Map<Policy, readonly number[]>()
  readonly #parts = new Map<number, Part>()
  readonly #selectors = new Map<LiveSelector, Set<number>>()
  readonly #anyone = new Set<number>()
  readonly #allowed = new Map<string, Allowed>()
  #nextPart = 0
  readonly #shared: Selectors
  readonly #rules: RuleBook
  readonly #tell: (number: number) => void

  /** `ports`: of the pods whose set it is, which decide what a name means for who comes in. */
  constructor(
    number: number,
    direction: Direction,
    policies: readonly Policy[],
    ports: readonly NamedPort[],
    shared: Selectors,
    rules: RuleBook,
    onTouch: (set: PolicySet) => void,
  ) {
    this.number = number
    this.direction = direction
    this.#ports = ports
    this.#shared = shared
    this.#rules = rules
    this.#tell = (peer) => {
      if (this.touched.size === 0) onTouch(this)
      this.touched.add(peer)
    }
    for (const policy of policies) this.add(policy)
  }

  get policies(): readonly Policy[] {
    return [...this.#policies.keys()]
  }

  /** One more policy. Peers that it allows something are touched. */
  add(policy: Policy): void {
    const before = this.#nextPart
    for (const [i, rule] of (policy.rules[this.direction] ?? []).entries()) this.#addRule(policy, rule, i)
    const parts = Array.from({ length: this.#nextPart - before }, (_, i) => before + i)
    this.#policies.set(policy, parts)
    for (const index of parts) this.#touchPeersOf(index)
  }

  /** One policy less. Peers that it allowed something are touched. */
  remove(policy: Policy): void {
    for (const index of this.#policies.get(policy) ?? []) {
      this.#touchPeersOf(index)
      const part = this.#parts.get(index)
      if (part === undefined) continue
      this.#parts.delete(index)
      this.#anyone.delete(index)
      this.#rules.release(part.rule)
      if (part.live === undefined) continue
      const parts = this.#selectors.get(part.live)
      parts?.delete(index)
      if (parts?.size !== 0) continue
      this.#selectors.delete(part.live)
      this.#shared.release(part.live, this.#tell)
    }
    this.#policies.delete(policy)
    // Allowances are remembered by the numbers of their parts, which are never given again; old ones only take room.
    if (this.#allowed.size > allowedMax) this.#allowed.clear()
  }

  #touchPeersOf(index: number): void {
    const live = this.#parts.get(index)?.live
    if (live === undefined) this.#tell(anyone)
    else for (const peer of live.members) this.#tell(peer)
  }

  #addRule(policy: Policy, rule: Rule, index: number): void {
    const names = rule.ports?.names ?? []
    const prefixes = rule.ports?.prefixes
    const isIngress = this.direction === 'ingress'
    const own = isIngress ? [...(prefixes ?? []), ...names.flatMap((name) => resolveName(name, this.#ports))] : prefixes
    const fixed = rule.ports === undefined ? undefined : (own ?? [])
    const add = (path: string, live: LiveSelector | undefined, withNames: boolean): void => {
      const number = this.#nextPart++
      this.#parts.set(number, {
        rule: this.#rules.acquire(policy, this.direction, path),
        order: `${policy.key} ${String(index).padStart(6, '0')} ${path.length} ${path}`,
        live,
        prefixes: fixed,
        names: withNames && !isIngress ? names : [],
      })
      if (live === undefined) this.#anyone.add(number)
      else this.#selectors.set(live, (this.#selectors.get(live) ?? new Set()).add(number))
    }
    const liveOf = (peer: Peer): LiveSelector => this.#shared.acquire(peer, this.#tell)
    if (rule.peers === undefined) {
      add(rule.path, undefined, false)
      // A name leads somewhere only at a pod: whoever has such a port is a peer.
      if (!isIngress && names.length > 0) add(rule.path, liveOf(everyPod), true)
      return
    }
    for (const peer of rule.peers) add(peer.path, liveOf(peer), peer.kind === 'pods')
  }

  /** What the peers that were touched are allowed now; undefined for one that is allowed nothing. */
  wanted(): Map<number, Allowed | undefined> {
    const found = new Map<number, number[]>([...this.touched].map((peer) => [peer, []]))
    found.get(anyone)?.push(...this.#anyone)
    for (const [{ members }, parts] of this.#selectors) {
      // Whichever is fewer: a new set looks at every peer, a new peer at every selector.
      if (members.size < found.size) for (const peer of members) found.get(peer)?.push(...parts)
      else for (const [peer, list] of found) if (members.has(peer)) list.push(...parts)
    }
    return new Map([...found].map(([peer, parts]) => [peer, this.#allowedBy(parts, this.#shared.identities.get(peer))]))
  }

  #allowedBy(parts: readonly number[], identity: Identity | undefined): Allowed | undefined {
    if (parts.length === 0) return undefined
    const hasNames = parts.some((i) => (this.#parts.get(i)?.names.length ?? 0) > 0)
    const key = `${parts.toSorted((a, b) => a - b).join()}${hasNames ? `|${JSON.stringify(identity?.ports)}` : ''}`
    const known = this.#allowed.get(key)
    if (known !== undefined) return known
    const cells = new Map<number, number>()
    const ordered = parts.flatMap((i) => this.#parts.get(i) ?? []).sort((a, b) => (a.order < b.order ? -1 : 1))
    for (const part of ordered) {
      const put = (cell: number): void => {
        if (!cells.has(cell)) cells.set(cell, part.rule)
      }
      if (part.prefixes === undefined) put(anyCell)
      for (const prefix of part.prefixes ?? []) put(cellOf(prefix))
      for (const name of part.names) for (const prefix of resolveName(name, identity?.ports ?? [])) put(cellOf(prefix))
    }
    const allowed = cells.size === 0 ? undefined : cells
    if (allowed !== undefined) this.#allowed.set(key, allowed)
    return allowed
  }

  /** Numbers of rules and peers are given back; what is in the kernel is not touched. */
  release(): void {
    for (const live of this.#selectors.keys()) this.#shared.release(live, this.#tell)
    this.#selectors.clear()
    for (const { rule } of this.#parts.values()) this.#rules.release(rule)
    this.touched.clear()
  }
}

const everyPod: Peer = (() => {
  const parsed = parsePolicy({
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    metadata: { name: '', namespace: '' },
    spec: { podSelector: {}, ingress: [{ from: [{ namespaceSelector: {} }] }] },
  } as unknown as Policy['object'])
  const peer = 'policy' in parsed ? parsed.policy.rules.ingress?.[0]?.peers?.[0] : undefined
  if (peer === undefined) throw new Error('a selector of everything must be readable')
  return peer
})()

/** Numbers that a name leads to at a pod. */
function resolveName(
  { name, protocol }: { readonly name: string; readonly protocol: number },
  ports: readonly NamedPort[],
): PortPrefix[] {
  return ports.flatMap((port) =>
    port.name === name && protocolNumbers.get(port.protocol) === protocol
      ? [{ protocol, port: port.number, bits: 16 }]
      : [],
  )
}

/** Protocol 0: any, and any port. */
const anyCell = 0
const cellOf = ({ protocol, port, bits }: PortPrefix): number => (protocol << 21) | (port << 5) | bits

export const entryOf = (set: number, peer: number, cell: number, rule: number): PolicyEntry => ({
  set,
  peer,
  protocol: cell === anyCell ? undefined : cell >>> 21,
  port: (cell >>> 5) & 0xffff,
  portBits: cell & 0x1f,
  rule,
})
