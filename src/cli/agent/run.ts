import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createAgent } from '#agent/agent.ts'
import { resolverAddresses } from '#agent/dns/address.ts'
import { Scope } from '#base/async/scope.ts'
import { systemClock } from '#base/clock.ts'
import { createLog, type Log } from '#base/log/log.ts'
import { createHttpClient, type HttpClient } from '#client/http.ts'
import { httpOptionsOf, type Kubeconfig, parseKubeconfig } from '#client/kubeconfig.ts'
import { parseResolvConf } from '#kubelet/containers/names.ts'
import { createKubelet } from '#kubelet/kubelet.ts'
import { NodeCertificates } from '#kubelet/node/certificates.ts'
import { nthAddress } from '../addresses.ts'
import { untilTold } from '../signals.ts'
import type { AgentFlags } from './flags.ts'

/** Upstream's convention: the cluster's resolver has the Service network's tenth address. */
const dnsIndex = 10n

/** A node, in start order: who it is, then its network, then its pods. */
export async function runAgent(flags: AgentFlags): Promise<void> {
  const log = createLog('agent', flags.logLevel).child({ node: flags.node })
  const stopping = new AbortController()
  await using scope = new Scope(stopping.signal)
  const bootstrap = await parseKubeconfig(await readFile(flags.bootstrapKubeconfig, 'utf8'))
  const certificates = await admittedNode(flags, bootstrap, scope.signal, log)
  using client: HttpClient = createHttpClient({
    server: flags.server,
    ...(bootstrap.ca === undefined ? {} : { ca: bootstrap.ca }),
    certificate: certificates.client,
    userAgent: `weft/agent/${flags.node}`,
  })
  log.info({}, 'the node is admitted')

  const network = createAgent({
    nodeName: flags.node,
    client,
    uplink: flags.device,
    cgroup: flags.cgroup,
    pinDir: flags.bpffs,
    serviceCidrs: flags.serviceCidr,
    clusterCidrs: flags.clusterCidr,
    resolvers: await resolversOf(flags),
    runDir: flags.runDir,
    log: log.child({ part: 'network' }),
  })
  scope.start((signal) => network.run(signal))
  log.info({}, 'the network is starting')

  const kubelet = createKubelet({
    nodeName: flags.node,
    addresses: flags.nodeIp,
    client,
    dataDir: flags.dataDir,
    runtime: { socket: flags.criSocket },
    cgroup: flags.cgroup,
    ...(flags.resolvConf === '' ? { resolvConf: '/dev/null' } : { resolvConf: flags.resolvConf }),
    dnsServers: flags.serviceCidr.map((cidr) => nthAddress(cidr, dnsIndex)),
    server: {
      host: '::',
      clientAuthority: bootstrap.ca ?? '',
      certificates,
      moreMetrics: () => network.registry.metrics(),
    },
    log: log.child({ part: 'kubelet' }),
  })
  scope.start((signal) => kubelet.run(signal))
  log.info({}, 'the kubelet is starting')

  void untilTold().then((why) => {
    log.info({ why }, 'stopping')
    stopping.abort(new DOMException(why, 'AbortError'))
  })
  await scope.done()
}

/** Those that were named, else those of the node's own resolv.conf, without ourselves. */
async function resolversOf({ resolver, resolvConf }: AgentFlags): Promise<readonly string[]> {
  if (resolver.length > 0 || resolvConf === '') return resolver
  const { servers } = parseResolvConf(await readFile(resolvConf, 'utf8'))
  const own: readonly string[] = resolverAddresses
  return servers.filter((address) => !own.includes(address))
}

/** The node's certificates: asked for with the bootstrap token the first time, from files ever after. */
async function admittedNode(
  flags: AgentFlags,
  bootstrap: Kubeconfig,
  signal: AbortSignal,
  log: Log,
): Promise<NodeCertificates> {
  const certificates = new NodeCertificates({
    dir: join(flags.dataDir, 'pki'),
    nodeName: flags.node,
    addresses: flags.nodeIp,
    clock: systemClock,
    log,
  })
  using client = createHttpClient(httpOptionsOf({ ...bootstrap, server: flags.server }))
  await certificates.ensure('client', client, signal)
  return certificates
}
