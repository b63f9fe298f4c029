import { namedPortsOf } from '#api/core/pod/identity.ts'
import type { Namespace, Node, Pod } from '#api/gen/core-v1.ts'
import type { NetworkPolicy } from '#api/gen/networking-v1.ts'
import { Scope } from '#base/async/scope.ts'
import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log/log.ts'
import type { EventRecorder } from '#client/events.ts'
import type { Informer } from '#client/informer.ts'
import { keyOf } from '#client/key.ts'
import type { Datapath } from '#datapath/datapath.ts'
import type { PeerPod } from '../identity/numbering.ts'
import { reflectPeer } from '../identity/reflect.ts'
import { Signal } from '../signal.ts'
import { writeLoop } from '../write-loop.ts'
import type { LocalPod } from './compile.ts'
import type { Direction } from './parse.ts'
import { elementAt } from './rules.ts'
import { type EndpointNumbers, type LocalEndpoint, PolicyState } from './state.ts'

export interface PoliciesOptions {
  readonly nodeName: string
  /** This node's pods. */
  readonly pods: Informer<Pod>
  /** All pods that have addresses (`livePodsSelector`): their metadata, or all of them where the API server is another than ours. */
  readonly peers: Informer<Pod>
  readonly nodes: Informer<Node>
  readonly namespaces: Informer<Namespace>
  readonly policies: Informer<NetworkPolicy>
  readonly datapath: Datapath
  readonly events: EventRecorder
  readonly isTunnelled?: boolean
  readonly resolverAddresses?: readonly string[]
  readonly clock: Clock
  readonly log: Log
}

/** What a number in a verdict stands for. */
export interface RuleName {
  readonly namespace: string
  readonly name: string
  readonly uid: string
  readonly generation: number
  readonly direction: Direction
  /** `spec.ingress[1].from[0]`. */
  readonly path: string
  /** What stands there. */
  readonly element: unknown
}

/**
 * NetworkPolicies and identities in this node's kernel. Nothing is taken away before all copies are complete, so that a
 * restart opens and cuts nothing; after that a change costs what depends on it, and is written at once.
 */
export class Policies {
  readonly #options: PoliciesOptions
  readonly #wake = new Signal()
  #state: PolicyState | undefined
  #restored: readonly LocalEndpoint[] = []
  #nodesChanged = false
  #trouble: unknown
  #cancelSweep: () => void = () => {}
  /** Generations that were refused, by key: said once each. */
  readonly #refused = new Map<string, string>()
  /** Policies that have changed since the kernel last had all of them. */
  readonly #unwritten = new Map<string, NetworkPolicy>()
  /** What has been said of them: once each, however often it is tried again. */
  readonly #told = new Set<string>()

  constructor(options: PoliciesOptions) {
    this.#options = options
  }

