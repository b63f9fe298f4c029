import { podAddressesAnnotation } from '#api/core/pod/addresses.ts'
import type { Node, Pod } from '#api/gen/core-v1.ts'
import { delay } from '#base/async/delay.ts'
import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log/log.ts'
import type { Informer } from '#client/informer.ts'
import { CniError, formatResult, type Request } from '#cni/protocol.ts'
import type { Datapath, Endpoint } from '#datapath/datapath.ts'
import { gateway4, gateway6, gatewayMac } from '#datapath/object.ts'
import { hasCode } from '#kernel/errno.ts'
import type { Netlink } from '#kernel/netlink/netlink.ts'
import { Namespace } from '#kernel/netns.ts'
import type { EndpointNumbers, LocalEndpoint } from '../policy/state.ts'
import { assignedAddresses, freeAddresses } from './address.ts'
import { type ConnectOptions, connectSandbox, type DevicePlan, planDevice } from './device.ts'
import { type EndpointRecord, type Records, recordName } from './record.ts'

/** The kubelet reads pods from the same server: ours may be behind by a moment, not by more. */
const podKnownWithinMs = 10_000

/** Who may talk to a pod, as far as sandboxes need to know it. */
export interface SandboxPolicies {
  /** In the kernel when it returns. Throws where that cannot be. */
  connect(endpoint: LocalEndpoint, pod: Pod): EndpointNumbers
  disconnect(id: string): void
}

export interface EndpointsOptions {
  readonly nodeName: string
  readonly pods: Informer<Pod>
  readonly nodes: Informer<Node>
  readonly datapath: Datapath
  readonly records: Records
  readonly policies: SandboxPolicies
  /** On the node's namespace. */
  readonly netlink: Pick<Netlink, 'link' | 'links' | 'removeLink'>
  /** Makes a sandbox's devices. */
  readonly wire: (
    plan: DevicePlan,
    netns: string,
    beforeUp: ConnectOptions['beforeUp'],
  ) => Promise<{ readonly ifindex: number }>
  /** Of pods' devices: the uplink's. */
  readonly mtu: number
  readonly clock: Clock
  readonly log: Log
}

/** Sandboxes of this node: made on ADD, gone on DEL, found again after a restart. */
export class Endpoints {
  readonly #options: EndpointsOptions
  /** Calls for one sandbox go one after the other. */
  readonly #turns = new Map<string, Promise<unknown>>()

  constructor(options: EndpointsOptions) {
    this.#options = options
  }

  get size(): number {
    return this.#options.records.list().length
  }

  /**
   * What a restart does first: every sandbox whose device is there gets its programs and entries as they should be,
   * what was half made is taken away, and so is everything that belongs to no sandbox.
   */
  async restore(): Promise<void> {
    const { records, netlink, datapath, log } = this.#options
    const indexes = new Map((await netlink.links()).map((link) => [link.name, link.index]))
    const restored: Endpoint[] = []
    for (const record of records.list()) {
      if (record.ifindex !== 0 && indexes.get(record.hostDevice) === record.ifindex) {
        await datapath.upsertEndpoint(endpointOf(record))
        restored.push(endpointOf(record))
      } else {
        // The runtime was never told of it, or took the namespace away meanwhile: it will ask again, or not.
        await this.#takeAway(record)
      }
    }
    const pruned = datapath.pruneEndpoints(restored)
    log.info({ endpoints: restored.length, pruned }, 'sandboxes are as they were')
  }

  /** Sandboxes that are there. */
  list(): LocalEndpoint[] {
    return this.#options.records.list().map(localOf)
  }

  /** One CNI call. Resolves with what the plug-in prints. */
  handle(request: Request, signal: AbortSignal): Promise<string> {
    switch (request.command) {
      case 'ADD':
        return this.#inTurn(request.containerId, () => this.#add(request, signal))
      case 'DEL':
        return this.#inTurn(request.containerId, () => this.#remove(request))
      case 'CHECK':
        return this.#inTurn(request.containerId, () => this.#check(request))
      case 'GC':
        return this.#collect(request)
      case 'STATUS':
        return Promise.resolve('')
      default:
        return request.command satisfies never
    }
  }

