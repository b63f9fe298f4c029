import type { Node, Pod } from '#api/gen/core-v1.ts'
import type { Selector } from '#api/meta/selector.ts'
import { podRequests, type Resources, resourcesOf } from '#api/placement/requests.ts'
import { type HostPort, hostPorts } from './host-ports.ts'

/** What counts for a container that asks for nothing, when nodes are compared: otherwise such pods would weigh nothing. */
const unaskedFor: Resources = new Map([
  ['cpu', 100],
  ['memory', 200 * 1024 * 1024],
])

/** A pod with what the scheduler needs of it, computed once. */
export interface PodInfo {
  readonly pod: Pod
  readonly requests: Resources
  /** As `requests`, with the usual amounts for containers that ask for nothing. */
  readonly weights: { readonly cpu: number; readonly memory: number }
  readonly ports: readonly HostPort[]
}

export function podInfo(pod: Pod): PodInfo {
  const weights = podRequests(pod.spec, unaskedFor)
  return {
    pod,
    requests: podRequests(pod.spec),
    weights: { cpu: weights.get('cpu') ?? 0, memory: weights.get('memory') ?? 0 },
    ports: hostPorts(pod.spec),
  }
}

/** A node with the sums over its pods, kept up to date by addition and subtraction. */
export class NodeInfo {
  readonly name: string
  /** Undefined while only its pods are known: they may be heard of before it, or outlive it. */
  node: Node | undefined
  allocatable: Resources = new Map()
  readonly requested = new Map<string, number>()
  weightCpu = 0
  weightMemory = 0
  readonly pods = new Map<string, PodInfo>()
  /** Ports in use on the host, each with the number of pods that use it. */
  readonly ports = new Map<string, { readonly port: HostPort; users: number }>()
  /** Image name -> bytes. */
  images: ReadonlyMap<string, number> = new Map()

  constructor(name: string) {
    this.name = name
  }

  setNode(node: Node | undefined): void {
    this.node = node
    this.allocatable = resourcesOf(node?.status.allocatable)
    const images = new Map<string, number>()
    for (const { names = [], sizeBytes = 0 } of node?.status.images ?? [])
      for (const name of names) images.set(name, sizeBytes)
    this.images = images
  }

  add(info: PodInfo): void {
    this.pods.set(info.pod.metadata.uid, info)
    this.#count(info, 1)
  }

  remove(info: PodInfo): void {
    this.pods.delete(info.pod.metadata.uid)
    this.#count(info, -1)
  }

  #count({ requests, weights, ports }: PodInfo, sign: 1 | -1): void {
    for (const [name, value] of requests) this.requested.set(name, (this.requested.get(name) ?? 0) + sign * value)
    this.weightCpu += sign * weights.cpu
    this.weightMemory += sign * weights.memory
    for (const port of ports) {
      const known = this.ports.get(port.key)
      const users = (known?.users ?? 0) + sign
      if (users === 0) this.ports.delete(port.key)
      else if (known === undefined) this.ports.set(port.key, { port, users })
      else known.users = users
    }
  }
}

/** How many pods of a namespace that match a selector each node has; kept up to date for as long as it is asked for. */
export class PodCount {
  readonly namespace: string
  readonly selector: Selector
  readonly #going: boolean
  readonly byNode = new Map<string, number>()

  constructor(namespace: string, selector: Selector, going: boolean) {
    this.namespace = namespace
    this.selector = selector
    this.#going = going
  }

