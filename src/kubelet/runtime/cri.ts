import { join } from 'node:path'
import * as grpc from '@grpc/grpc-js'
import { loadSync } from '@grpc/proto-loader'
import {
  type ContainerRecord,
  type ContainerState,
  type ContainerSummary,
  type ImageRecord,
  podLabels,
  type Runtime,
  RuntimeError,
  type RuntimeFailure,
  type SandboxRecord,
} from './runtime.ts'

export interface CriOptions {
  /** Path of the unix socket. */
  readonly socket: string
}

/** Upstream's runtimeRequestTimeout; StopContainer gets its grace on top, a pull has none. */
const requestTimeoutMs = 120_000
/** Upstream's limit of a message. */
const messageBytesMax = 16 << 20

type Message = Record<string, unknown>
type Unary = (
  request: object,
  metadata: grpc.Metadata,
  options: grpc.CallOptions,
  done: (error: grpc.ServiceError | null, response: Message | undefined) => void,
) => grpc.ClientUnaryCall

const failures: Partial<Record<grpc.status, RuntimeFailure>> = {
  [grpc.status.NOT_FOUND]: 'not-found',
  [grpc.status.UNIMPLEMENTED]: 'unimplemented',
  [grpc.status.UNAVAILABLE]: 'unavailable',
  [grpc.status.DEADLINE_EXCEEDED]: 'timeout',
  [grpc.status.RESOURCE_EXHAUSTED]: 'exhausted',
}

