/**
 * The container runtime as the kubelet sees it: CRI's nouns, with times in milliseconds and states as words.
 * Two implementations, `cri.ts` and `fake.ts`, proved by `conformance.ts`.
 */
export interface Runtime {
  version(signal?: AbortSignal): Promise<RuntimeVersion>
  status(signal?: AbortSignal): Promise<readonly RuntimeCondition[]>

  runSandbox(config: SandboxConfig, handler: string, signal?: AbortSignal): Promise<string>
  /** Idempotent; also for one that is half made. */
  stopSandbox(id: string, signal?: AbortSignal): Promise<void>
  /** Removes its containers too; idempotent. */
  removeSandbox(id: string, signal?: AbortSignal): Promise<void>
  listSandboxes(podUid?: string, signal?: AbortSignal): Promise<readonly SandboxRecord[]>
  /** Undefined when there is none of this id. */
  sandboxStatus(id: string, signal?: AbortSignal): Promise<SandboxStatus | undefined>

  createContainer(
    sandboxId: string,
    config: ContainerConfig,
    sandbox: SandboxConfig,
    signal?: AbortSignal,
  ): Promise<string>
  startContainer(id: string, signal?: AbortSignal): Promise<void>
  /** Resolves when it has ended: the stop signal first, a kill after `graceSeconds`. Idempotent. */
  stopContainer(id: string, graceSeconds: number, signal?: AbortSignal): Promise<void>
  removeContainer(id: string, signal?: AbortSignal): Promise<void>
  listContainers(podUid?: string, signal?: AbortSignal): Promise<readonly ContainerSummary[]>
  containerStatus(id: string, signal?: AbortSignal): Promise<ContainerRecord | undefined>
  reopenLog(id: string, signal?: AbortSignal): Promise<void>
  containerStats(signal?: AbortSignal): Promise<readonly ContainerStats[]>

  execSync(id: string, command: readonly string[], timeoutSeconds: number, signal?: AbortSignal): Promise<ExecResult>
  /** URLs of the runtime's own streaming server; each is good for one connection. */
  execUrl(id: string, options: ExecOptions, signal?: AbortSignal): Promise<string>
  attachUrl(id: string, options: Omit<ExecOptions, 'command'>, signal?: AbortSignal): Promise<string>
  portForwardUrl(sandboxId: string, ports: readonly number[], signal?: AbortSignal): Promise<string>

  listImages(signal?: AbortSignal): Promise<readonly ImageRecord[]>
  /** Undefined when the image is not on this node. */
  imageStatus(image: string, signal?: AbortSignal): Promise<ImageRecord | undefined>
  pullImage(image: string, sandbox: SandboxConfig, signal?: AbortSignal): Promise<string>
}

export type RuntimeFailure = 'not-found' | 'unimplemented' | 'unavailable' | 'timeout' | 'exhausted' | 'other'

/** A call that failed. The message names the call; `detail` is the runtime's own text. */
export class RuntimeError extends Error {
  readonly failure: RuntimeFailure
  readonly detail: string

  constructor(call: string, failure: RuntimeFailure, detail: string, options?: ErrorOptions) {
    super(`Cannot ${call}: ${detail}`, options)
    this.name = 'RuntimeError'
    this.failure = failure
    this.detail = detail
  }
}

/** What the runtime said, without our words around it: for events and statuses, where upstream shows it so. */
export function detailOf(error: unknown): string {
  if (error instanceof RuntimeError) return error.detail
  return error instanceof Error ? error.message : String(error)
}

export interface RuntimeVersion {
  /** `containerd` */
  readonly name: string
  readonly version: string
}

/** `RuntimeReady`, `NetworkReady`. */
export interface RuntimeCondition {
  readonly type: string
  readonly status: boolean
  readonly reason: string
  readonly message: string
}

export type NamespaceMode = 'POD' | 'CONTAINER' | 'NODE' | 'TARGET'

export interface NamespaceOptions {
  readonly network: NamespaceMode
  readonly pid: NamespaceMode
  readonly ipc: NamespaceMode
  readonly targetId?: string
}

export interface SecurityProfile {
  readonly profileType: 'RuntimeDefault' | 'Unconfined' | 'Localhost'
  readonly localhostRef?: string
}

interface Int64 {
  readonly value: number
}

/** PodSandboxConfig of CRI v1: what we set of it. */
export interface SandboxConfig {
  readonly metadata: {
    readonly name: string
    readonly namespace: string
    readonly uid: string
    readonly attempt: number
  }
  readonly hostname: string
  readonly logDirectory: string
  readonly dnsConfig: DnsConfig
  readonly labels: Readonly<Record<string, string>>
  readonly annotations: Readonly<Record<string, string>>
  readonly linux: {
    readonly cgroupParent: string
    readonly sysctls: Readonly<Record<string, string>>
    readonly securityContext: {
      readonly namespaceOptions: NamespaceOptions
      readonly privileged: boolean
      readonly readonlyRootfs: boolean
      readonly runAsUser?: Int64
      readonly runAsGroup?: Int64
      readonly supplementalGroups: readonly number[]
      readonly seccomp: SecurityProfile
    }
    readonly resources?: LinuxResources
  }
}

