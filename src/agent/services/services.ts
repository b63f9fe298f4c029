import type { Service as KubeService, Node, Pod } from '#api/gen/core-v1.ts'
import type { EndpointSlice } from '#api/gen/discovery-v1.ts'
import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log/log.ts'
import type { EventRecorder } from '#client/events.ts'
import type { Informer } from '#client/informer.ts'
import { keyOf } from '#client/key.ts'
import type { Datapath, Service } from '#datapath/datapath.ts'
import { type Backend, frontendName } from '#datapath/frontend.ts'
import type { Namespace } from '#kernel/netns.ts'
import { Signal } from '../signal.ts'
import { writeLoop } from '../write-loop.ts'
import { elect, mayAnnounce, type Published, planKnownAddresses, publishedBy } from './addresses.ts'
import { Claims } from './claims.ts'
import { externalUses } from './external.ts'
import { backendsIn, GoneBackends, leftByDatagrams, takenOut } from './gone.ts'
import { HealthServers, healthOf, isEligible, type ServiceHealth } from './health.ts'
import { reflectHostPorts } from './host-ports.ts'
import { type LocalBackends, withLocalBackends } from './local.ts'
import { planServices } from './plan.ts'
import { type ReflectFacts, reflectService, serviceOfSlice } from './reflect.ts'
import { fieldAsking, troublesOf } from './troubles.ts'

/** Services that name this class, or none, have addresses that we announce. */
const ownClass = 'weft.dev/load-balancer'
const zoneLabel = 'topology.kubernetes.io/zone'

export interface ServicesOptions {
  readonly nodeName?: string
  readonly services: Informer<KubeService>
  readonly slices: Informer<EndpointSlice>
  /** All nodes; absent: no address of a node is known, so none is announced. */
  readonly nodes?: Informer<Node>
  /** Pods of this node, for their host ports. */
  readonly pods?: Informer<Pod>
  /** Paths of the network namespaces of this node's pods. */
  readonly sandboxes?: () => readonly string[]
  /** The node's network namespace; absent: our own. */
  readonly namespace?: Namespace
  /** Told of what a Service asks for in vain, by one node for all. */
  readonly events?: EventRecorder
  /** Answers load balancers' questions on the node's ports. */
  readonly healthChecks?: boolean
  readonly datapath: Datapath
  /** Networks of pods and Services: no external IP may be one of theirs. */
  readonly clusterCidrs?: readonly string[]
  /** Networks of external IPs that pods too may be led by to a Service. */
  readonly externalIpCidrs?: readonly string[]
  /** Services, as `namespace/name`, whose backend is the node itself at one of these addresses, where they have no selector. */
  readonly localBackends?: LocalBackends
  readonly clock: Clock
  readonly log: Log
}

/** Keys of pods, among those of Services, which have no colon. */
const podPrefix = 'pod:'

/**
 * Services and EndpointSlices poured into the kernel's maps. On start everything is compared with what the kernel has,
 * in one batch and only once all copies are complete, so that a restart takes nothing away; after that a change costs
 * the rows of its Service.
 */
export class Services {
  readonly #options: ServicesOptions
  /** What each Service came to when it was last written. */
  readonly #rows = new Map<string, readonly Service[]>()
  readonly #changed = new Set<string>()
  readonly #published = new Map<string, Published>()
  readonly #claims = new Claims()
  readonly #wake = new Signal()
  #facts: ReflectFacts & { readonly own: readonly string[]; readonly text: string }
  readonly #gone: GoneBackends
  readonly #health = new Map<string, ServiceHealth>()
  #addressesChanged = true
  #trouble: unknown

  constructor(options: ServicesOptions) {
    this.#options = options
    this.#facts = this.#readFacts()
    const { datapath, namespace, clock, log, sandboxes = () => [] } = options
    const own = namespace === undefined ? {} : { namespace }
    const isPresent = (backend: Backend): boolean => this.#isPresent(backend)
    this.#gone = new GoneBackends({ datapath, sandboxes, ...own, clock, log, isPresent })
  }

