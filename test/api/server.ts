import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { MessageChannel } from 'node:worker_threads'
import { gatewayDefinitions, supersedes } from '#api/gateway/crds.ts'
import { kinds } from '#api/scheme.ts'
import { createApiServer } from '#apiserver/apiserver.ts'
import { loadOrCreatePki } from '#apiserver/pki/pki.ts'
import type { User } from '#apiserver/step.ts'
import { createLog } from '#base/log/log.ts'
import type { Client } from '#client/client.ts'
import { createDirectClient } from '#client/direct.ts'
import { createHttpClient } from '#client/http.ts'
import { createPortHandler, servePort } from '#client/port.ts'
import { openMemoryStore } from '#store/memory/memory.ts'

/** The real API server, on a store in memory and a port of 127.0.0.1, for tests. */
export interface TestApi extends AsyncDisposable {
  readonly handler: Parameters<typeof createDirectClient>[0]
  /** In process, under any identity. Administrators are `admin`. */
  direct(user?: string): Client
  /** In process, across a MessagePort. */
  port(user?: string): Client
  /** HTTP/2 over TLS. */
  http(user?: string): Client
}

/** Groups as the authenticators give them. */
function groupsOf(name: string): string[] {
  if (name === 'admin') return ['system:masters', 'system:authenticated']
  const [, , kind, namespace] = `:${name}`.split(':')
  return kind === 'serviceaccount'
    ? ['system:serviceaccounts', `system:serviceaccounts:${namespace}`, 'system:authenticated']
    : ['system:authenticated']
}

export async function startApi(): Promise<TestApi> {
  const directory = mkdtempSync(join(tmpdir(), 'weft-api-'))
  const pki = await loadOrCreatePki({ directory: join(directory, 'pki'), names: ['127.0.0.1'], serviceAddresses: [] })
  const store = openMemoryStore()
  const staticTokens = new Map<string, User>()
  const api = await createApiServer({
    store,
    kinds,
    pki,
    serviceCidrs: ['10.96.0.0/16', 'fd00:10:96::/112'],
    servers: [{ address: '192.0.2.1', port: 6443 }],
    staticTokens,
    bundled: { definitions: gatewayDefinitions, supersedes },
    log: createLog('api', 'error'),
  })
  const listening = await api.listen({ host: '127.0.0.1', port: 0 })
  const tokenOf = (name: string): string => {
    const token = `token-of-${name}`
    staticTokens.set(token, { name, groups: groupsOf(name) })
    return token
  }
  const closing: (() => void)[] = []
  return {
    handler: api.handler,
    direct: (user = 'admin') => createDirectClient(api.handler, tokenOf(user)),
    port(user = 'admin') {
      const { port1, port2 } = new MessageChannel()
      const stop = servePort(port1, api.handler)
      closing.push(() => {
        stop()
        port1.close()
      })
      return createDirectClient(createPortHandler(port2), tokenOf(user))
    },
    http(user = 'admin') {
      const token = tokenOf(user)
      const client = createHttpClient({
        server: `https://127.0.0.1:${listening}`,
        ca: pki.authority.certificate,
        token: () => token,
      })
      closing.push(() => client[Symbol.dispose]())
      return client
    },
    async [Symbol.asyncDispose]() {
      for (const close of closing) close()
      await api.close()
      await store[Symbol.asyncDispose]()
      rmSync(directory, { recursive: true, force: true })
    },
  }
}