export interface DnsConfig {
  readonly servers: readonly string[]
  readonly searches: readonly string[]
  readonly options: readonly string[]
}

/** Units are the kernel's: microseconds, bytes, shares of 1024. 0 means not set. */
export interface LinuxResources {
  readonly cpuPeriod: number
  readonly cpuQuota: number
  readonly cpuShares: number
  readonly memoryLimitInBytes: number
  readonly oomScoreAdj: number
}

export interface Mount {
  readonly containerPath: string
  readonly hostPath: string
  readonly readonly: boolean
  readonly propagation: 'PROPAGATION_PRIVATE' | 'PROPAGATION_HOST_TO_CONTAINER' | 'PROPAGATION_BIDIRECTIONAL'
}

/** ContainerConfig of CRI v1: what we set of it. */
export interface ContainerConfig {
  readonly metadata: { readonly name: string; readonly attempt: number }
  readonly image: { readonly image: string; readonly userSpecifiedImage: string }
  readonly command: readonly string[]
  readonly args: readonly string[]
  readonly workingDir: string
  readonly envs: readonly { readonly key: string; readonly value: string }[]
  readonly mounts: readonly Mount[]
  readonly devices: readonly {
    readonly containerPath: string
    readonly hostPath: string
    readonly permissions: string
  }[]
  readonly labels: Readonly<Record<string, string>>
  readonly annotations: Readonly<Record<string, string>>
  /** Below the sandbox's log directory. */
  readonly logPath: string
  readonly stdin: boolean
  readonly stdinOnce: boolean
  readonly tty: boolean
  readonly linux: {
    readonly resources: LinuxResources
    readonly securityContext: {
      readonly capabilities?: {
        readonly addCapabilities: readonly string[]
        readonly dropCapabilities: readonly string[]
      }
      readonly privileged: boolean
      readonly namespaceOptions: NamespaceOptions
      readonly runAsUser?: Int64
      readonly runAsUsername?: string
      readonly runAsGroup?: Int64
      readonly readonlyRootfs: boolean
      readonly supplementalGroups: readonly number[]
      readonly noNewPrivs: boolean
      readonly maskedPaths: readonly string[]
      readonly readonlyPaths: readonly string[]
      readonly seccomp: SecurityProfile
    }
  }
}

export interface SandboxRecord {
  readonly id: string
  readonly name: string
  readonly namespace: string
  readonly podUid: string
  readonly attempt: number
  readonly ready: boolean
  readonly createdAt: number
  readonly annotations: Readonly<Record<string, string>>
}

export interface SandboxStatus extends SandboxRecord {
  /** The first is the pod's main address; empty for the node's network. */
  readonly ips: readonly string[]
}

export type ContainerState = 'created' | 'running' | 'exited' | 'unknown'

export interface ContainerSummary {
  readonly id: string
  readonly sandboxId: string
  readonly name: string
  readonly podUid: string
  readonly attempt: number
  readonly state: ContainerState
  readonly createdAt: number
  readonly labels: Readonly<Record<string, string>>
  readonly annotations: Readonly<Record<string, string>>
}

export interface ContainerRecord extends ContainerSummary {
  readonly startedAt: number
  readonly finishedAt: number
  readonly exitCode: number
  /** `Completed`, `Error`, `OOMKilled`, `StartError`; empty while it lives. */
  readonly reason: string
  readonly message: string
  readonly image: string
  readonly imageRef: string
  /** Absolute. */
  readonly logPath: string
  readonly mounts: readonly { readonly containerPath: string; readonly hostPath: string }[]
}

export interface ContainerStats {
  readonly id: string
  readonly name: string
  readonly podName: string
  readonly podNamespace: string
  readonly podUid: string
  readonly at: number
  readonly cpuNanoseconds: bigint
  readonly workingSetBytes: number
  readonly writableBytes: number
}

export interface ExecResult {
  readonly exitCode: number
  readonly stdout: Uint8Array
  readonly stderr: Uint8Array
}

export interface ExecOptions {
  readonly command: readonly string[]
  readonly stdin: boolean
  readonly stdout: boolean
  readonly stderr: boolean
  readonly tty: boolean
}

export interface ImageRecord {
  readonly id: string
  readonly tags: readonly string[]
  readonly digests: readonly string[]
  readonly sizeBytes: number
  /** The image's own user; undefined where it names one by name. */
  readonly uid: number | undefined
  readonly username: string
}

/** Labels by which everything of a pod is found again. */
export const podLabels = {
  name: 'io.kubernetes.pod.name',
  namespace: 'io.kubernetes.pod.namespace',
  uid: 'io.kubernetes.pod.uid',
  container: 'io.kubernetes.container.name',
} as const
