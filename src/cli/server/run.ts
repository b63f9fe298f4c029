import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { gatewayDefinitions, supersedes } from '#api/gateway/crds.ts'
import { kinds } from '#api/scheme.ts'
import { createApiServer } from '#apiserver/apiserver.ts'
import { loadOrCreatePki } from '#apiserver/pki/pki.ts'
import { Scope } from '#base/async/scope.ts'
import { systemClock } from '#base/clock.ts'
import { createLog } from '#base/log/log.ts'
import { createDirectClient } from '#client/direct.ts'
import { openLmdbStore } from '#store/lmdb/lmdb.ts'
import { firstAddress } from '../addresses.ts'
import { bringsGatewayCrds } from '../flags.ts'
import { settle } from '../settle.ts'
import { untilTold } from '../signals.ts'
import type { ServerFlags } from './flags.ts'
import { controllerManagerIdentity, issueTokens } from './identities.ts'
import { writeKubeconfigs } from './kubeconfigs.ts'
import { serveLoopback } from './loopback.ts'
import { identitiesOfParts, type Parts, startParts } from './parts.ts'

/** The control plane, in start order. What stands lower uses what stands higher; it ends in reverse. */
export async function runServer(flags: ServerFlags): Promise<void> {
  const log = createLog('server', flags.logLevel)
  const { dataDir, advertiseAddress, bindAddress } = flags
  const port = Number(flags.port)
  mkdirSync(dataDir, { recursive: true, mode: 0o700 })

  const pki = await loadOrCreatePki({
    directory: join(dataDir, 'pki'),
    names: [advertiseAddress, ...bindAddress],
    serviceAddresses: flags.serviceCidr.map(firstAddress),
  })
  const servers = [{ address: advertiseAddress, port }]
  const serverUrl = `https://${advertiseAddress}:${port}`
  const about = { dataDir, cluster: flags.cluster, pki, externalUrl: flags.externalUrl ?? serverUrl, serverUrl }
  writeKubeconfigs(about)
  pki.onRenewed((leaf) => {
    if (leaf === 'admin') writeKubeconfigs(about)
  })
  log.info({}, 'the keys and certificates are there')

  await using store = openLmdbStore(join(dataDir, 'store'))
  log.info({ revision: store.revision }, 'the store is open')

  const tokens = issueTokens(identitiesOfParts())
  let parts: Parts | undefined
  const api = await createApiServer({
    store,
    kinds,
    pki,
    serviceCidrs: flags.serviceCidr,
    servers,
    staticTokens: tokens.users,
    ...(bringsGatewayCrds(flags.gatewayCrds) ? { bundled: { definitions: gatewayDefinitions, supersedes } } : {}),
    otherMetrics: async () => parts?.metrics() ?? '',
    log,
  })
  if (flags.listenFd !== undefined) await api.listen({ fd: Number(flags.listenFd) })
  for (const host of bindAddress) await api.listen({ host, port })
  log.info({ addresses: bindAddress, port }, 'the API server listens')

  parts = startParts({
    handler: api.handler,
    tokenOf: tokens.tokenOf,
    authority: pki.authority,
    clusterCidrs: flags.clusterCidr,
    loadBalancerPools: flags.loadBalancerPool,
    controllers: flags.controllers.split(',').filter(Boolean),
    logLevel: flags.logLevel,
  })
  log.info({}, 'controllers and scheduler are starting')

  await using background = new Scope()
  const { machineNamespace, loopbackPorts } = flags
  if (machineNamespace !== undefined && loopbackPorts !== undefined) {
    const token = tokens.tokenOf.get(controllerManagerIdentity) ?? ''
    const client = createDirectClient(api.handler, token, 'weft/loopback')
    background.start((stop) => serveLoopback({ client, machineNamespace, file: loopbackPorts, log }, stop))
  }

  const cancelSettling = settle(systemClock)
  const why = await Promise.race([untilTold(), parts.failed])
  cancelSettling()
  log.info({ why }, 'stopping')
  background.stop()
  await parts.stop()
  await api.close()
}
