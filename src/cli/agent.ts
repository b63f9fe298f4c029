import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Command } from 'commander'
import { createAgent } from '#agent/agent.ts'
import { Scope } from '#base/async/scope.ts'
import { systemClock } from '#base/clock.ts'
import { createLog, type Log, type LogLevel } from '#base/log/log.ts'
import { createHttpClient, type HttpClient } from '#client/http.ts'
import { httpOptionsOf, type Kubeconfig, parseKubeconfig } from '#client/kubeconfig.ts'
import { createKubelet } from '#kubelet/kubelet.ts'
import { NodeCertificates } from '#kubelet/node/certificates.ts'
import { nthAddress } from './addresses.ts'
import { collect } from './flags.ts'
import { untilTold } from './signals.ts'

interface AgentFlags {
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
  readonly logLevel: LogLevel
}

/** Upstream's convention: the cluster's resolver has the Service network's tenth address. */
const dnsIndex = 10n

export function addAgent(program: Command): void {
  program
    .command('agent')
    .description('one node: kubelet and network')
    .option('--cluster <name>', 'the cluster', 'weft')
    .requiredOption('--node <name>', 'name of this node')
    .requiredOption('--server <url>', 'the API server')
    .requiredOption('--bootstrap-kubeconfig <file>', 'with which this node asks for its certificate')
    .requiredOption('--data-dir <dir>', 'survives a reboot: volumes, logs, certificates')
    .requiredOption('--run-dir <dir>', 'sockets')
    .option('--cri-socket <path>', 'the container runtime', '/run/containerd/containerd.sock')
    .option('--cgroup <path>', 'below every hierarchy; pods go to PATH/pods', 'weft')
    .option('--bpffs <dir>', 'where programs and maps are pinned', '/sys/fs/bpf')
    .option('--device <name>', 'the device to the other nodes', 'eth0')
    .option('--node-ip <address>', 'this node, the main address first; may be repeated', collect, [])
    .option('--cluster-cidr <cidr>', 'network of the pods, one of each family', collect, [])
    .option('--service-cidr <cidr>', 'network of the Services, one of each family', collect, [])
    .option('--log-level <level>', 'debug, info, warn or error', 'info')
    .action(runAgent)
}

/** A node, in start order: who it is, then its network, then its pods. */
async function runAgent(flags: AgentFlags): Promise<void> {
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
  log.info({}, 'The node is admitted')

  const network = createAgent({
    nodeName: flags.node,
    client,
    uplink: flags.device,
    cgroup: flags.cgroup,
    pinDir: flags.bpffs,
    serviceCidrs: flags.serviceCidr,
    runDir: flags.runDir,
    log: log.child({ part: 'network' }),
  })
  scope.start((signal) => network.run(signal))
  log.info({}, 'The network is starting')

  const kubelet = createKubelet({
    nodeName: flags.node,
    addresses: flags.nodeIp,
    client,
    dataDir: flags.dataDir,
    runtime: { socket: flags.criSocket },
    cgroup: flags.cgroup,
    dnsServers: flags.serviceCidr.map((cidr) => nthAddress(cidr, dnsIndex)),
    server: { host: '::', clientAuthority: bootstrap.ca ?? '', certificates },
    log: log.child({ part: 'kubelet' }),
  })
  scope.start((signal) => kubelet.run(signal))
  log.info({}, 'The kubelet is starting')

  void untilTold().then((why) => {
    log.info({ why }, 'Stopping')
    stopping.abort(new DOMException(why, 'AbortError'))
  })
  await scope.done()
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