  async #inTurn<T>(id: string, work: () => Promise<T>): Promise<T> {
    const before = this.#turns.get(id) ?? Promise.resolve()
    const turn = before.then(work, work)
    this.#turns.set(id, turn)
    try {
      return await turn
    } finally {
      if (this.#turns.get(id) === turn) this.#turns.delete(id)
    }
  }

  async #add(request: Request, signal: AbortSignal): Promise<string> {
    const { wire, datapath, records, mtu, clock } = this.#options
    const start = clock.monotonic()
    const { containerId, ifname, netns } = request
    const pod = await this.#podOf(request, signal)
    const { namespace, name, uid = '' } = pod.metadata
    const log = this.#options.log.child({ pod: `${namespace}/${name}`, sandbox: containerId })
    const addresses = this.#addressesOf(pod, containerId, log)
    const plan = planDevice(containerId, ifname, mtu, addresses)
    const record: EndpointRecord = {
      containerId,
      ifname,
      netns,
      pod: { namespace, name: name ?? '', uid },
      addresses,
      hostDevice: plan.hostDevice,
      mac: plan.mac,
      ifindex: 0,
      createdAt: clock.now(),
    }
    // Remembered first: a crash on the way leaves something to take away.
    records.put(record)
    try {
      const { ifindex } = await wire(plan, netns, (index) => {
        // Asked for and written in one go: a policy that changes later finds the endpoint there and changes it.
        const { identity, ingress, egress } = this.#policiesOf(record, pod)
        return datapath.upsertEndpoint({
          ...endpointOf({ ...record, ifindex: index }),
          identity,
          ingressSet: ingress,
          egressSet: egress,
        })
      })
      records.put({ ...record, ifindex })
    } catch (error) {
      await this.#takeAway(record)
      throw error
    }
    log.info({ addresses, device: plan.hostDevice, ms: Math.round(clock.monotonic() - start) }, 'sandbox connected')
    return formatResult(resultOf(plan, netns), request.cniVersion)
  }

  #policiesOf(record: EndpointRecord, asked: Pod): EndpointNumbers {
    const { policies, pods } = this.#options
    const known = pods.get(`${record.pod.namespace}/${record.pod.name}`)
    // Its labels may be others by now.
    const pod = known?.metadata.uid === asked.metadata.uid ? known : asked
    try {
      return policies.connect(localOf(record), pod)
    } catch (cause) {
      throw new CniError('tryAgainLater', 'the policies for the pod cannot be written', { cause })
    }
  }

  async #podOf({ args }: Request, signal: AbortSignal): Promise<Pod> {
    const { pods, nodeName, clock } = this.#options
    const namespace = args.get('K8S_POD_NAMESPACE')
    const name = args.get('K8S_POD_NAME')
    const uid = args.get('K8S_POD_UID')
    if (namespace === undefined || name === undefined)
      throw new CniError('invalidEnvironment', 'CNI_ARGS names no pod (K8S_POD_NAMESPACE, K8S_POD_NAME)')
    const find = (): Pod | undefined => {
      const pod = pods.get(`${namespace}/${name}`)
      return pod !== undefined && (uid === undefined || uid === '' || pod.metadata.uid === uid) ? pod : undefined
    }
    const over = new AbortController()
    const both = AbortSignal.any([signal, over.signal])
    const late = delay(podKnownWithinMs, both, clock).then(
      () => over.abort(),
      () => {},
    )
    try {
      await pods.when(() => find() !== undefined, both)
    } catch (cause) {
      throw new CniError('tryAgainLater', `pod ${namespace}/${name} is not known on node ${nodeName}`, { cause })
    } finally {
      over.abort()
      await late
    }
    const pod = find()
    if (pod === undefined) throw new CniError('tryAgainLater', `pod ${namespace}/${name} has just gone`)
    return pod
  }

  #addressesOf(pod: Pod, containerId: string, log: Log): readonly string[] {
    const { nodes, nodeName, records } = this.#options
    const assigned = assignedAddresses(pod)
    if (assigned !== undefined) return assigned
    const podCidrs = nodes.get(nodeName)?.spec.podCIDRs ?? []
    if (podCidrs.length === 0)
      throw new CniError(
        'tryAgainLater',
        `node ${nodeName} has no spec.podCIDRs yet, and the pod no ${podAddressesAnnotation}`,
      )
    const used = new Set(records.list().flatMap((r) => (r.containerId === containerId ? [] : r.addresses)))
    for (const other of this.#options.pods.list())
      for (const address of assignedAddresses(other) ?? []) used.add(address)
    const addresses = freeAddresses(podCidrs, used)
    log.warn({ addresses, podCidrs }, 'the control plane chose no address for the pod: the node did')
    return addresses
  }

  /** Nothing to do is fine; another sandbox of the same pod, with the same address, is left alone. */
  async #remove({ containerId, ifname }: Request): Promise<string> {
    const record = this.#options.records.get(containerId, ifname)
    if (record !== undefined) await this.#takeAway(record)
    return ''
  }

  /** The device first: what its end still sends must not travel without programs. */
  async #takeAway(record: EndpointRecord): Promise<void> {
    const { netlink, datapath, records, policies, log } = this.#options
    await netlink.removeLink(record.hostDevice)
    const { pod, addresses } = record
    datapath.removeEndpoint(endpointOf(record))
    policies.disconnect(recordName(record))
    records.remove(record)
    log.info({ pod: `${pod.namespace}/${pod.name}`, sandbox: record.containerId, addresses }, 'sandbox disconnected')
  }

  async #check({ containerId, ifname }: Request): Promise<string> {
    const { records, netlink, datapath } = this.#options
    const record = records.get(containerId, ifname)
    if (record === undefined) throw new CniError('invalidEnvironment', `sandbox ${containerId} is not known`)
    if ((await netlink.link(record.hostDevice))?.index !== record.ifindex)
      throw new CniError('internal', `device ${record.hostDevice} of sandbox ${containerId} is gone`)
    const present = datapath.addresses()
    for (const address of record.addresses)
      if (present.get(address) !== record.ifindex) throw new CniError('internal', `address ${address} leads elsewhere`)
    return ''
  }

  /** Sandboxes that the runtime no longer knows. */
  async #collect({ validAttachments }: Request): Promise<string> {
    const valid = new Set(validAttachments.map(recordName))
    for (const record of this.#options.records.list()) {
      if (!valid.has(recordName(record))) await this.#inTurn(record.containerId, () => this.#takeAway(record))
    }
    return ''
  }
}

