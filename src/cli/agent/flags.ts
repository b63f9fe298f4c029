import type { LogLevel } from '#base/log/log.ts'

/** What `weft agent` is told on its command line. */
export interface AgentFlags {
  readonly cluster: string
  /** `all`; `kubelet` where the network comes by other means; `network` on a node whose kubelet is another program. */
  readonly part: string
  readonly node: string
  readonly server: string
  readonly bootstrapKubeconfig?: string
  readonly dataDir?: string
  readonly runDir: string
  readonly criSocket: string
  readonly cgroup: string
  readonly cgroupRoot: string
  readonly bpffs: string
  readonly cniBinDir?: string
  readonly cniConfDir?: string
  readonly cacheDir: string
  readonly metricsPort: string
  readonly device: string
  readonly nodeIp: readonly string[]
  readonly clusterCidr: readonly string[]
  readonly serviceCidr: readonly string[]
  readonly tunnel: string
  readonly xdp: string
  readonly cable: string
  readonly masqueradeExcludeCidr: readonly string[]
  readonly externalIpCidr: readonly string[]
  readonly resolver: readonly string[]
  readonly resolvConf: string
  readonly goldenSignals: string
  readonly logLevel: LogLevel
}