/** A runtime behind CRI v1 on a unix socket. Connects at the first call, and again by itself. */
export function createCriRuntime({ socket }: CriOptions): Runtime & Disposable {
  const definition = loadSync(join(import.meta.dirname, 'gen/cri.proto'), {
    keepCase: false,
    longs: String,
    enums: String,
    defaults: true,
    arrays: true,
    objects: true,
  })
  const root = grpc.loadPackageDefinition(definition) as unknown as {
    runtime: { v1: Record<'RuntimeService' | 'ImageService', grpc.ServiceClientConstructor> }
  }
  const settings = {
    // The path of a socket is no host name, and Go's servers look at it.
    'grpc.default_authority': 'localhost',
    'grpc.max_receive_message_length': messageBytesMax,
    'grpc.initial_reconnect_backoff_ms': 100,
    'grpc.max_reconnect_backoff_ms': 2_000,
  }
  const credentials = grpc.credentials.createInsecure()
  const services = {
    runtime: new root.runtime.v1.RuntimeService(`unix:${socket}`, credentials, settings),
    image: new root.runtime.v1.ImageService(`unix:${socket}`, credentials, settings),
  }

  function call(
    service: 'runtime' | 'image',
    method: string,
    request: object,
    signal: AbortSignal | undefined,
    timeoutMs: number | undefined = requestTimeoutMs,
  ): Promise<Message> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason)
      const client = services[service]
      const unary = client[method] as Unary
      const options = timeoutMs === undefined ? {} : { deadline: Date.now() + timeoutMs }
      const abort = () => running.cancel()
      const running = unary.call(client, request, new grpc.Metadata(), options, (error, response) => {
        signal?.removeEventListener('abort', abort)
        if (signal?.aborted) return reject(signal.reason)
        if (error === null) return resolve(response ?? {})
        const failure = failures[error.code] ?? 'other'
        reject(new RuntimeError(`call ${method}`, failure, error.details || error.message, { cause: error }))
      })
      signal?.addEventListener('abort', abort, { once: true })
    })
  }

  const run = (method: string, request: object, signal?: AbortSignal, timeoutMs?: number) =>
    call('runtime', method, request, signal, timeoutMs)

  return {
    async version(signal) {
      const answer = await run('Version', { version: 'v1' }, signal)
      return { name: text(answer.runtimeName), version: text(answer.runtimeVersion) }
    },
    async status(signal) {
      const answer = await run('Status', {}, signal, 10_000)
      return list(message(answer.status).conditions).map((c) => ({
        type: text(c.type),
        status: c.status === true,
        reason: text(c.reason),
        message: text(c.message),
      }))
    },

    async runSandbox(config, handler, signal) {
      const answer = await run('RunPodSandbox', { config, runtimeHandler: handler }, signal)
      return text(answer.podSandboxId)
    },
    async stopSandbox(id, signal) {
      await gone(run('StopPodSandbox', { podSandboxId: id }, signal))
    },
    async removeSandbox(id, signal) {
      await gone(run('RemovePodSandbox', { podSandboxId: id }, signal))
    },
    async listSandboxes(podUid, signal) {
      const answer = await run('ListPodSandbox', { filter: byPod(podUid) }, signal)
      return list(answer.items).map(sandboxRecord)
    },
    async sandboxStatus(id, signal) {
      const answer = await gone(run('PodSandboxStatus', { podSandboxId: id }, signal))
      if (answer === undefined) return undefined
      const status = message(answer.status)
      const network = message(status.network)
      const ips = [text(network.ip), ...list(network.additionalIps).map((a) => text(a.ip))].filter((ip) => ip !== '')
      return { ...sandboxRecord(status), ips }
    },

    async createContainer(sandboxId, config, sandbox, signal) {
      // Values are bytes in CRI: given a string, the encoder would take it for base64.
      const envs = config.envs.map(({ key, value }) => ({ key, value: Buffer.from(value) }))
      const request = { podSandboxId: sandboxId, config: { ...config, envs }, sandboxConfig: sandbox }
      const answer = await run('CreateContainer', request, signal)
      return text(answer.containerId)
    },
    async startContainer(id, signal) {
      await run('StartContainer', { containerId: id }, signal)
    },
    async stopContainer(id, graceSeconds, signal) {
      const request = { containerId: id, timeout: graceSeconds }
      await gone(run('StopContainer', request, signal, requestTimeoutMs + graceSeconds * 1000))
    },
    async removeContainer(id, signal) {
      await gone(run('RemoveContainer', { containerId: id }, signal))
    },
    async listContainers(podUid, signal) {
      const answer = await run('ListContainers', { filter: byPod(podUid) }, signal)
      return list(answer.containers).map((c) => containerSummary(c, text(c.podSandboxId)))
    },
    async containerStatus(id, signal) {
      const answer = await gone(run('ContainerStatus', { containerId: id }, signal))
      return answer === undefined ? undefined : containerRecord(message(answer.status))
    },
    async reopenLog(id, signal) {
      await run('ReopenContainerLog', { containerId: id }, signal)
    },
    async containerStats(signal) {
      const answer = await run('ListContainerStats', { filter: {} }, signal)
      return list(answer.stats).map((stats) => {
        const attributes = message(stats.attributes)
        const labels = strings(attributes.labels)
        const cpu = message(stats.cpu)
        return {
          id: text(attributes.id),
          name: text(message(attributes.metadata).name),
          podName: labels[podLabels.name] ?? '',
          podNamespace: labels[podLabels.namespace] ?? '',
          podUid: labels[podLabels.uid] ?? '',
          at: milliseconds(cpu.timestamp),
          cpuNanoseconds: BigInt(text(message(cpu.usageCoreNanoSeconds).value) || '0'),
          workingSetBytes: Number(message(message(stats.memory).workingSetBytes).value ?? 0),
          writableBytes: Number(message(message(stats.writableLayer).usedBytes).value ?? 0),
        }
      })
    },

    async execSync(id, command, timeoutSeconds, signal) {
      // The runtime keeps the time; ours is only for a runtime that does not answer.
      const timeoutMs = timeoutSeconds > 0 ? timeoutSeconds * 1000 + 5_000 : requestTimeoutMs
      const answer = await run(
        'ExecSync',
        { containerId: id, cmd: command, timeout: timeoutSeconds },
        signal,
        timeoutMs,
      )
      return { exitCode: Number(answer.exitCode), stdout: bytes(answer.stdout), stderr: bytes(answer.stderr) }
    },
    async execUrl(id, { command, ...streams }, signal) {
      return text((await run('Exec', { containerId: id, cmd: command, ...streams }, signal)).url)
    },
    async attachUrl(id, streams, signal) {
      return text((await run('Attach', { containerId: id, ...streams }, signal)).url)
    },
    async portForwardUrl(sandboxId, ports, signal) {
      return text((await run('PortForward', { podSandboxId: sandboxId, port: ports }, signal)).url)
    },

    async listImages(signal) {
      const answer = await call('image', 'ListImages', {}, signal)
      return list(answer.images).map(imageRecord)
    },
    async imageStatus(image, signal) {
      const answer = await gone(call('image', 'ImageStatus', { image: { image } }, signal))
      const found = answer?.image
      return found === null || found === undefined ? undefined : imageRecord(message(found))
    },
    async pullImage(image, sandbox, signal) {
      const request = { image: { image, userSpecifiedImage: image }, sandboxConfig: sandbox }
      const timeoutMs = 3_600_000
      return text((await call('image', 'PullImage', request, signal, timeoutMs)).imageRef)
    },

    [Symbol.dispose]() {
      services.runtime.close()
      services.image.close()
    },
  }
}

