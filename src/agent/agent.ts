import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { Registry } from 'prom-client'
import {
  endpointSlices,
  ingressClasses,
  ingresses,
  namespaces,
  networkPolicies,
  nodes,
  pods,
  services,
} from '#api/gen/resources.ts'
import { Scope } from '#base/async/scope.ts'
import { type Clock, systemClock } from '#base/clock.ts'
import { type Log, silentLog } from '#base/log/log.ts'
import type { Client } from '#client/client.ts'
import { EventRecorder } from '#client/events.ts'
import { Informers } from '#client/informer.ts'
import { compile } from '#datapath/compile.ts'
import { EventRing } from '#datapath/events/ring.ts'
import { KernelDatapath, type XdpMode } from '#datapath/kernel.ts'
import type { CableMode } from '#datapath/node.ts'
import { podMtu } from '#datapath/tunnel.ts'
import { gatewayClasses, gateways, grpcRoutes, httpRoutes, referenceGrants } from '#gateway/objects.ts'
import { findCgroups } from '#kernel/cgroup.ts'
import { probeFeatures, requireFeatures } from '#kernel/features.ts'
import { Netlink } from '#kernel/netlink/netlink.ts'
import type { Namespace } from '#kernel/netns.ts'
import { resolverAddresses, resolverService } from './dns/address.ts'
import { Names } from './dns/dns.ts'
import { Endpoints, wireByKernel } from './endpoints/endpoints.ts'
import { Records } from './endpoints/record.ts'
import { installConfig, installPlugin, serveCni } from './endpoints/server.ts'
import { Flows } from './flows/flows.ts'
import { NameIndex } from './flows/names.ts'
import { flowsRoute } from './flows/route.ts'
import { NodeEngine } from './gateway/engine/engine.ts'
import { Gateways } from './gateway/gateway.ts'
import { NodeHealth } from './health/health.ts'
import { Hooks } from './hooks.ts'
import { livePodsSelector } from './identity/reflect.ts'
import { type Route, serveLocal } from './local/local.ts'
import { mapsRoute } from './local/maps.ts'
import { Nodes } from './nodes/nodes.ts'
import { Uplink } from './nodes/uplink.ts'
import { Policies } from './policy/policy.ts'
import { Services } from './services/services.ts'
import { type AgentStatus, type Running, registerAll, statusOf } from './status.ts'
import { sweepFlows } from './sweep.ts'
import { whyRoute } from './why/why.ts'

export interface AgentOptions {
  readonly nodeName: string
  readonly client: Client
  /** Device that leads to the other nodes. */
  readonly uplink: string
  /** The node's cgroup, below the mount point of cgroup2: `weft/weft/node-1`. */
  readonly cgroup: string
  /** Where the node's hierarchies are mounted, if this process sees others too. */
  readonly cgroupRoot?: string
  /** A directory on a bpffs that is this node's alone. */
  readonly pinDir: string
  readonly serviceCidrs: readonly string[]
  /** What is read of other nodes' pods: `metadata` is enough of an API server of ours, another says the rest in the pods. */
  readonly peers?: 'metadata' | 'pods'
  readonly clusterCidrs?: readonly string[]
  /** How packets get to other nodes' pods; absent: as they are, by the nodes' routes. */
  readonly tunnel?: 'vxlan'
  /** Networks of external IPs that pods too may be led by to a Service; others work from outside only (CVE-2020-8554). */
  readonly externalIpCidrs?: readonly string[]
  /** Networks outside the cluster that pods talk to under their own addresses. */
  readonly noMasquerade?: readonly string[]
  /** Services from outside already in the uplink's driver. Default off. */
  readonly xdp?: XdpMode
  /** To other nodes' pods by an uplink that is one end of a veth pair. Default straight. */
  readonly cable?: CableMode
  /** The resolver over UDP is a process of its own, which stays when this one ends. */
  readonly namesApart?: boolean
  /** Resolvers for what is not of the cluster, in this order. */
  readonly resolvers?: readonly string[]
  /** Gateways count requests by route, backend, status and time. Default true. */
  readonly goldenSignals?: boolean
  /** Sockets and records; a reboot empties it. */
  readonly runDir: string
  /** Compiled programs. */
  readonly cacheDir?: string
  readonly cniSocket?: string
  readonly cniBinDir?: string
  readonly cniConfDir?: string
  /** The node's network namespace; absent: the one that this process is in. */
  readonly namespace?: Namespace
  readonly registry?: Registry
  readonly clock?: Clock
  readonly log?: Log
}

export interface Agent {
  readonly registry: Registry
  /** Runs until `signal` aborts; what is in the kernel stays in force. Throws where the node cannot have a network. */
  run(signal: AbortSignal, started?: () => void): Promise<void>
  status(): AgentStatus
}

