import { createSocket, type Socket as Datagrams } from 'node:dgram'
import packet, { type Answer, type DecodedPacket } from 'dns-packet'
import type { Service } from '#api/gen/core-v1.ts'
import type { Endpoint, EndpointSlice } from '#api/gen/discovery-v1.ts'
import { NameTable } from '#kernel/names.ts'
import { Forwarder } from './forward.ts'
import { fixedRecords, type NamedRecord, namespaceRecords, reverseZones, serviceRecords } from './records.ts'
import { resolve } from './resolve.ts'
import { Zone } from './zone.ts'

/** For tests only: a resolver without sockets, and upstreams. `dns-packet` reads every answer: a codec that is not ours. */

const domain = 'cluster.local'
const stamp = { uid: 'u', resourceVersion: '1', creationTimestamp: '2026-01-01T00:00:00Z' }

/** In the namespace `default`. */
export const service = (name: string, spec: Partial<Service['spec']>): Service => ({
  apiVersion: 'v1',
  kind: 'Service',
  metadata: { name, namespace: 'default', ...stamp },
  spec,
  status: { loadBalancer: {} },
})

/** One that any Service may have. */
export const slice = (
  addressType: EndpointSlice['addressType'],
  endpoints: Endpoint[],
  ports = [{ name: 'web', port: 80 }],
): EndpointSlice => ({
  apiVersion: 'discovery.k8s.io/v1',
  kind: 'EndpointSlice',
  metadata: { name: 's', namespace: 'default', ...stamp },
  addressType,
  endpoints,
  ports,
})

/** A resolver as the agent has it, without sockets. */
export class Trial implements Disposable {
  readonly table = new NameTable()
  readonly zone = new Zone({
    domain,
    reverseZones: ['10.96.0.0/16', 'fd00:10:96::/112', '10.244.0.0/16'].flatMap((cidr) => reverseZones(cidr) ?? []),
    askBelow: [`pod.${domain}`],
    serial: 1,
  })
  readonly namespaces = new Map([['default', true]])
  readonly forwarder: Forwarder

  constructor(forwarder = new Forwarder([])) {
    this.forwarder = forwarder
    const { puts, removals } = this.zone.start()
    this.table.change(puts, removals)
    this.set('', fixedRecords(domain))
    this.set('default', namespaceRecords('default', domain))
  }

  set(contributor: string, records: readonly NamedRecord[]): void {
    const { puts, removals } = this.zone.set(contributor, records)
    this.table.change(puts, removals)
  }

  put(object: Service, ...slices: EndpointSlice[]): void {
    this.set(`default/${object.metadata.name}`, serviceRecords(object, slices, domain))
  }

  async raw(query: Buffer, transport: 'udp' | 'tcp' = 'udp'): Promise<Buffer | undefined> {
    const found = this.table.answer(query, transport)
    if (found === 'none') return undefined
    return found ?? resolve(query, transport, { domain, ...this }, new AbortController().signal)
  }

  async ask(type: string, name: string, transport: 'udp' | 'tcp' = 'udp', edns = 0): Promise<DecodedPacket> {
    const query = packet.encode({
      type: 'query',
      id: 4711,
      flags: packet.RECURSION_DESIRED,
      questions: [{ type: type as 'A', name }],
      ...(edns === 0
        ? {}
        : { additionals: [{ type: 'OPT', name: '.', udpPayloadSize: edns, flags: 0, options: [] } as never] }),
    })
    const answer = await this.raw(query, transport)
    if (answer === undefined) throw new Error('no answer')
    const decoded = packet.decode(answer)
    if (decoded.id !== 4711) throw new Error(`answer has id ${decoded.id}`)
    return decoded
  }

  /** `CODE`, then the answers, in one line each. */
  async say(type: string, name: string): Promise<string[]> {
    const { rcode, answers = [], authorities = [] } = (await this.ask(type, name)) as DecodedPacket & { rcode: string }
    const soa = authorities.map((a) => `${a.type} ${a.name}`)
    return [`${rcode}${soa.length > 0 ? ` (${soa.join()})` : ''}`, ...answers.map(text).toSorted()]
  }

  [Symbol.dispose](): void {
    this.table[Symbol.dispose]()
  }
}

/** An answer in a line. */
export function text(answer: Answer): string {
  const data = 'data' in answer ? answer.data : ''
  const show =
    answer.type === 'SRV'
      ? `${answer.data.port} ${answer.data.target}`
      : answer.type === 'TXT'
        ? String(answer.data)
        : answer.type === 'SOA'
          ? answer.data.mname
          : String(data)
  return `${answer.name} ${'ttl' in answer ? answer.ttl : ''} ${answer.type} ${show}`
}

/** An upstream on the loopback. What `answer` returns is sent back; nothing: silence. */
export async function upstream(
  answer: (query: Buffer) => readonly Buffer[],
): Promise<{ port: number; seen: Buffer[]; socket: Datagrams }> {
  const socket = createSocket('udp4')
  const seen: Buffer[] = []
  socket.on('message', (query, from) => {
    seen.push(query)
    for (const message of answer(query)) socket.send(message, from.port, from.address)
  })
  await new Promise<void>((done) => socket.bind(0, '127.0.0.1', done))
  return { port: socket.address().port, seen, socket }
}

/** A question's answer: this address. */
export const answerTo = (query: Buffer, address: string): Buffer => {
  const { questions = [], id = 0 } = packet.decode(query)
  return packet.encode({
    type: 'response',
    id,
    questions,
    answers: questions.map((q) => ({ type: 'A' as const, name: q.name, ttl: 60, data: address })),
  })
}