/** Undefined in place of an error that says that it is not there. */
async function gone(answer: Promise<Message>): Promise<Message | undefined> {
  try {
    return await answer
  } catch (error) {
    if (error instanceof RuntimeError && error.failure === 'not-found') return undefined
    throw error
  }
}

const byPod = (podUid: string | undefined) =>
  podUid === undefined ? {} : { labelSelector: { [podLabels.uid]: podUid } }

function sandboxRecord(m: Message): SandboxRecord {
  const metadata = message(m.metadata)
  return {
    id: text(m.id),
    name: text(metadata.name),
    namespace: text(metadata.namespace),
    podUid: text(metadata.uid),
    attempt: Number(metadata.attempt),
    ready: m.state === 'SANDBOX_READY',
    createdAt: milliseconds(m.createdAt),
    annotations: strings(m.annotations),
  }
}

const containerStates: Readonly<Record<string, ContainerState>> = {
  CONTAINER_CREATED: 'created',
  CONTAINER_RUNNING: 'running',
  CONTAINER_EXITED: 'exited',
}

function containerSummary(m: Message, sandboxId: string): ContainerSummary {
  const metadata = message(m.metadata)
  const labels = strings(m.labels)
  return {
    id: text(m.id),
    sandboxId,
    name: text(metadata.name),
    podUid: labels[podLabels.uid] ?? '',
    attempt: Number(metadata.attempt),
    state: containerStates[text(m.state)] ?? 'unknown',
    createdAt: milliseconds(m.createdAt),
    labels,
    annotations: strings(m.annotations),
  }
}

/** A status does not say which sandbox it is in: the caller knows it from the list. */
function containerRecord(m: Message): ContainerRecord {
  return {
    ...containerSummary(m, ''),
    startedAt: milliseconds(m.startedAt),
    finishedAt: milliseconds(m.finishedAt),
    exitCode: Number(m.exitCode),
    reason: text(m.reason),
    message: text(m.message),
    image: text(message(m.image).image),
    imageRef: text(m.imageRef),
    logPath: text(m.logPath),
    mounts: list(m.mounts).map((mount) => ({
      containerPath: text(mount.containerPath),
      hostPath: text(mount.hostPath),
    })),
  }
}

function imageRecord(m: Message): ImageRecord {
  const uid = m.uid === null || m.uid === undefined ? undefined : Number(message(m.uid).value)
  return {
    id: text(m.id),
    tags: list(m.repoTags).map(text),
    digests: list(m.repoDigests).map(text),
    sizeBytes: Number(m.size),
    uid,
    username: text(m.username),
  }
}

/** CRI counts nanoseconds, which no double holds; 0 stays 0 (not yet). */
function milliseconds(nanoseconds: unknown): number {
  return Number(BigInt(text(nanoseconds) || '0') / 1_000_000n)
}

const text = (value: unknown): string => (typeof value === 'string' ? value : '')
const bytes = (value: unknown): Uint8Array => (value instanceof Uint8Array ? value : new Uint8Array())
const message = (value: unknown): Message => (typeof value === 'object' && value !== null ? (value as Message) : {})
const list = (value: unknown): Message[] => (Array.isArray(value) ? (value as Message[]) : [])
const strings = (value: unknown): Readonly<Record<string, string>> => message(value) as Record<string, string>
