import { flag, type Packet, packetBytes } from './packet.ts'
import type { Reason } from './reasons.ts'

/** What is denied is told so: a reset for TCP (RFC 9293, 3.10.7.1), "administratively prohibited" for the rest (RFC 1812, 4443). */

/** Reasons that the sender is told. */
const told: readonly Reason[] = [
  'policy denied',
  'unknown sender',
  'invalid flow',
  'no service',
  'no backend',
  'no nat port',
  'no nat mapping',
]
export const isTold = (reason: Reason): boolean => told.includes(reason)

/** So many a second for each pod; after that silence. */
export const refusalsPerSecond = 1_000

/** How many each pod has had in the second that is. */
export class Refusals {
  readonly #counts = new Map<string, { second: number; count: number }>()

  allow(device: string, now: number): boolean {
    const second = Math.floor(now / 1_000)
    const known = this.#counts.get(device)
    const count = known?.second === second ? known.count + 1 : 1
    this.#counts.set(device, { second, count })
    return count <= refusalsPerSecond
  }
}

/** Nobody is there: port unreachable, as a closed port says; nobody may: communication administratively prohibited. */
function codeOf(reason: Reason | undefined, six: boolean): number {
  const isNobody = reason === 'no service' || reason === 'no backend'
  return isNobody ? (six ? 4 : 3) : six ? 1 : 13
}

/** Undefined: to this nobody answers, for it is an answer itself, or could not be told from what. */
export function refusalOf(packet: Packet, reason?: Reason): Packet | undefined {
  const { source, destination, layer4, fragment, extensions = [], options = 0 } = packet
  if (fragment !== undefined && fragment.offset > 0) return undefined
  const turned = { source: destination, destination: source, hops: 64 }
  if (layer4.kind === 'tcp') {
    const { flags, sequence, acknowledgement, sourcePort, destinationPort } = layer4
    if ((flags & flag.rst) !== 0) return undefined
    const ports = { sourcePort: destinationPort, destinationPort: sourcePort }
    const bytes = Math.min(layer4.payload, (packet.short ?? Number.POSITIVE_INFINITY) - 20)
    const end = sequence + bytes + ((flags & flag.syn) === 0 ? 0 : 1) + ((flags & flag.fin) === 0 ? 0 : 1)
    const numbers =
      (flags & flag.ack) === 0
        ? { flags: flag.rst | flag.ack, sequence: 0, acknowledgement: end >>> 0 }
        : { flags: flag.rst, sequence: acknowledgement, acknowledgement: 0 }
    return { ...turned, layer4: { kind: 'tcp', ...ports, ...numbers, window: 0, payload: 0 } }
  }
  if (layer4.kind === 'error' || extensions.length > 0 || options > 0) return undefined
  const six = source.includes(':')
  // What has not even eight bytes behind its header is not worth an answer.
  const quoted = six ? 48 : 28
  if ((six && fragment !== undefined) || packetBytes(packet) < quoted) return undefined
  return {
    ...turned,
    layer4: {
      kind: 'error',
      error: 'unreachable',
      code: codeOf(reason, six),
      mtu: 0,
      inner: packet,
      // The header and the eight bytes that have the ports.
      quoted,
    },
  }
}

/**
 * A connection that is cut ends for the packet's receiver, too: instead of the packet it gets a reset that it takes for its
 * connection's. A SYN counts one (RFC 9293, 3.4). `waitsBehind`: the receiver has sent a SYN that ends there and heard nothing
 * since; it takes only what acknowledges that (3.10.7.3). Undefined: there is no header to make it of.
 */
export function resetOnward(packet: Packet, waitsBehind?: number): Packet | undefined {
  const { source, destination, layer4, fragment } = packet
  if (layer4.kind !== 'tcp' || (fragment !== undefined && fragment.offset > 0)) return undefined
  const sequence = (layer4.sequence + ((layer4.flags & flag.syn) === 0 ? 0 : 1)) >>> 0
  const answers = waitsBehind === undefined ? {} : { acknowledgement: waitsBehind }
  const flags = flag.rst | (waitsBehind === undefined ? layer4.flags & flag.ack : flag.ack)
  return { source, destination, hops: 64, layer4: { ...layer4, sequence, ...answers, flags, window: 0, payload: 0 } }
}
