import { reasons } from '#datapath/maps/counters.ts'
import type { HttpEvent } from '#gateway/engine.ts'
import type { Flow, Names } from './record.ts'

/** Tells of each request that the node's gateway answers, as it ends, until `signal` aborts. */
export type Requests = (listener: (event: HttpEvent) => void, signal: AbortSignal) => void

const tcp = 6

/** `10.244.0.2:8080`, `[fd00::2]:8080`. */
function split(endpoint: string): { readonly address: string; readonly port: number } | undefined {
  const [, bracketed, plain, port] = /^(?:\[([^\]]+)\]|([^:]+)):(\d+)$/.exec(endpoint) ?? []
  const address = bracketed ?? plain
  return address === undefined ? undefined : { address, port: Number(port) }
}

/**
 * A request as a flow: from the client to the endpoint that answered, or to the Gateway itself where none did. What only
 * packets have (flags, policy, device) is empty; what only requests have is `http`.
 */
export function httpFlow(event: HttpEvent, names: Names, nodeName: string): Flow {
  const { client, clientPort, address, port, atMs } = event
  const to = split(event.endpoint) ?? { address, port }
  return {
    event: {
      time: BigInt(Math.round(atMs * 1e6)),
      kind: 'connection',
      source: client,
      destination: to.address,
      sourcePort: clientPort,
      destinationPort: to.port,
      protocol: tcp,
      frontend: { address, port },
      direction: 'INGRESS',
      ifindex: 0,
      sourceIdentity: 0,
      destinationIdentity: 0,
      rule: 0,
      set: 0,
      reason: reasons[0],
      tcpFlags: 0,
      isReply: true,
      length: 0,
    },
    http: event,
    time: atMs,
    node: nodeName,
    source: names.party(client, 0, atMs),
    destination: names.party(to.address, 0, atMs),
    service: names.service(address, port, tcp),
    allowedBy: [],
    deniedBy: [],
  }
}

/** `HTTP/1.1 200 3 ms (GET http://shop.example.com/cart)`, as `hubble observe` writes it; text of others is escaped. */
export function formatHttp({ protocol, code, latencyMs, method, host, path }: HttpEvent): string {
  return `${protocol} ${code} ${latencyMs} ms (${method} ${plain(`http://${host}${path}`)})`
}

/** What a client wrote must not move a terminal's cursor. */
const plain = (text: string): string =>
  text.replaceAll(/[^\x21-\x7e]/g, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`)

/** `flow.l7` of Hubble's JSON form. */
export const httpJson = ({ protocol, code, latencyMs, method, host, path }: HttpEvent): object => ({
  type: 'RESPONSE',
  latency_ns: Math.round(latencyMs * 1e6),
  http: { code, method, url: `http://${host}${path}`, protocol },
})