  count({ metadata, spec }: Pod, sign: 1 | -1): void {
    if (metadata.namespace !== this.namespace || (metadata.deletionTimestamp !== undefined && !this.#going)) return
    if (!this.selector.matches(metadata.labels)) return
    const node = spec.nodeName ?? ''
    const value = (this.byNode.get(node) ?? 0) + sign
    if (value === 0) this.byNode.delete(node)
    else this.byNode.set(node, value)
  }
}

/** Selectors counted at once; the one not asked for the longest is dropped, and built anew when it is needed again. */
const countsMax = 512

/**
 * The cluster as the scheduler sees it: nodes, the pods on them, and the pods it has just placed and whose binding is
 * under way (assumed). Never rebuilt: each change costs what it changes.
 */
export class Snapshot {
  readonly #nodes = new Map<string, NodeInfo>()
  #listed: NodeInfo[] = []
  readonly #placed = new Map<string, PodInfo>()
  readonly #assumed = new Set<string>()
  readonly #namespaces = new Map<string, Map<string, Pod>>()
  readonly #counts = new Map<string, PodCount>()
  readonly #imageNodes = new Map<string, number>()
  /** Pods on nodes that refuse or attract others: everybody else's placement has to look at them. */
  readonly affine = new Map<string, PodInfo>()

  /** Nodes that exist, in a fixed order. */
  get nodes(): readonly NodeInfo[] {
    return this.#listed
  }

  node(name: string): NodeInfo | undefined {
    const info = this.#nodes.get(name)
    return info?.node === undefined ? undefined : info
  }

  /** On how many nodes an image is present. */
  nodesWithImage(name: string): number {
    return this.#imageNodes.get(name) ?? 0
  }

  setNode(node: Node): void {
    const info = this.#info(node.metadata.name)
    if (info.node === undefined) this.#listed.push(info)
    this.#countImages(info, -1)
    info.setNode(node)
    this.#countImages(info, 1)
  }

  removeNode(name: string): void {
    const info = this.#nodes.get(name)
    if (info === undefined) return
    this.#countImages(info, -1)
    info.setNode(undefined)
    this.#listed = this.#listed.filter((n) => n !== info)
    if (info.pods.size === 0) this.#nodes.delete(name)
  }

  /** A pod that has a node, as the API has it: what was assumed about it is settled. */
  setPod(pod: Pod): void {
    this.#assumed.delete(pod.metadata.uid)
    const old = this.#placed.get(pod.metadata.uid)
    if (old !== undefined) this.#remove(old)
    this.#add(podInfo(pod))
  }

  /** Counts a pod as on `nodeName` from now on, before the API says so. */
  assume(info: PodInfo, nodeName: string): void {
    this.#assumed.add(info.pod.metadata.uid)
    this.#add({ ...info, pod: { ...info.pod, spec: { ...info.pod.spec, nodeName } } })
  }

  /** Takes back an assumption that did not come true. */
  forget(uid: string): void {
    if (!this.#assumed.delete(uid)) return
    const info = this.#placed.get(uid)
    if (info !== undefined) this.#remove(info)
  }

  isAssumed(uid: string): boolean {
    return this.#assumed.has(uid)
  }

  removePod(uid: string): void {
    this.#assumed.delete(uid)
    const info = this.#placed.get(uid)
    if (info !== undefined) this.#remove(info)
  }

  /**
   * `id` stands for the selector: the same text means the same selector. `going`: whether pods that are being deleted
   * count too; they still keep others away, but need not be balanced against.
   */
  count(namespace: string, id: string, selector: Selector, { going = false } = {}): PodCount {
    const key = `${namespace}/${going}/${id}`
    let known = this.#counts.get(key)
    if (known === undefined) {
      known = new PodCount(namespace, selector, going)
      for (const pod of this.#namespaces.get(namespace)?.values() ?? []) known.count(pod, 1)
    } else this.#counts.delete(key)
    this.#counts.set(key, known)
    if (this.#counts.size > countsMax) {
      const [oldest] = this.#counts.keys()
      if (oldest !== undefined) this.#counts.delete(oldest)
    }
    return known
  }

  #info(name: string): NodeInfo {
    const known = this.#nodes.get(name)
    if (known !== undefined) return known
    const info = new NodeInfo(name)
    this.#nodes.set(name, info)
    return info
  }

  #add(info: PodInfo): void {
    const { pod } = info
    const { uid, namespace } = pod.metadata
    this.#placed.set(uid, info)
    this.#info(pod.spec.nodeName ?? '').add(info)
    const known = this.#namespaces.get(namespace)
    if (known === undefined) this.#namespaces.set(namespace, new Map([[uid, pod]]))
    else known.set(uid, pod)
    if (pod.spec.affinity?.podAffinity !== undefined || pod.spec.affinity?.podAntiAffinity !== undefined)
      this.affine.set(uid, info)
    for (const count of this.#counts.values()) count.count(pod, 1)
  }

  #remove(info: PodInfo): void {
    const { pod } = info
    const { uid, namespace } = pod.metadata
    this.#placed.delete(uid)
    this.affine.delete(uid)
    const node = this.#nodes.get(pod.spec.nodeName ?? '')
    node?.remove(info)
    if (node !== undefined && node.node === undefined && node.pods.size === 0) this.#nodes.delete(node.name)
    const known = this.#namespaces.get(namespace)
    known?.delete(uid)
    if (known?.size === 0) this.#namespaces.delete(namespace)
    for (const count of this.#counts.values()) count.count(pod, -1)
  }

  #countImages({ images }: NodeInfo, sign: 1 | -1): void {
    for (const name of images.keys()) {
      const value = (this.#imageNodes.get(name) ?? 0) + sign
      if (value === 0) this.#imageNodes.delete(name)
      else this.#imageNodes.set(name, value)
    }
  }
}
