import { mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { pods as podResource, services as serviceResource } from '#api/gen/resources.ts'
import { Backoff } from '#base/async/backoff.ts'
import { aborted, delay } from '#base/async/delay.ts'
import { Scope } from '#base/async/scope.ts'
import { type Clock, systemClock } from '#base/clock.ts'
import { type Log, silentLog } from '#base/log/log.ts'
import type { Client } from '#client/client.ts'
import { EventRecorder } from '#client/events.ts'
import { Informer } from '#client/informer.ts'
import { findCgroups } from '#kernel/cgroup.ts'
import { parseResolvConf } from './containers/names.ts'
import { rotateLogs } from './logs/rotate.ts'
import type { NodeCertificates } from './node/certificates.ts'
import { type Machine, readMachine, readPressure } from './node/machine.ts'
import { NodeReporter } from './node/node.ts'
import { allocatableOf } from './node/status.ts'
import { Objects } from './objects/objects.ts'
import type { NodeContext } from './pods/node-context.ts'
import { Pods } from './pods/pods.ts'
import { Probes } from './probes/probes.ts'
import { createCriRuntime } from './runtime/cri.ts'
import { observeRuntime } from './runtime/observed.ts'
import type { Runtime } from './runtime/runtime.ts'
import { KubeletMetrics } from './server/metrics.ts'
import { KubeletServer } from './server/server.ts'
import { createTokenSource } from './volumes/tokens.ts'
import { Volumes } from './volumes/volumes.ts'

export interface KubeletOptions {
  readonly nodeName: string
  /** The node's own addresses, the main one first. */
  readonly addresses: readonly string[]
  /** Speaks as `system:node:<name>`. */
  readonly client: Client
  /** Volumes, logs and certificates are below it; survives a restart. */
  readonly dataDir: string
  /** A CRI v1 socket, or a runtime that is there already. */
  readonly runtime: { readonly socket: string } | Runtime
  /** `weft/c/node-1`, below every hierarchy: pods are in `pods` there. False: no kernel behind the runtime (the fake). */
  readonly cgroup: string | false
  readonly labels?: Readonly<Record<string, string>>
  /** The cluster's resolvers; none: pods use the node's. */
  readonly dnsServers?: readonly string[]
  readonly clusterDomain?: string
  readonly resolvConf?: string
  /** The kubelet's own API; absent: it has none. */
  readonly server?: KubeletServerSettings
  /** What counts here; given where requests of `client` are counted in it too. */
  readonly metrics?: KubeletMetrics
  readonly port?: number
  readonly podsMax?: number
  readonly clock?: Clock
  readonly log?: Log
}

export interface KubeletServerSettings {
  /** The address to listen on; `::` for all of both families. */
  readonly host: string
  /** PEM of the authority whose client certificates are believed: the cluster's. */
  readonly clientAuthority: string
  /** The serving certificate is asked for, kept and renewed here, the client certificate too. */
  readonly certificates: NodeCertificates
  /** Added to /metrics: what else of the node is in this process. */
  readonly moreMetrics?: () => Promise<string>
}

/** Upstream's maxPods. */
const podsMaxDefault = 110

/** The node's share of the control loop: pods bound to this node become containers, and the API hears of them. */
export interface Kubelet {
  /** Until `signal` aborts. Containers go on without us, and are taken over by the next. */
  run(signal: AbortSignal): Promise<void>
}

/** Everything of the kubelet, in the order in which it starts. */
export function createKubelet(options: KubeletOptions): Kubelet {
  return { run: (signal) => runKubelet(options, signal) }
}

async function runKubelet(options: KubeletOptions, signal: AbortSignal): Promise<void> {
  const { nodeName, addresses, client, dataDir, clock = systemClock, log = silentLog, port = 10250 } = options
  const { podsMax = podsMaxDefault, labels = {}, dnsServers = [], clusterDomain = 'cluster.local' } = options
  mkdirSync(join(dataDir, 'pods'), { recursive: true, mode: 0o750 })
  await using scope = new Scope(signal)
  await using closing = new AsyncDisposableStack()

  const owned = 'socket' in options.runtime ? createCriRuntime(options.runtime) : undefined
  if (owned) closing.use(owned)
  const metrics = options.metrics ?? new KubeletMetrics(nodeName)
  const runtime = observeRuntime(owned ?? (options.runtime as Runtime), metrics.observeRuntime, () => clock.monotonic())
  const machine = readMachine()
  const version = await versionOf(runtime, log, clock, scope.signal)
  log.info({ runtime: version }, 'runtime answers')

  const events = new EventRecorder({ client, component: 'kubelet', host: nodeName, clock, log })
  scope.start((s) => events.run(s))
  const objects = new Objects({ client, scope, clock })
  const tokens = createTokenSource(client, clock)
  const facts = {
    name: nodeName,
    ips: addresses,
    allocatable: allocatableOf({ machine, pressure: readPressure(dataDir), podsMax }),
  }
  const node = () => facts
  const volumes = new Volumes({ podsDir: join(dataDir, 'pods'), node, objects, tokens, clock })
  const probes = new Probes({ runtime, events, clock, scope })

  const services = new Informer(client, serviceResource, { clock, log })
  const mine = new Informer(client, podResource, { fieldSelector: `spec.nodeName=${nodeName}`, clock, log })
  scope.start((s) => services.run(s))
  scope.start((s) => mine.run(s))

  const context: NodeContext = {
    client,
    runtime,
    volumes,
    objects,
    probes,
    events,
    services,
    servicesSynced: (s) => services.whenSynced(s),
    clock,
    log,
    node,
    cgroups: options.cgroup === false ? undefined : findCgroups(),
    podsCgroup: `/${options.cgroup === false ? 'none' : options.cgroup}/pods`,
    logsDir: join(dataDir, 'logs'),
    seccompDir: join(dataDir, 'seccomp'),
    dns: { servers: dnsServers, domain: clusterDomain, host: readResolvConf(options.resolvConf ?? '/etc/resolv.conf') },
    runtimeName: version.name,
    memoryBytes: machine.memoryBytes,
  }
  const pods = new Pods({ context, informer: mine })
  scope.start(() => pods.run(scope))
  log.info({}, 'pods are looked after')

  const reporter = new NodeReporter({
    client,
    runtime,
    name: nodeName,
    addresses,
    port,
    labels,
    podsMax,
    machine,
    dataDir,
    clock,
    log,
  })
  scope.start((s) => reporter.run(s))
  scope.start((s) => reporter.keepLease(s))
  log.info({ node: nodeName }, 'node is reported')

  scope.start((s) => rotateLogs({ runtime, clock, log }, s))
  if (options.server) {
    const settings = options.server
    scope.start(async (s) => {
      await Promise.race([reporter.reported, aborted(s)])
      await serve(settings, { client, runtime, pods, metrics, machine, clock, log, nodeName, port }, s)
    })
  }
  await scope.done()
}

/** The kubelet's API, once the API server has signed a certificate for it; with the certificates' renewal. */
async function serve(
  { host, clientAuthority, certificates, moreMetrics }: KubeletServerSettings,
  parts: {
    readonly client: Client
    readonly runtime: Runtime
    readonly pods: Pods
    readonly metrics: KubeletMetrics
    readonly machine: Machine
    readonly clock: Clock
    readonly log: Log
    readonly nodeName: string
    readonly port: number
  },
  signal: AbortSignal,
): Promise<void> {
  const { client, runtime, pods, metrics, machine, clock, log, nodeName, port } = parts
  await certificates.ensure('server', client, signal)
  const certificate = certificates.get('server')
  if (certificate === undefined) throw new Error('Cannot serve the kubelet API: its certificate is gone')
  const about = { nodeName, client, runtime, pods, metrics, machine, clock, log }
  const options = { host, port, certificate, clientAuthority, moreMetrics, ...about }
  const server = new KubeletServer(options)
  certificates.onChange((purpose) => {
    const renewed = certificates.get('server')
    if (purpose === 'server' && renewed !== undefined) server.renew(renewed)
  })
  await Promise.all([server.run(signal), certificates.run(client, signal)])
}

/** A second and a quarter in all: longer than containerd needs to start. */
const quietTries = 6

/** Waits for the runtime: containerd may still be starting. */
async function versionOf(runtime: Runtime, log: Log, clock: Clock, signal: AbortSignal) {
  const backoff = new Backoff({ firstMs: 20, maxMs: 1_000 })
  for (let tries = 1; ; tries++) {
    try {
      return await runtime.version(signal)
    } catch (error) {
      if (signal.aborted) throw error
      if (tries === quietTries) log.warn({ err: error }, 'the container runtime does not answer yet')
      await delay(backoff.next(), signal, clock)
    }
  }
}

function readResolvConf(path: string) {
  try {
    return parseResolvConf(readFileSync(path, 'utf8'))
  } catch (error) {
    throw new Error(`Cannot read ${path}, which pods get their name servers from`, { cause: error })
  }
}
