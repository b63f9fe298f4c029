import { readFile } from 'node:fs/promises'
import { type Agent, createAgent } from '#agent/agent.ts'
import { resolverAddresses } from '#agent/dns/address.ts'
import { Scope } from '#base/async/scope.ts'
import { systemClock } from '#base/clock.ts'
import { createLog, type Log } from '#base/log/log.ts'
import type { HttpClient } from '#client/http.ts'
import type { XdpMode } from '#datapath/kernel.ts'
import type { CableMode } from '#datapath/node.ts'
import { parseResolvConf } from '#kubelet/containers/names.ts'
import { createKubelet, type Kubelet } from '#kubelet/kubelet.ts'
import { KubeletMetrics } from '#kubelet/server/metrics.ts'
import { nthAddress } from '../addresses.ts'
import { parsePort, parseTunnel } from '../flags.ts'
import { serveHealth } from '../health.ts'
import { serviceAccountClient } from '../service-account.ts'
import { settle } from '../settle.ts'
import { untilTold } from '../signals.ts'
import type { AgentFlags } from './flags.ts'
import { type AdmittedNode, admitNode } from './identity.ts'

/** Upstream's convention: the cluster's resolver has the Service network's tenth address. */
const dnsIndex = 10n

/** A node, in start order: who it is, then its network, then its pods. */
export async function runAgent(flags: AgentFlags): Promise<void> {
  const log = createLog('agent', flags.logLevel).child({ node: flags.node })
  const stopping = new AbortController()
  await using scope = new Scope(stopping.signal)
  const cancelSettling = settle(systemClock)
  void untilTold().then((why) => {
    cancelSettling()
    log.info({ why }, 'stopping')
    stopping.abort(new DOMException(why, 'AbortError'))
  })

  switch (flags.part) {
    case 'all':
    case 'kubelet': {
      const dataDir = required(flags.dataDir, '--data-dir', flags.part)
      const metrics = new KubeletMetrics(flags.node)
      const admitted = await admitNode(flags, dataDir, scope.signal, log, metrics.observeRequest)
      using client = admitted.client
      log.info({}, 'the node is admitted')
      const network = flags.part === 'all' ? await networkOf(flags, client, log) : undefined
      if (network !== undefined) scope.start((signal) => network.run(signal))
      const kubelet = kubeletOf(flags, dataDir, admitted, network, metrics, log)
      scope.start((signal) => kubelet.run(signal))
      log.info({ part: flags.part }, 'the node is starting')
      return await scope.done()
    }
    case 'network': {
      using client = serviceAccountClient(flags.server, `weft/agent/${flags.node}`)
      const network = await networkOf(flags, client, log)
      scope.start((signal) => network.run(signal))
      const health = () => {
        const { state } = network.status()
        return { isWell: state === 'ready', words: state }
      }
      const metrics = () => network.registry.metrics()
      const port = parsePort(flags.metricsPort, '--metrics-port')
      scope.start((signal) => serveHealth({ port, health, metrics }, signal))
      log.info({ part: flags.part }, 'the network is starting')
      return await scope.done()
    }
    default:
      throw new RangeError(`--part ${flags.part}: use all, kubelet or network`)
  }
}

async function networkOf(flags: AgentFlags, client: HttpClient, log: Log): Promise<Agent> {
  return createAgent({
    nodeName: flags.node,
    client,
    uplink: flags.device,
    cgroup: flags.cgroup,
    cgroupRoot: flags.cgroupRoot,
    pinDir: flags.bpffs,
    serviceCidrs: flags.serviceCidr,
    clusterCidrs: flags.clusterCidr,
    // A network by itself may be on any control plane.
    peers: flags.part === 'network' ? 'pods' : 'metadata',
    ...(parseTunnel(flags.tunnel) === 'vxlan' ? { tunnel: 'vxlan' as const } : {}),
    xdp: parseXdp(flags.xdp),
    cable: parseCable(flags.cable),
    noMasquerade: flags.masqueradeExcludeCidr,
    externalIpCidrs: flags.externalIpCidr,
    resolvers: await resolversOf(flags),
    namesApart: true,
    goldenSignals: parseGoldenSignals(flags.goldenSignals),
    runDir: flags.runDir,
    cacheDir: flags.cacheDir,
    ...(flags.cniBinDir === undefined ? {} : { cniBinDir: flags.cniBinDir }),
    ...(flags.cniConfDir === undefined ? {} : { cniConfDir: flags.cniConfDir }),
    log: log.child({ part: 'network' }),
  })
}

function kubeletOf(
  flags: AgentFlags,
  dataDir: string,
  { client, certificates, authority }: AdmittedNode,
  network: Agent | undefined,
  metrics: KubeletMetrics,
  log: Log,
): Kubelet {
  return createKubelet({
    nodeName: flags.node,
    addresses: flags.nodeIp,
    client,
    metrics,
    dataDir,
    runtime: { socket: flags.criSocket },
    cgroup: flags.cgroup,
    ...(flags.resolvConf === '' ? { resolvConf: '/dev/null' } : { resolvConf: flags.resolvConf }),
    dnsServers: flags.serviceCidr.map((cidr) => nthAddress(cidr, dnsIndex)),
    server: {
      host: '::',
      clientAuthority: authority,
      certificates,
      ...(network === undefined ? {} : { moreMetrics: () => network.registry.metrics() }),
    },
    log: log.child({ part: 'kubelet' }),
  })
}

function required(value: string | undefined, flag: string, part: string): string {
  if (value === undefined) throw new RangeError(`${flag} is missing: --part ${part} needs it`)
  return value
}

/** Those that were named, else those of the node's own resolv.conf, without ourselves. */
async function resolversOf({ resolver, resolvConf }: AgentFlags): Promise<readonly string[]> {
  if (resolver.length > 0 || resolvConf === '') return resolver
  const { servers } = parseResolvConf(await readFile(resolvConf, 'utf8'))
  const own: readonly string[] = resolverAddresses
  return servers.filter((address) => !own.includes(address))
}

function parseGoldenSignals(text: string): boolean {
  if (text === 'on' || text === 'off') return text === 'on'
  throw new RangeError(`--golden-signals ${text}: use on or off`)
}

function parseCable(text: string): CableMode {
  if (text === 'straight' || text === 'queue') return text
  throw new RangeError(`--cable ${text}: use straight or queue`)
}

function parseXdp(text: string): XdpMode {
  if (text === 'off' || text === 'native' || text === 'generic') return text
  throw new RangeError(`--xdp ${text}: use off, native or generic`)
}
