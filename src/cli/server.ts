import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import type { Command } from 'commander'
import { kinds } from '#api/scheme.ts'
import { createApiServer } from '#apiserver/apiserver.ts'
import { loadOrCreatePki } from '#apiserver/pki/pki.ts'
import { createLog, type LogLevel } from '#base/log/log.ts'
import { openLmdbStore } from '#store/lmdb/lmdb.ts'
import { firstAddress } from './addresses.ts'
import { collect } from './flags.ts'
import { issueTokens } from './server/identities.ts'
import { writeKubeconfigs } from './server/kubeconfigs.ts'
import { identitiesOfParts, startParts } from './server/parts.ts'
import { untilTold } from './signals.ts'

interface ServerFlags {
  readonly cluster: string
  readonly dataDir: string
  readonly advertiseAddress: string
  readonly bindAddress: readonly string[]
  readonly port: string
  readonly listenFd?: string
  readonly externalUrl?: string
  readonly clusterCidr: readonly string[]
  readonly serviceCidr: readonly string[]
  readonly logLevel: LogLevel
}

export function addServer(program: Command): void {
  program
    .command('server')
    .description('the control plane of one cluster: API server, controllers, scheduler')
    .option('--cluster <name>', 'name in kubeconfigs', 'weft')
    .requiredOption('--data-dir <dir>', 'store, keys and certificates')
    .requiredOption('--advertise-address <address>', 'where nodes and pods reach this server')
    .option('--bind-address <address>', 'address to listen on; may be repeated', collect, [])
    .option('--port <port>', 'port to listen on', '6443')
    .option('--listen-fd <number>', 'a listening socket that was inherited')
    .option('--external-url <url>', 'where the administrator reaches it (https://ADVERTISED:PORT)')
    .option('--cluster-cidr <cidr>', 'network of the pods, one of each family', collect, [])
    .option('--service-cidr <cidr>', 'network of the Services, one of each family', collect, [])
    .option('--log-level <level>', 'debug, info, warn or error', 'info')
    .action(runServer)
}

/** The control plane, in start order. What stands lower uses what stands higher; it ends in reverse. */
async function runServer(flags: ServerFlags): Promise<void> {
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
  writeKubeconfigs({ dataDir, cluster: flags.cluster, pki, externalUrl: flags.externalUrl ?? serverUrl, serverUrl })
  log.info({}, 'The keys and certificates are there')

  await using store = openLmdbStore(join(dataDir, 'store'))
  log.info({ revision: store.revision }, 'The store is open')

  const tokens = issueTokens(identitiesOfParts())
  const api = await createApiServer({
    store,
    kinds,
    pki,
    serviceCidrs: flags.serviceCidr,
    servers,
    staticTokens: tokens.users,
    log,
  })
  if (flags.listenFd !== undefined) await api.listen({ fd: Number(flags.listenFd) })
  for (const host of bindAddress) await api.listen({ host, port })
  log.info({ addresses: bindAddress, port }, 'The API server listens')

  const parts = startParts({
    handler: api.handler,
    tokenOf: tokens.tokenOf,
    authority: pki.authority,
    clusterCidrs: flags.clusterCidr,
    logLevel: flags.logLevel,
  })
  log.info({}, 'Controllers and scheduler are starting')

  const why = await Promise.race([untilTold(), parts.failed])
  log.info({ why }, 'Stopping')
  await parts.stop()
  await api.close()
}
