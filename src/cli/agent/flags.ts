import type { LogLevel } from '#base/log/log.ts'

/** What `weft agent` is told on its command line. */
export interface AgentFlags {
  readonly cluster: string
  readonly node: string
  readonly server: string
  readonly bootstrapKubeconfig: string
  readonly dataDir: string
  readonly runDir: string
  readonly criSocket: string
  readonly cgroup: string
  readonly bpffs: string
  readonly device: string
  readonly nodeIp: readonly string[]
  readonly clusterCidr: readonly string[]
  readonly serviceCidr: readonly string[]
  readonly resolver: readonly string[]
  readonly resolvConf: string
  readonly logLevel: LogLevel
}
