import { type IcmpError, type Packet, packetBytes, protocolOf, protocols, type Tuple, tupleOf } from './packet.ts'

/**
 * What an ICMP error is about (RFC 792, 4443, 5508). It belongs to the connection of the packet that it quotes, and goes to
 * whoever sent that.
 */

export type Quoted =
  | { readonly kind: 'quoted'; readonly tuple: Tuple }
  /** Cut off before its ports. */
  | { readonly kind: 'short' }
  /** An error about an error, or about nothing that has a sender's ports. */
  | { readonly kind: 'forbidden' }

/** `fragments` answers for a quoted later fragment: its first one's ports. */
export function quotedBy(
  packet: Packet,
  error: IcmpError,
  firstOf: (later: Packet) => Tuple | undefined,
): Quoted | 'lost' {
  const { inner } = error
  const six = inner.source.includes(':')
  const { short = Number.POSITIVE_INFINITY } = packet
  // Of the error's own eight bytes and what follows, as much as the packet says that there is.
  const quoted = Math.min(error.quoted, packetBytes(inner), short - 8)
  const header = six ? 40 : 20
  if (quoted < header) return { kind: 'short' }
  const extensions = six ? (inner.extensions ?? []) : []
  const start = six ? header + (inner.fragment === undefined ? 0 : 8) : header + (inner.options ?? 0)
  const { source, destination } = inner
  const none = { source, destination, sourcePort: 0, destinationPort: 0 }
  // What lies behind extension headers is not looked for: it is known by its first header's number.
  if (extensions[0] !== undefined)
    return { kind: 'quoted', tuple: { ...none, protocol: extensionNumbers[extensions[0]] } }
  if (six && inner.fragment !== undefined && quoted < start) return { kind: 'short' }
  const protocol = protocolOf(inner)
  if (inner.fragment !== undefined && inner.fragment.offset > 0) {
    const first = firstOf(inner)
    return first === undefined ? 'lost' : { kind: 'quoted', tuple: first }
  }
  const left = quoted - start
  const ports = protocol === protocols.tcp || protocol === protocols.udp || protocol === protocols.sctp
  const icmp = protocol === protocols.icmp || protocol === protocols.icmp6
  if ((ports && left < 4) || (icmp && left < 8)) return { kind: 'short' }
  if (inner.layer4.kind === 'error') return { kind: 'forbidden' }
  const tuple = tupleOf(inner)
  if (tuple === undefined && icmp) return { kind: 'forbidden' }
  return { kind: 'quoted', tuple: tuple ?? { ...none, protocol } }
}

const extensionNumbers = { 'hop-by-hop': 0, routing: 43, authentication: 51, destination: 60 } as const
