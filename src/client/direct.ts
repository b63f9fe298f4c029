import type { ApiHandler } from '#api/wire.ts'
import { RestClient } from './rest.ts'

/**
 * The API in process: the requests are those of any client, with a token, through authentication, authorization and
 * admission; only TLS and the network are not there. `handler` is the API server's, or a MessagePort to it (port.ts).
 */
export function createDirectClient(handler: ApiHandler, token: string, userAgent = 'weft'): RestClient {
  return new RestClient(handler, { authorization: `Bearer ${token}`, userAgent })
}
