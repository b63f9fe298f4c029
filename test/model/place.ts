import { contains } from './address.ts'
import { type Cluster, type Node, nameOf, type Pod } from './cluster.ts'
import type { Identity } from './journey.ts'

const addressesOf = (cluster: Cluster): Map<string, Pod> => {
  const found = new Map<string, Pod>()
  for (const pod of cluster.pods.values())
    if (pod.hostNetwork !== true) for (const address of pod.addresses) found.set(address, pod)
  return found
}

/** The cluster as one node sees it: whose an address is, where that is, and since which change. */
export class Place {
  readonly name: string
  #cluster: Cluster
  #pods: Map<string, Pod>
  /** In which change an address became its pod's. */
  readonly #since = new Map<string, number>()
  #epoch = 0

  constructor(name: string, cluster: Cluster) {
    this.name = name
    this.#cluster = cluster
    this.#pods = addressesOf(cluster)
  }

  get cluster(): Cluster {
    return this.#cluster
  }

  get node(): Node {
    const node = this.#cluster.nodes.get(this.name)
    if (node === undefined) throw new Error(`the cluster has no node ${this.name}`)
    return node
  }

  /** Number of the change that was last. */
  get epoch(): number {
    return this.#epoch
  }

  /** The cluster is now this. Says which addresses of this node are nobody's any more. */
  change(cluster: Cluster): string[] {
    const gone: string[] = []
    const pods = addressesOf(cluster)
    // Of Services no policy asks.
    if (cluster.services === this.#cluster.services) this.#epoch++
    for (const [address, pod] of this.#pods) {
      if (pods.has(address)) continue
      this.#since.delete(address)
      if (pod.node === this.name) gone.push(address)
    }
    for (const [address, pod] of pods) {
      const last = this.#pods.get(address)
      if (last === undefined || nameOf(last) !== nameOf(pod)) this.#since.set(address, this.#epoch)
    }
    this.#cluster = cluster
    this.#pods = pods
    return gone
  }

  /** In which change the address became whose it is; 0: always. */
  since(address: string): number {
    return this.#since.get(address) ?? 0
  }

  podOf(address: string): Pod | undefined {
    return this.#pods.get(address)
  }

  identityOf(address: string): Identity {
    const pod = this.#pods.get(address)
    if (pod !== undefined) return { pod: nameOf(pod) }
    for (const node of this.#cluster.nodes.values())
      if (node.addresses.includes(address)) return node.name === this.name ? 'host' : 'remote node'
    return this.#cluster.podCidrs.some((cidr) => contains(cidr, address)) ? 'unknown pod' : 'world'
  }

  /** The pod of this node that has the address. */
  local(address: string): Pod | undefined {
    const pod = this.#pods.get(address)
    return pod?.node === this.name ? pod : undefined
  }

  /** This node's, or one of its pods'. */
  isOwn(address: string): boolean {
    return this.identityOf(address) === 'host' || this.local(address) !== undefined
  }

  /** Addresses that are neither pods' nor cluster addresses, and mean something to this node. */
  isNodes(address: string): boolean {
    return (
      this.node.addresses.includes(address) ||
      [...this.#cluster.services.values()].some(
        (s) => (s.ingressIPs ?? []).includes(address) || (s.externalIPs ?? []).includes(address),
      )
    )
  }

  /** IPv4 address of the other node that the address is on, or is itself; undefined: of none that is known. */
  remoteNode(address: string): string | undefined {
    const name = this.#pods.get(address)?.node
    for (const node of this.#cluster.nodes.values())
      if (node.name !== this.name && (node.name === name || node.addresses.includes(address))) return node.addresses[0]
    return undefined
  }
}
