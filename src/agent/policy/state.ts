import type { Node } from '#api/gen/core-v1.ts'
import type { NetworkPolicy } from '#api/gen/networking-v1.ts'
import type { Labels } from '#api/meta/labels.ts'
import { LiveRelevance, type Relevance, relevantTo } from '#api/networking/relevance.ts'
import { formatCidr, parseCidr } from '#base/net/address.ts'
import type { AddressIdentity, Datapath, EndpointPolicy } from '#datapath/datapath.ts'
import { setNotReady } from '#datapath/maps/policy.ts'
import { NodeDirectory } from '../identity/nodes.ts'
import { Numbering, type PeerPod } from '../identity/numbering.ts'
import { Compiler, type LocalPod, type Round, type SetNumbers } from './compile.ts'
import { localIdentityFirst } from './networks.ts'
import { type Policy, type Problem, parsePolicy } from './parse.ts'

/** One of this node's sandboxes that policies are for. */
export interface LocalEndpoint {
  /** Of the sandbox. */
  readonly id: string
  /** `namespace/name` of its pod. */
  readonly podKey: string
  readonly addresses: readonly string[]
}

/** What a sandbox's first entry in the kernel has to say. */
export interface EndpointNumbers extends SetNumbers {
  readonly identity: number
}

export interface PolicyStateOptions {
  readonly datapath: Datapath
  readonly nodeName: string
  /** Packets between nodes are wrapped: addresses need to say where to. */
  readonly isTunnelled?: boolean
  /** Local addresses of every node behind which its resolver stands; they count as a pod of kube-dns. */
  readonly resolverAddresses?: readonly string[]
  /** Milliseconds, monotonic. */
  readonly now: () => number
}

/**
 * How long what is no longer used stays in the kernel: a packet under way is done in microseconds, another node's copy of
 * the same change is behind by milliseconds, and a set that somebody takes up again meanwhile costs nothing.
 */
const graceMs = 5_000
/** A number goes on the wire only when every node has surely heard what it means; until then the old one is as good. */
const wireGraceMs = 500

/**
 * All that policies on this node depend on, and what the kernel has of it. Changes are taken in at any time; `write()` pours
 * them into the datapath in the one order in which nothing opens and nothing is cut that is allowed before and after:
 * sets, networks and set numbers; then addresses' identities; then what is no longer meant; then the epoch.
 */
export class PolicyState {
  readonly compiler: Compiler
  readonly numbering: Numbering
  readonly #options: PolicyStateOptions
  readonly #nodes: NodeDirectory
  readonly #relevance = new LiveRelevance()
  readonly #relevantTo = new Map<string, Relevance>()
  readonly #endpoints = new Map<string, LocalEndpoint>()
  readonly #endpointsOf = new Map<string, Set<string>>()
  /** Who has an address; of two pods the one that was told of last. */
  readonly #owners = new Map<string, string>()
  readonly #addressesOf = new Map<string, readonly string[]>()
  /** To be written; undefined: to be taken away. */
  readonly #rows = new Map<string, AddressIdentity | undefined>()
  #nodeRows = new Map<string, AddressIdentity>()
  readonly #idleSince = new Map<number, number>()
  readonly #unusedSince = new Map<number, number>()
  /** Identities of sandboxes here that are to follow their addresses', and when. */
  readonly #identityMoves = new Map<string, { readonly identity: number; readonly at: number }>()
  #epochDue = false
  #refreshDue = false
  #isFirst = true
  /** Isolation that could not be written: these pods are closed until it is. */
  readonly #closed = new Set<string>()

  constructor(options: PolicyStateOptions) {
    const { datapath, nodeName, isTunnelled = false, resolverAddresses = [] } = options
    this.#options = options
    this.compiler = new Compiler()
    this.#nodes = new NodeDirectory(nodeName, { isTunnelled })
    this.numbering = new Numbering({
      relevance: this.#relevance,
      localFirst: localIdentityFirst,
      onMeaning: (number, meaning) => this.compiler.shared.setIdentity(number, meaning),
      onPod: (key, pod, number) => this.#movePod(key, pod, number),
    })
    this.#adopt(datapath)
    if (resolverAddresses.length > 0)
      this.numbering.setLocal(resolver.key, { ...resolver, addresses: resolverAddresses })
  }

