import { once } from 'node:events'
import { createServer } from 'node:net'

/** A port of an address of this machine that nobody has at the moment: for a server that must be found again where it was. */
export async function freePort(host = '127.0.0.1'): Promise<number> {
  const server = createServer().listen(0, host)
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  if (address === null || typeof address === 'string') throw new Error('Cannot find a free port')
  return address.port
}