  /** Some Service has it, ready or not. */
  #isPresent(backend: Backend): boolean {
    const { datapath, slices } = this.#options
    if (datapath.hasBackend(backend)) return true
    const name = frontendName(backend)
    return slices
      .list()
      .some(
        (slice) =>
          slice.endpoints?.some((e) => e.addresses[0] === backend.address) &&
          backendsIn(slice).some((b) => frontendName(b) === name),
      )
  }

  status(): {
    readonly services: number
    readonly frontends: number
    readonly backends: number
    readonly announced: readonly string[]
    readonly trouble: string
  } {
    const rows = [...this.#rows.values()].flat()
    return {
      services: [...this.#rows.keys()].filter((key) => !key.startsWith(podPrefix)).length,
      frontends: rows.length,
      backends: rows.reduce((sum, row) => sum + row.backends.length, 0),
      announced: this.#options.datapath.knownAddresses().flatMap((a) => (a.isAnnounced ? [a.address] : [])),
      trouble: this.#trouble === undefined ? '' : String(this.#trouble),
    }
  }

  async run(signal: AbortSignal, started: () => void = () => {}): Promise<void> {
    const { services, slices, nodes, pods, clock, log } = this.#options
    slices.index('service', serviceOfSlice)
    await Promise.all([services, slices, nodes, pods].map((informer) => informer?.whenSynced(signal)))
    const look = (...keys: readonly string[]): void => {
      for (const key of keys) this.#changed.add(key)
      this.#wake.raise()
    }
    services.onChange((next, old) => look(...[next, old].flatMap((s) => (s === undefined ? [] : [keyOf(s)]))), signal)
    slices.onChange((next, old) => this.#gone.noteTaken(takenOut(old, next)), signal)
    slices.onChange(
      (next, old) => look(...[next, old].flatMap((s) => (s === undefined ? [] : serviceOfSlice(s)))),
      signal,
    )
    pods?.onChange((next, old) => {
      const pod = next ?? old
      if (pod !== undefined && (hasHostPort(next) || hasHostPort(old))) look(`${podPrefix}${keyOf(pod)}`)
    }, signal)
    nodes?.onChange(() => {
      this.#addressesChanged = true
      this.#wake.raise()
    }, signal)
    await using health = this.#healthServers()
    let first = true
    const write = async (): Promise<void> => {
      this.#learnFacts()
      if (first) this.#writeAll()
      else this.#writeChanged()
      first = false
      health?.set([...this.#health.values()])
      await this.#options.datapath.attachForServices()
    }
    const tell = (trouble: unknown): void => {
      this.#trouble = trouble
    }
    const sentence = 'Services could not be written, trying again'
    await Promise.all([
      writeLoop({ wake: this.#wake, write, tell, sentence, clock, log }, signal, started),
      this.#gone.run(signal),
      this.#options.events?.run(signal),
    ])
  }

  #healthServers(): HealthServers | undefined {
    const { nodes, nodeName = '', namespace, clock, log, healthChecks = false } = this.#options
    if (!healthChecks) return undefined
    const own = namespace === undefined ? {} : { namespace }
    return new HealthServers({ ...own, clock, log, isEligible: () => isEligible(nodes?.get(nodeName)) })
  }

  #readFacts(): ReflectFacts & { readonly own: readonly string[]; readonly text: string } {
    const { nodeName = '', nodes, clusterCidrs = [], externalIpCidrs = [] } = this.#options
    const self = nodes?.get(nodeName)
    const addressesOf = (node: Node): string[] => (node.status?.addresses ?? []).map(({ address }) => address)
    const taken = new Set((nodes?.list() ?? []).flatMap(addressesOf))
    const own = (self?.status?.addresses ?? []).flatMap((a) => (a.type === 'Hostname' ? [] : [a.address]))
    const zone = self?.metadata.labels?.[zoneLabel]
    return {
      nodeName,
      zone,
      own,
      externalUse: externalUses({ clusterCidrs, allowed: externalIpCidrs, taken }),
      text: [zone, own, ...[...taken].toSorted()].join(),
    }
  }

  /** Nodes change every few seconds, what they mean to Services hardly ever. */
  #learnFacts(): void {
    if (!this.#addressesChanged) return
    const facts = this.#readFacts()
    if (facts.text === this.#facts.text) return
    this.#facts = facts
    for (const key of this.#rows.keys()) this.#changed.add(key)
  }

  /** Of these, and of those that gain or lose a frontend by them. */
  #reflectAll(keys: readonly string[]): Map<string, readonly Service[]> {
    const found = new Map<string, readonly Service[]>()
    const queue = [...keys]
    for (let key = queue.pop(); key !== undefined; key = queue.pop()) {
      const { rows, seniority } = this.#reflect(key)
      const settled = this.#claims.settle(key, seniority, rows)
      found.set(key, settled.rows)
      // Changed until they are written: claims are settled once, and a write that fails is tried again.
      for (const other of settled.others) this.#changed.add(other)
      queue.push(...settled.others)
      for (const { frontend, owner } of settled.lost) this.#tellLoss(key, frontend, owner)
    }
    return found
  }

  #tellLoss(key: string, frontend: string, owner: string): void {
    const { services, events, nodeName, log } = this.#options
    const service = services.get(key)
    const field = service === undefined ? '' : `${fieldAsking(service, frontend)}: `
    const message = `${field}${frontend} belongs to ${owner}, which was there before`
    log.warn({ key, frontend, owner }, 'an address and port is asked for twice')
    if (service !== undefined && this.#isSpeaker(key, nodeName))
      events?.record(service, { type: 'Warning', reason: 'FrontendTaken', message })
  }

  /** Older before younger, Services before host ports. */
  #reflect(key: string): { readonly rows: readonly Service[]; readonly seniority: string } {
    const { pods, services } = this.#options
    if (!key.startsWith(podPrefix))
      return { rows: this.#reflectService(key), seniority: services.get(key)?.metadata.creationTimestamp ?? '' }
    const pod = pods?.get(key.slice(podPrefix.length))
    const rows = pod === undefined ? [] : reflectHostPorts(pod, this.#facts.own)
    return { rows, seniority: `~${pod?.metadata.creationTimestamp ?? ''}` }
  }

  #reflectService(key: string): readonly Service[] {
    const { services, slices, localBackends } = this.#options
    const service = services.get(key)
    const ofService = service === undefined ? [] : slices.index('service', serviceOfSlice).get(key)
    const published = service === undefined ? undefined : publishedBy(service, ofService, ownClass)
    const health = service === undefined ? undefined : healthOf(service, ofService, this.#facts.nodeName)
    if (health === undefined) this.#health.delete(key)
    else this.#health.set(key, health)
    if (published !== undefined || this.#published.has(key)) this.#addressesChanged = true
    if (published === undefined) this.#published.delete(key)
    else this.#published.set(key, published)
    if (service === undefined) return []
    this.#tellTroubles(key, service, ofService)
    return withLocalBackends(service, reflectService(service, ofService, this.#facts), localBackends?.get(key))
  }

  /** One node speaks for all. */
  #isSpeaker(key: string, nodeName: string | undefined): boolean {
    const ready = (this.#options.nodes?.list() ?? []).filter(mayAnnounce).map(({ metadata }) => metadata.name)
    return elect(key, ready) === nodeName
  }

  #tellTroubles(key: string, service: KubeService, slices: readonly EndpointSlice[]): void {
    const { events, nodeName } = this.#options
    if (events === undefined) return
    const notes = troublesOf(service, slices, this.#facts)
    if (notes.length === 0) return
    if (this.#isSpeaker(key, nodeName)) for (const note of notes) events.record(service, note)
  }

  #writeAddresses(): void {
    if (!this.#addressesChanged) return
    const { nodes, nodeName = '', datapath, localBackends } = this.#options
    const known = planKnownAddresses({
      nodeName,
      nodes: nodes?.list() ?? [],
      published: [...this.#published.values()],
      resolver: [...(localBackends?.values() ?? [])].flat(),
    })
    datapath.setAddresses(known)
    this.#addressesChanged = false
  }

  #writeAll(): void {
    const { services, pods, datapath, log, clock } = this.#options
    const start = clock.monotonic()
    const keys = services.list().map(keyOf)
    for (const pod of pods?.list() ?? []) if (hasHostPort(pod)) keys.push(`${podPrefix}${keyOf(pod)}`)
    const wanted = this.#reflectAll(keys)
    const plan = planServices(datapath.services(), [...wanted.values()].flat())
    datapath.changeServices(plan.upserts, plan.removals)
    this.#writeAddresses()
    for (const [key, rows] of wanted) this.#rows.set(key, rows)
    this.#changed.clear()
    log.info(
      {
        services: wanted.size,
        written: plan.upserts.length,
        removed: plan.removals.length,
        ms: Math.round(clock.monotonic() - start),
      },
      'Services are in place',
    )
  }

  /** Everything that changed since, in one go; after a failure it all stays changed. An address that moves from one Service to another is one write. */
  #writeChanged(): void {
    const wanted = this.#reflectAll([...this.#changed])
    const keys = [...wanted.keys()]
    const present = keys.flatMap((key) => this.#rows.get(key) ?? [])
    const plan = planServices(present, [...wanted.values()].flat())
    const elsewhere = new Set(
      [...this.#rows].flatMap(([key, rows]) =>
        wanted.has(key) || plan.removals.length === 0 ? [] : rows.map((r) => frontendName(r.frontend)),
      ),
    )
    this.#options.datapath.changeServices(
      plan.upserts,
      plan.removals.filter((frontend) => !elsewhere.has(frontendName(frontend))),
    )
    this.#gone.noteLeft(leftByDatagrams(present, [...wanted.values()].flat()))
    this.#writeAddresses()
    for (const [key, rows] of wanted) {
      if (rows.length === 0) this.#rows.delete(key)
      else this.#rows.set(key, rows)
      this.#changed.delete(key)
    }
  }
}

const hasHostPort = (pod: Pod | undefined): boolean =>
  pod?.spec.containers.some((c) => c.ports?.some((p) => (p.hostPort ?? 0) !== 0)) ?? false