  /** What an earlier agent left keeps its numbers, and its numbers are nobody else's. */
  #adopt(datapath: Datapath): void {
    let set = 0
    let rule = 0
    for (const entry of datapath.policyEntries()) {
      set = Math.max(set, entry.set)
      rule = Math.max(rule, entry.rule)
    }
    for (const { egressSet, ingressSet } of datapath.endpointPolicies().values())
      for (const number of [egressSet, ingressSet]) if (number !== setNotReady) set = Math.max(set, number)
    this.compiler.startAfter({ set, rule })
    this.compiler.shared.networks.adopt(
      [...datapath.policyNetworks()].flatMap(([text, number]) => {
        const cidr = parseCidr(text)
        return cidr === undefined ? [] : [[cidr, number] as const]
      }),
    )
    this.numbering.adopt(datapath.identities())
  }

  /**
   * The policy of that name now. Returns what is wrong with it: then the last good state of the object stays, and where it
   * has none, the pods that it selects are closed.
   */
  setPolicy(key: string, object: NetworkPolicy | undefined): readonly Problem[] {
    const parsed = object === undefined ? undefined : parsePolicy(object)
    const known = this.compiler.policy(key)
    if (parsed !== undefined && 'problems' in parsed) {
      if (known?.uid !== parsed.closed?.uid) this.#replacePolicy(key, known, parsed.closed)
      return parsed.problems
    }
    this.#replacePolicy(key, known, parsed?.policy)
    return []
  }

  #replacePolicy(key: string, known: Policy | undefined, next: Policy | undefined): void {
    if (next !== undefined && next.uid === known?.uid && next.generation === known.generation) return
    const relevant = next === undefined ? undefined : relevantTo(next.object)
    // Numbers are split, and addresses have theirs, before the policy that tells them apart is compiled …
    if (this.#relevance.replace(undefined, relevant)) {
      this.numbering.refresh()
      this.#flush()
    }
    this.compiler.setPolicy(key, next)
    // … and come together again only when no set tells them apart any more.
    if (this.#relevance.replace(this.#relevantTo.get(key), undefined)) this.#refreshDue = true
    if (relevant === undefined) this.#relevantTo.delete(key)
    else this.#relevantTo.set(key, relevant)
  }

  /** Not before everything is known: half of it must not be written. */
  #flush(): void {
    if (this.#isFirst) return
    try {
      this.#writeOnce()
    } catch {
      // The write that follows meets the same, and says so.
    }
  }

  /** Pods of the cluster that are there when the agent starts. */
  loadPeers(pods: readonly PeerPod[]): void {
    this.numbering.load(pods)
  }

  setNamespace(name: string, labels: Labels | undefined): void {
    this.compiler.shared.setNamespace(name, labels)
  }

  /** A pod of the cluster that has addresses; undefined: it has none any more. */
  setPeer(key: string, pod: PeerPod | undefined): void {
    this.numbering.set(key, pod)
  }

  setNodes(nodes: readonly Node[]): void {
    if (!this.#nodes.set(nodes)) return
    const rows = new Map(this.#nodes.rows().map((row) => [row.address, row]))
    for (const address of this.#nodeRows.keys()) if (!rows.has(address)) this.#rows.set(address, undefined)
    for (const [address, row] of rows) this.#rows.set(address, row)
    this.#nodeRows = rows
    for (const { pod, number } of this.numbering.list()) this.#movePod(pod.key, pod, number)
  }

  /** A sandbox of this node; its policies follow with `setLocalPod`. */
  setEndpoint(id: string, endpoint: LocalEndpoint | undefined): void {
    const old = this.#endpoints.get(id)
    if (old !== undefined) this.#endpointsOf.get(old.podKey)?.delete(id)
    if (endpoint === undefined) {
      this.#endpoints.delete(id)
      this.#closed.delete(id)
      this.compiler.setPod(id, undefined)
      return
    }
    this.#endpoints.set(id, endpoint)
    this.#endpointsOf.set(endpoint.podKey, (this.#endpointsOf.get(endpoint.podKey) ?? new Set()).add(id))
  }

  endpointsOf(podKey: string): readonly string[] {
    return [...(this.#endpointsOf.get(podKey) ?? [])]
  }

  /** What policies see of the pod of a sandbox. A sandbox whose pod is gone keeps what it had. */
  setLocalPod(id: string, pod: LocalPod): void {
    if (this.#endpoints.has(id)) this.compiler.setPod(id, pod)
  }

  numbersOf(id: string): EndpointNumbers | undefined {
    const numbers = this.compiler.numbersOf(id)
    const endpoint = this.#endpoints.get(id)
    if (numbers === undefined || endpoint === undefined) return undefined
    return { ...numbers, identity: this.numbering.get(endpoint.podKey)?.number ?? 0 }
  }

  /** Brings the kernel up to date. Throws where it cannot; then everything not written is written by the next call. */
  write(): void {
    this.#writeOnce()
    if (!this.#refreshDue) return
    this.#refreshDue = false
    this.numbering.refresh()
    this.#writeOnce()
  }

  #writeOnce(): void {
    const { datapath } = this.#options
    const round = this.compiler.round()
    if (round !== undefined) this.#writeRound(round)
    this.#writeRows()
    if (round !== undefined && round.remove.length > 0) {
      datapath.removePolicyEntries(round.remove)
      this.#epochDue = true
    }
    const moves = [...this.#identityMoves].filter(([, { at }]) => at <= this.#options.now())
    if (this.#epochDue || moves.length > 0) {
      datapath.changePolicy({ endpoints: moves.flatMap(([id, { identity }]) => this.#policyOf(id, { identity })) })
      this.#epochDue = false
      for (const [id] of moves) this.#identityMoves.delete(id)
    }
    this.#note(this.#unusedSince, this.compiler.unused())
    this.#note(this.#idleSince, this.numbering.idle())
    if (this.#isFirst) this.#forgetOthers()
    this.#isFirst = false
  }

  /** Takes away what nobody has used for a while. Returns milliseconds until there is more to do here or to write. */
  sweep(): number | undefined {
    const { datapath, now } = this.#options
    const due = (since: Map<number, number>): number[] =>
      [...since].flatMap(([number, at]) => (now() - at >= graceMs ? [number] : []))
    for (const number of due(this.#unusedSince)) {
      const entries = this.compiler.drop(number)
      if (entries !== undefined) datapath.removePolicyEntries(entries)
      this.#unusedSince.delete(number)
    }
    const idle = due(this.#idleSince)
    this.numbering.giveUp(idle)
    for (const number of idle) this.#idleSince.delete(number)
    const moves = [...this.#identityMoves.values()].map(({ at }) => at)
    const since = [...this.#unusedSince.values(), ...this.#idleSince.values()].map((at) => at + graceMs)
    const [next] = [...moves, ...since].toSorted((a, b) => a - b)
    return next === undefined ? undefined : Math.max(1, next - now())
  }

  /** Sandboxes that are closed because their policies could not be written. */
  closed(): readonly string[] {
    return [...this.#closed]
  }

  /** Policies that select a sandbox, for telling whose writing failed. */
  policiesOf(id: string): readonly Policy[] {
    return this.compiler.policiesFor(id)
  }

  get status() {
    return { ...this.compiler.status, identities: this.numbering.size, closed: this.#closed.size }
  }

  #writeRound(round: Round): void {
    const { datapath } = this.#options
    const { add, networksAdded, networksRemoved } = round
    if (add.length + networksAdded.length + networksRemoved.length + round.endpoints.size === 0) {
      round.settle()
      return
    }
    const endpoints = [...round.endpoints].flatMap(([id, { ingress, egress }]) =>
      this.#policyOf(id, { ingressSet: ingress, egressSet: egress }),
    )
    try {
      datapath.changePolicy({
        entries: add,
        networks: new Map(networksAdded.map((n) => [formatCidr(n.cidr), n.class])),
        removedNetworks: networksRemoved.map((n) => formatCidr(n.cidr)),
        endpoints,
      })
    } catch (error) {
      this.#close(round)
      throw error
    }
    round.settle()
    this.#closed.clear()
  }

  /**
   * The sets could not be written. Who was isolated stays isolated as before; who is to be isolated now is closed, rather
   * than open, in that direction.
   */
  #close(round: Round): void {
    const { datapath } = this.#options
    const present = datapath.endpointPolicies()
    const endpoints: EndpointPolicy[] = []
    for (const [id, wanted] of round.endpoints) {
      for (const address of this.#endpoints.get(id)?.addresses ?? []) {
        const has = present.get(address)
        if (has === undefined) continue
        const ingress = wanted.ingress !== 0 && has.ingressSet === 0
        const egress = wanted.egress !== 0 && has.egressSet === 0
        if (!ingress && !egress) continue
        this.#closed.add(id)
        this.compiler.forgetNumbers(id)
        endpoints.push({
          addresses: [address],
          ...(ingress ? { ingressSet: setNotReady } : {}),
          ...(egress ? { egressSet: setNotReady } : {}),
        })
      }
    }
    if (endpoints.length > 0) datapath.changePolicy({ endpoints })
  }

  #policyOf(id: string, change: Omit<EndpointPolicy, 'addresses'>): EndpointPolicy[] {
    const endpoint = this.#endpoints.get(id)
    return endpoint === undefined ? [] : [{ addresses: endpoint.addresses, ...change }]
  }

  #movePod(key: string, pod: PeerPod | undefined, number: number): void {
    for (const address of this.#addressesOf.get(key) ?? []) {
      if (pod?.addresses.includes(address) || this.#owners.get(address) !== key) continue
      this.#owners.delete(address)
      this.#rows.set(address, undefined)
    }
    if (pod === undefined) {
      this.#addressesOf.delete(key)
      return
    }
    this.#addressesOf.set(key, pod.addresses)
    for (const address of pod.addresses) {
      this.#owners.set(address, key)
      this.#rows.set(address, this.#nodes.rowOf(address, number, pod.uid))
    }
    const at = this.#options.now() + (this.#options.isTunnelled === true ? wireGraceMs : 0)
    for (const id of this.endpointsOf(key)) this.#identityMoves.set(id, { identity: number, at })
  }

  #writeRows(): void {
    if (this.#rows.size === 0) return
    const { datapath } = this.#options
    const removed: string[] = []
    const rows: AddressIdentity[] = []
    for (const [address, row] of this.#rows) {
      if (row === undefined) removed.push(address)
      else rows.push(row)
    }
    if (rows.length > 0) datapath.upsertIdentities(rows)
    if (removed.length > 0) datapath.removeIdentities(removed)
    this.#rows.clear()
  }

  #note(since: Map<number, number>, present: readonly number[]): void {
    const now = this.#options.now()
    const still = new Set(present)
    for (const number of since.keys()) if (!still.has(number)) since.delete(number)
    for (const number of present) if (!since.has(number)) since.set(number, now)
  }

  /** After the first complete write: what an earlier agent left and nobody means any more. */
  #forgetOthers(): void {
    const { datapath } = this.#options
    const first = this.compiler.firstSet
    const inUse = new Set<number>()
    for (const { egressSet, ingressSet } of datapath.endpointPolicies().values()) inUse.add(egressSet).add(ingressSet)
    const stale = datapath.policyEntries().filter(({ set }) => set < first && !inUse.has(set))
    if (stale.length > 0) datapath.removePolicyEntries(stale)
    const live = new Set(this.compiler.shared.networks.list().map((n) => formatCidr(n.cidr)))
    const removedNetworks = [...datapath.policyNetworks().keys()].filter((text) => !live.has(text))
    if (removedNetworks.length > 0) datapath.changePolicy({ removedNetworks })
    const gone = [...datapath.identities().keys()].filter((a) => !this.#owners.has(a) && !this.#nodeRows.has(a))
    if (gone.length > 0) datapath.removeIdentities(gone)
  }
}

/** Every node's resolver answers in the place of the kube-dns pods that policies of other clusters allow. */
const resolver = {
  key: '(resolver)',
  uid: 'weft.dev/resolver',
  namespace: 'kube-system',
  labels: { 'k8s-app': 'kube-dns' },
  ports: [
    { name: 'dns', number: 53, protocol: 'UDP' },
    { name: 'dns-tcp', number: 53, protocol: 'TCP' },
  ],
} as const
