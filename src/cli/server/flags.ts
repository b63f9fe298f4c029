import type { LogLevel } from '#base/log/log.ts'

/** What `weft server` is told on its command line. */
export interface ServerFlags {
  readonly cluster: string
  readonly dataDir: string
  readonly advertiseAddress: string
  readonly bindAddress: readonly string[]
  readonly port: string
  readonly listenFd?: string
  readonly externalUrl?: string
  readonly clusterCidr: readonly string[]
  readonly serviceCidr: readonly string[]
  readonly loadBalancerPool: readonly string[]
  readonly gatewayCrds: string
  readonly controllers: string
  readonly machineNamespace?: string
  readonly loopbackPorts?: string
  readonly logLevel: LogLevel
}