  status() {
    return {
      ...(this.#state?.status ?? { policies: 0, sets: 0, entries: 0, identities: 0, closed: 0 }),
      refused: this.#refused.size,
      trouble: this.#trouble === undefined ? '' : String(this.#trouble),
    }
  }

  /** Sandboxes that are there already; before `run`. */
  restore(endpoints: readonly LocalEndpoint[]): void {
    this.#restored = endpoints
  }

  async run(signal: AbortSignal, started: () => void = () => {}): Promise<void> {
    const { pods, peers, nodes, namespaces, policies, datapath, events, clock, log } = this.#options
    await Promise.all([pods, peers, nodes, namespaces, policies].map((copy) => copy.whenSynced(signal)))
    const { nodeName, isTunnelled = false, resolverAddresses = [] } = this.#options
    const start = clock.monotonic()
    const now = (): number => clock.monotonic()
    const state = new PolicyState({ datapath, nodeName, isTunnelled, resolverAddresses, now })
    this.#state = state
    const wake = (): void => this.#wake.raise()
    namespaces.onChange((next, old) => {
      state.setNamespace((next ?? old)?.metadata.name ?? '', next && (next.metadata.labels ?? {}))
      wake()
    }, signal)
    policies.onChange((next, old) => {
      const object = next ?? old
      if (object !== undefined) this.#setPolicy(state, keyOf(object), next)
      wake()
    }, signal)
    nodes.onChange(() => {
      this.#nodesChanged = true
      wake()
    }, signal)
    state.loadPeers(peers.list().flatMap((pod) => this.#peerOf(pod) ?? []))
    peers.onChange((next, old) => {
      const object = next ?? old
      if (object !== undefined) this.#setPeer(state, keyOf(object), next)
      wake()
    }, signal)
    for (const endpoint of this.#restored) state.setEndpoint(endpoint.id, endpoint)
    pods.onChange((next) => {
      if (next === undefined) return
      for (const id of state.endpointsOf(keyOf(next))) state.setLocalPod(id, localPod(next))
      wake()
    }, signal)
    let first = true
    const write = (): void => {
      this.#write(state)
      if (first) log.info({ ...state.status, ms: Math.round(clock.monotonic() - start) }, 'policies are in place')
      first = false
    }
    const tell = (trouble: unknown): void => {
      this.#trouble = trouble
      if (trouble !== undefined) {
        this.#tellUnwritten(state)
        return
      }
      this.#unwritten.clear()
      this.#told.clear()
    }
    const sentence = 'policies could not be written, trying again'
    await using scope = new Scope(signal)
    scope.start((stop) => events.run(stop))
    scope.start((stop) => writeLoop({ wake: this.#wake, write, tell, sentence, clock, log }, stop, started))
    try {
      await scope.done()
    } finally {
      this.#cancelSweep()
    }
  }

  /**
   * A sandbox's policies and identities, in the kernel before this returns: its first packet meets them. Throws where they
   * cannot be written.
   */
  connect(endpoint: LocalEndpoint, pod: Pod): EndpointNumbers {
    const state = this.#state
    if (state === undefined) throw new Error('policies are not known yet')
    const peer = reflectPeer(pod)
    const { podKey, addresses, id } = endpoint
    const { namespace, uid, labels = {} } = pod.metadata
    const known = peer ?? { namespace, uid, labels, identity: undefined, key: podKey }
    state.setPeer(podKey, { ...known, addresses, ports: namedPortsOf(pod) })
    state.setEndpoint(id, endpoint)
    state.setLocalPod(id, localPod(pod))
    this.#write(state)
    const numbers = state.numbersOf(id)
    if (numbers === undefined) throw new Error(`sandbox ${id} has no policy numbers`)
    return numbers
  }

  /** After the sandbox's device is gone. */
  disconnect(id: string): void {
    this.#state?.setEndpoint(id, undefined)
    this.#wake.raise()
  }

  /** Undefined for a number that no rule has had since the agent started. */
  rule(number: number): RuleName | undefined {
    const source = this.#state?.compiler.rules.source(number)
    if (source === undefined) return undefined
    const { policy, path, direction } = source
    const { namespace, name, uid, generation } = policy
    return { namespace, name, uid, generation, direction, path, element: elementAt(policy.object, path) }
  }

  /** The policies behind a set's number, each with what takes the pod: under a denial, those that isolate it and do not allow it. */
  set(number: number): readonly RuleName[] {
    const compiler = this.#state?.compiler
    const direction = compiler?.directionOf(number) ?? 'ingress'
    return (compiler?.policiesOf(number) ?? []).map(({ namespace, name, uid, generation, object }) => ({
      ...{ namespace, name, uid, generation, direction },
      ...{ path: selectorPath, element: elementAt(object, selectorPath) ?? {} },
    }))
  }

  #write(state: PolicyState): void {
    const { nodes, clock } = this.#options
    if (this.#nodesChanged) state.setNodes(nodes.list())
    this.#nodesChanged = false
    state.write()
    this.#cancelSweep()
    const next = state.sweep()
    if (next !== undefined) this.#cancelSweep = clock.schedule(next, () => this.#wake.raise())
  }

  #setPolicy(state: PolicyState, key: string, object: NetworkPolicy | undefined): void {
    const problems = state.setPolicy(key, object)
    if (object === undefined || problems.length > 0) this.#unwritten.delete(key)
    else this.#unwritten.set(key, object)
    if (problems.length === 0 || object === undefined) {
      this.#refused.delete(key)
      return
    }
    const text = problems.map(({ field, message }) => `${field}: ${message}`).join('; ')
    if (this.#refused.get(key) === text) return
    this.#refused.set(key, text)
    const hadGood = state.compiler.policy(key)?.generation !== object.metadata.generation
    const instead = hadGood ? 'its last good state stays in force' : 'the pods that it selects are closed'
    const message = `${text}: on node ${this.#options.nodeName} ${instead}`
    this.#options.log.warn({ policy: key, problems }, 'a policy is refused')
    this.#options.events.record(object, {
      type: 'Warning',
      reason: 'PolicyRefused',
      message,
      ...pathOf(problems[0]?.field),
    })
  }

  #setPeer(state: PolicyState, key: string, object: Pod | undefined): void {
    const peer = object && this.#peerOf(object)
    // A sandbox of ours may have its addresses before its pod says so.
    if (peer === undefined && object !== undefined && state.endpointsOf(key).length > 0) return
    state.setPeer(key, peer)
  }

  #peerOf(object: Pod): PeerPod | undefined {
    try {
      return reflectPeer(object)
    } catch (err) {
      this.#options.log.error({ err, pod: keyOf(object) }, 'a pod cannot be known to policies')
      return undefined
    }
  }

  /** Said on every policy that could not be put into force: what holds instead for the pods that it selects. */
  #tellUnwritten(state: PolicyState): void {
    const { nodeName, events } = this.#options
    const closed = new Map<string, NetworkPolicy>()
    for (const id of state.closed()) for (const { key, object } of state.policiesOf(id)) closed.set(key, object)
    const tell = (object: NetworkPolicy, instead: string): void => {
      const message = `spec: node ${nodeName} cannot write it, and ${instead}: ${this.#trouble}`
      const once = `${object.metadata.uid} ${object.metadata.generation} ${message}`
      if (this.#told.has(once)) return
      if (this.#told.size >= rememberedMax) this.#told.clear()
      this.#told.add(once)
      events.record(object, { type: 'Warning', reason: 'PolicyNotEnforced', message, fieldPath: 'spec' })
    }
    for (const object of closed.values()) tell(object, 'has closed the pods that it newly isolates')
    let room = toldMax
    for (const [key, object] of this.#unwritten) {
      if (closed.has(key) || room-- <= 0) continue
      tell(object, 'what was written before stays in force')
    }
  }
}

/** At a start all policies are new at once: that some could not be written is said of so many, and of the node in its status. */
const toldMax = 100
const rememberedMax = 10_000

const selectorPath = 'spec.podSelector'

const pathOf = (field: string | undefined) => (field === undefined ? {} : { fieldPath: field })

const localPod = (pod: Pod): LocalPod => ({
  namespace: pod.metadata.namespace,
  labels: pod.metadata.labels ?? {},
  ports: namedPortsOf(pod),
})
