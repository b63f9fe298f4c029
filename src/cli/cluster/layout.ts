/** Where everything of a cluster on this machine lives, from its name and its size alone. Pure: no file is touched. */
export interface ClusterLayout {
  readonly name: string
  /** Survives a reboot: store, certificates, containers' files. */
  readonly stateDir: string
  /** Sockets, pid files, logs, bpffs. */
  readonly runDir: string
  /** Below every cgroup hierarchy. */
  readonly cgroup: string
  readonly fabric: FabricLayout
  readonly server: ServerLayout
  readonly nodes: readonly NodeLayout[]
  readonly podCidrs: readonly string[]
  readonly serviceCidrs: readonly string[]
  /** `none`: nodes are a kubelet alone, and get their network from elsewhere, as by the chart in helm/. */
  readonly agent: 'full' | 'none'
  /** How packets get to other nodes' pods. */
  readonly tunnel: 'native' | 'vxlan'
  /** The server puts in the Gateway API's definitions. */
  readonly gatewayCrds: boolean
  /** Asked for names that are not of the cluster. */
  readonly resolvers: readonly string[]
  /** Addresses of Services of type LoadBalancer, on the fabric's own network. */
  readonly loadBalancerPools: readonly string[]
}

export interface FabricLayout {
  readonly netns: string
  readonly bridge: string
  /** Address with prefix length, both families. */
  readonly addresses: readonly string[]
}

export interface ServerLayout {
  readonly dataDir: string
  readonly runDir: string
  readonly cgroup: string
  readonly port: number
  readonly adminKubeconfig: string
}

export interface NodeLayout {
  readonly name: string
  readonly index: number
  readonly netns: string
  /** The node's device in its namespace, and its peer on the fabric's bridge. */
  readonly device: string
  readonly port: string
  readonly addresses: readonly string[]
  readonly gateways: readonly string[]
  readonly dataDir: string
  readonly runDir: string
  /** `weft/<cluster>/<node>`, below every hierarchy: pods in `pods`, our processes in `system`. */
  readonly cgroup: string
  readonly bpffs: string
  readonly cniSocket: string
  readonly criSocket: string
}

export const nodesMax = 64
const clusterName = /^[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?$/

/** Throws a RangeError that names the value and the remedy. */
export function layoutCluster(name: string, nodeCount: number): ClusterLayout {
  if (!clusterName.test(name)) {
    throw new RangeError(
      `--name ${JSON.stringify(name)}: use at most 20 of a-z, 0-9 and '-', beginning and ending with a letter or digit`,
    )
  }
  if (!Number.isInteger(nodeCount) || nodeCount < 1 || nodeCount > nodesMax) {
    throw new RangeError(`--nodes ${nodeCount}: use a whole number from 1 to ${nodesMax}`)
  }
  const stateDir = `/var/lib/weft/${name}`
  const runDir = `/run/weft/${name}`
  return {
    name,
    stateDir,
    runDir,
    cgroup: `weft/${name}`,
    fabric: { netns: `weft-${name}-fabric`, bridge: 'br0', addresses: ['172.30.0.1/24', 'fd00:172:30::1/64'] },
    server: {
      dataDir: `${stateDir}/server`,
      runDir: `${runDir}/server`,
      cgroup: `weft/${name}/server`,
      port: 6443,
      adminKubeconfig: `${stateDir}/server/admin.kubeconfig`,
    },
    nodes: Array.from({ length: nodeCount }, (_, i) => layoutNode(name, stateDir, runDir, i + 1)),
    podCidrs: ['10.244.0.0/16', 'fd00:10:244::/56'],
    serviceCidrs: ['10.96.0.0/16', 'fd00:10:96::/112'],
    agent: 'full',
    tunnel: 'native',
    gatewayCrds: true,
    resolvers: [],
    loadBalancerPools: ['172.30.0.200-172.30.0.250', 'fd00:172:30::200-fd00:172:30::2ff'],
  }
}

function layoutNode(cluster: string, stateDir: string, runDir: string, index: number): NodeLayout {
  const name = `node-${index}`
  return {
    name,
    index,
    netns: `weft-${cluster}-${name}`,
    device: 'eth0',
    port: `port${index}`,
    addresses: [`172.30.0.${10 + index}/24`, `fd00:172:30::${10 + index}/64`],
    gateways: ['172.30.0.1', 'fd00:172:30::1'],
    dataDir: `${stateDir}/${name}`,
    runDir: `${runDir}/${name}`,
    cgroup: `weft/${cluster}/${name}`,
    bpffs: `${runDir}/${name}/bpf`,
    cniSocket: `${runDir}/${name}/cni.sock`,
    criSocket: `${runDir}/${name}/containerd.sock`,
  }
}

/** `172.30.0.1/24` without its prefix length. */
export function addressOf(cidr: string): string {
  return cidr.slice(0, cidr.indexOf('/'))
}