/** The node's network: assembled here, top to bottom. */
export function createAgent(options: AgentOptions): Agent {
  const { nodeName, client, uplink, namespace, clock = systemClock, log = silentLog, runDir } = options
  const { registry = new Registry(), cacheDir = '/var/cache/weft/bpf' } = options
  const cniSocket = options.cniSocket ?? join(runDir, 'cni.sock')
  const cniBinDir = options.cniBinDir ?? join(runDir, 'cni/bin')
  const cniConfDir = options.cniConfDir ?? join(runDir, 'cni/conf')
  const running: Running = { state: 'starting', features: [] }
  const observeSweep = registerAll(registry, running)

  async function run(signal: AbortSignal, started: () => void = () => {}): Promise<void> {
    // 1. The kernel: what it can do, our programs in it, and what an earlier agent left.
    running.features = probeFeatures()
    requireFeatures(running.features)
    const objects = await compile({ cacheDir })
    using kernel = await KernelDatapath.open({
      objects,
      pinDir: options.pinDir,
      cgroupPath: join(findCgroups(undefined, options.cgroupRoot).unified, options.cgroup),
      uplink,
      serviceCidrs: options.serviceCidrs,
      podCidrs: options.clusterCidrs ?? [],
      noMasquerade: options.noMasquerade ?? [],
      xdp: options.xdp ?? 'off',
      cable: options.cable ?? 'straight',
      ...(options.tunnel === undefined ? {} : { tunnel: options.tunnel }),
      ...(namespace === undefined ? {} : { namespace }),
      clock,
      log,
    })
    running.datapath = kernel
    running.takenOver = kernel.takenOver
    using netlink = Netlink.open(namespace)
    const mtu = podMtu((await netlink.link(uplink))?.mtu ?? 1500, options.tunnel)

    // 2. The cluster, as this node needs to know it.
    await using informers = new Informers({ client, clock, log })
    const known = {
      pods: informers.of(pods, { fieldSelector: `spec.nodeName=${nodeName}` }),
      nodes: informers.of(nodes),
      services: informers.of(services),
      slices: informers.of(endpointSlices),
    }
    const knownNamespaces = informers.of(namespaces)

    // 3. The loops.
    const common = { datapath: kernel, clock }
    const records = new Records(join(runDir, 'endpoints'))
    const metadataOnly = options.peers !== 'pods'
    const peers = informers.of(pods, { fieldSelector: livePodsSelector, metadataOnly })
    const policies = new Policies({
      ...common,
      ...known,
      nodeName,
      namespaces: knownNamespaces,
      peers,
      policies: informers.of(networkPolicies),
      events: new EventRecorder({ client, component: 'weft-agent', host: nodeName, clock, log }),
      resolverAddresses,
      isTunnelled: options.tunnel !== undefined,
      log: log.child({ loop: 'policies' }),
    })
    const endpoints = new Endpoints({
      ...common,
      ...known,
      nodeName,
      records,
      policies,
      netlink,
      wire: wireByKernel(netlink, namespace),
      mtu,
      log: log.child({ loop: 'endpoints' }),
    })
    const serviceLoop = new Services({
      ...common,
      ...known,
      nodeName,
      clusterCidrs: [...options.serviceCidrs, ...(options.clusterCidrs ?? [])],
      externalIpCidrs: options.externalIpCidrs ?? [],
      localBackends: new Map([[resolverService, resolverAddresses]]),
      sandboxes: () => records.list().map((record) => record.netns),
      healthChecks: true,
      events: new EventRecorder({ client, component: 'weft-agent', host: nodeName, clock, log }),
      ...(namespace === undefined ? {} : { namespace }),
      log: log.child({ loop: 'services' }),
    })
    const nodeLoop = new Nodes({ ...common, ...known, nodeName, log: log.child({ loop: 'nodes' }) })
    const names = new Names({
      ...known,
      ...(namespace === undefined ? {} : { namespace }),
      namespaces: knownNamespaces,
      netlink,
      cidrs: [...options.serviceCidrs, ...(options.clusterCidrs ?? [])],
      ...(options.namesApart === true ? { separateDir: runDir } : {}),
      upstreams: (options.resolvers ?? []).map((address) => ({ address })),
      clock,
      log: log.child({ loop: 'names' }),
    })
    const engineDir = join(runDir, 'gateway')
    const gatewayLoop = new Gateways({
      nodeName,
      client,
      nodes: known.nodes,
      copies: {
        classes: informers.of(gatewayClasses),
        gateways: informers.of(gateways),
        httpRoutes: informers.of(httpRoutes),
        grpcRoutes: informers.of(grpcRoutes),
        grants: informers.of(referenceGrants),
        ingresses: informers.of(ingresses),
        ingressClasses: informers.of(ingressClasses),
        namespaces: knownNamespaces,
        services: known.services,
        slices: known.slices,
      },
      openEngine: () =>
        NodeEngine.open({
          objects,
          pinDir: options.pinDir,
          dir: engineDir,
          uplink,
          ...(options.goldenSignals === undefined ? {} : { goldenSignals: options.goldenSignals }),
          ...(namespace === undefined ? {} : { namespace }),
          clock,
          log: log.child({ loop: 'gateways' }),
        }),
      leftBehind: () => existsSync(join(engineDir, 'haproxy')),
      clock,
      log: log.child({ loop: 'gateways' }),
    })

    const made = { policies, endpoints, services: serviceLoop, nodes: nodeLoop, names, gateways: gatewayLoop }
    Object.assign(running, made satisfies Partial<Running>)

    // 4. What is said of it all, to whoever asks on this node.
    const nameIndex = new NameIndex(policies)
    known.services.onChange((next, old) => nameIndex.serviceChanged(next, old), signal)
    known.nodes.onChange((next, old) => nameIndex.node(next, old, nodeName, clock.now()), signal)
    peers.onChange((next, old) => nameIndex.pod(next, old, clock.now()), signal)
    using events = EventRing.open(options.pinDir)
    const flows = new Flows({
      source: events,
      names: nameIndex,
      nodeName,
      clock,
      requests: (listener, until) => gatewayLoop.requests(listener, until),
    })
    running.flows = flows
    const routes = new Map<string, Route>([
      ['/v1/status', async () => statusOf(running)],
      ['/v1/bpf/', mapsRoute(kernel, nameIndex, join(options.pinDir, 'maps'))],
      ['/v1/flows', flowsRoute(flows)],
      [
        '/v1/why',
        whyRoute({
          nodeName,
          datapath: kernel,
          names: nameIndex,
          rules: policies,
          uplinkIndex: kernel.uplinkIndex,
          isTunnelled: options.tunnel !== undefined,
          judge: (hook, frame, ifindex) => kernel.probe().judge(hook, frame, ifindex),
        }),
      ],
    ])

    // 5. Start: sandboxes as they were, routes, Services, then the runtime may call, and last it is told so.
    await endpoints.restore()
    policies.restore(endpoints.list())
    await using scope = new Scope(signal)
    scope.start((stop) => serveLocal({ socketPath: join(runDir, 'agent.sock'), routes, log }, stop))
    scope.start((stop) => flows.run(stop))
    scope.start((stop) => sweepFlows(kernel, { clock, log, observe: observeSweep }, stop))
    const ofNode = {
      ...common,
      nodes: known.nodes,
      nodeName,
      events: new EventRecorder({ client, component: 'weft-agent', host: nodeName, clock, log }),
    }
    const hooks = new Hooks({ ...ofNode, log: log.child({ loop: 'hooks' }) })
    const follower = new Uplink({ ...ofNode, log: log.child({ loop: 'uplink' }) })
    Object.assign(running, { hooks, uplink: follower } satisfies Partial<Running>)
    scope.start((stop) => ofNode.events.run(stop))
    scope.start((stop) => hooks.run(stop))
    scope.start((stop) => follower.run(stop))
    // From another namespace than the node's nobody could be reached.
    if (namespace === undefined) {
      const health = new NodeHealth({ nodes: known.nodes, nodeName, clock, log: log.child({ loop: 'health' }) })
      running.health = health
      scope.start((stop) => health.run(stop))
    }
    const loops = [nodeLoop, serviceLoop, names, policies, gatewayLoop]
    await Promise.all(loops.map((loop) => startPart(scope, loop)))
    installPlugin(cniBinDir)
    await new Promise<void>((listening) => {
      const handle = endpoints.handle.bind(endpoints)
      scope.start((stop) => serveCni({ socketPath: cniSocket, handle, log }, stop, listening))
      scope.signal.addEventListener('abort', () => listening(), { once: true })
    })
    installConfig(cniConfDir, cniSocket)
    running.state = 'ready'
    log.info({ mtu, cniSocket }, 'the network of this node is ready')
    started()
    await scope.done()
  }

  return {
    registry,
    async run(signal, started) {
      try {
        await run(signal, started)
      } finally {
        running.state = 'stopped'
        running.datapath = undefined
        running.flows = undefined
      }
    },
    status: () => statusOf(running),
  }
}

/** Resolves when the loop has done its first round, or the scope ends. */
function startPart(
  scope: Scope,
  part: { run(signal: AbortSignal, started: () => void): Promise<void> },
): Promise<void> {
  return new Promise((started) => {
    scope.signal.addEventListener('abort', () => started(), { once: true })
    scope.start((signal) => part.run(signal, started))
  })
}
