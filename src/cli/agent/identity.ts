import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { systemClock } from '#base/clock.ts'
import type { Log } from '#base/log/log.ts'
import { createHttpClient, type HttpClient } from '#client/http.ts'
import { httpOptionsOf, parseKubeconfig } from '#client/kubeconfig.ts'
import type { RequestObserver } from '#client/observe.ts'
import { NodeCertificates } from '#kubelet/node/certificates.ts'
import type { AgentFlags } from './flags.ts'

/** A node with certificates of its own, and who signs them. */
export interface AdmittedNode {
  readonly client: HttpClient
  readonly certificates: NodeCertificates
  readonly authority: string
}

/** The node's certificates: asked for with the bootstrap token the first time, from files ever after. */
export async function admitNode(
  flags: AgentFlags,
  dataDir: string,
  signal: AbortSignal,
  log: Log,
  observe: RequestObserver,
): Promise<AdmittedNode> {
  if (flags.bootstrapKubeconfig === undefined)
    throw new RangeError(
      `--bootstrap-kubeconfig is missing: --part ${flags.part} asks for the node's certificate with it`,
    )
  const bootstrap = await parseKubeconfig(await readFile(flags.bootstrapKubeconfig, 'utf8'))
  const certificates = new NodeCertificates({
    dir: join(dataDir, 'pki'),
    nodeName: flags.node,
    addresses: flags.nodeIp,
    clock: systemClock,
    log,
  })
  using asking = createHttpClient(httpOptionsOf({ ...bootstrap, server: flags.server }))
  await certificates.ensure('client', asking, signal)
  const client = createHttpClient({
    server: flags.server,
    ...(bootstrap.ca === undefined ? {} : { ca: bootstrap.ca }),
    certificate: certificates.client,
    userAgent: `weft/agent/${flags.node}`,
    observe,
  })
  return { client, certificates, authority: bootstrap.ca ?? '' }
}
