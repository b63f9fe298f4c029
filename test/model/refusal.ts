import { flag, type Packet } from './packet.ts'

/** What is denied is told so: a reset for TCP (RFC 9293, 3.10.7.1), "administratively prohibited" for the rest (RFC 1812, 4443). */

/** So many a second for each pod; after that silence. */
export const refusalsPerSecond = 1_000

/** Undefined: to this nobody answers, for it is an answer itself, or could not be told from what. */
export function refusalOf(packet: Packet): Packet | undefined {
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
  if (six && fragment !== undefined) return undefined
  return {
    ...turned,
    layer4: {
      kind: 'error',
      error: 'unreachable',
      // Communication administratively prohibited.
      code: six ? 1 : 13,
      mtu: 0,
      inner: packet,
      // The header and the eight bytes that have the ports.
      quoted: six ? 48 : 28,
    },
  }
}
