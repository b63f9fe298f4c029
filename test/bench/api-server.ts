import { join } from 'node:path'
import { kinds } from '#api/scheme.ts'
import { createApiServer } from '#apiserver/apiserver.ts'
import { loadOrCreatePki } from '#apiserver/pki/pki.ts'
import { createLog } from '#base/log/log.ts'
import { openLmdbStore } from '#store/lmdb/lmdb.ts'

/** An API server with nothing beside it, for api.ts: says its port, and goes on until it is killed. */
const directory = process.argv[2]
if (directory === undefined) throw new Error('Name a directory')
const pki = await loadOrCreatePki({ directory: join(directory, 'pki'), names: [], serviceAddresses: ['10.96.0.1'] })
const api = await createApiServer({
  store: openLmdbStore(join(directory, 'store')),
  kinds,
  pki,
  serviceCidrs: ['10.96.0.0/16'],
  servers: [{ address: '192.0.2.1', port: 6443 }],
  staticTokens: new Map(),
  log: createLog('api', 'error'),
})
process.stdout.write(`${await api.listen({ host: '127.0.0.1', port: 0 })}\n`)