/** By the kernel: `netlink` is on the node's namespace, which is `nodeNamespace` or our own. */
export const wireByKernel =
  (netlink: Netlink, nodeNamespace?: Namespace): EndpointsOptions['wire'] =>
  async (plan, netns, beforeUp) => {
    using sandbox = openSandbox(netns)
    return await connectSandbox(plan, { netlink, nodeNamespace, sandbox, beforeUp })
  }

/** The sandbox as policies know it. */
const localOf = (record: EndpointRecord): LocalEndpoint => ({
  id: recordName(record),
  podKey: `${record.pod.namespace}/${record.pod.name}`,
  addresses: record.addresses,
})

const endpointOf = (record: EndpointRecord): Endpoint => ({
  id: recordName(record),
  addresses: record.addresses,
  ifindex: record.ifindex,
  mac: record.mac,
  owner: record.pod.uid,
})

function openSandbox(netns: string): Namespace {
  try {
    return Namespace.open(netns)
  } catch (cause) {
    if (hasCode(cause, 'ENOENT'))
      throw new CniError('invalidEnvironment', `there is no namespace at ${netns}`, { cause })
    throw cause
  }
}

const resultOf = (plan: DevicePlan, netns: string) => ({
  hostDevice: plan.hostDevice,
  hostMac: gatewayMac,
  podDevice: plan.podDevice,
  podMac: plan.mac,
  netns,
  mtu: plan.mtu,
  addresses: plan.addresses,
  gateways: { v4: gateway4, v6: gateway6 },
})
