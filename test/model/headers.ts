import { contains, familyOf } from './address.ts'
import { frameLength } from './frame.ts'
import { layer4Bytes, type Packet, protocolOf, protocols } from './packet.ts'
import type { Reason } from './reasons.ts'

/** What a strict reader of headers finds wrong with a packet, before anybody asks whose it is (RFC 791, 8200, 9293, 1858, 5095). */

/** Extension headers that are walked over; a packet with more of them says nothing that a rule could be asked about. */
export const extensionsMax = 7

/** Bytes that an upper layer needs to be known by. */
const needed: Readonly<Record<number, number>> = {
  [protocols.tcp]: 20,
  [protocols.udp]: 8,
  [protocols.icmp]: 8,
  [protocols.icmp6]: 8,
  // The common header and the head of one chunk.
  [protocols.sctp]: 16,
}

export function wrongHeader(packet: Packet): Reason | undefined {
  const { lie, cut } = packet
  if (lie === 'ethertype') return 'unsupported protocol'
  if (lie === 'version' || lie === 'header') return 'invalid packet'
  if (cut !== undefined && cut < frameLength(packet)) return 'invalid packet'
  return familyOf(packet.source) === 4 ? wrong4(packet) : wrong6(packet)
}

/** Can it be said where the packet goes, although something is wrong with it? */
export const isReadable = (packet: Packet): boolean =>
  packet.lie !== 'ethertype' &&
  packet.lie !== 'version' &&
  packet.lie !== 'header' &&
  (packet.cut === undefined || packet.cut >= frameLength(packet))

function wrong4(packet: Packet): Reason | undefined {
  const offset = packet.fragment?.offset ?? 0
  return offset > 0 ? wrongLater(packet) : wrongLayer4(packet)
}

/** It would write over the flags of the first fragment's header (RFC 1858, 3). */
const wrongLater = (packet: Packet): Reason | undefined =>
  protocolOf(packet) === protocols.tcp && packet.fragment?.offset === 8 ? 'invalid packet' : undefined

function wrong6(packet: Packet): Reason | undefined {
  const { source, destination, extensions = [], fragment, lie } = packet
  // IPv4 in IPv6's clothes must not be on the wire (RFC 4291, 2.5.5.2).
  if (contains('::ffff:0:0/96', source)) return 'invalid source'
  if (contains('::ffff:0:0/96', destination)) return 'invalid packet'
  for (const [i, extension] of extensions.entries()) {
    if (i >= extensionsMax + 1) return 'invalid extension header'
    if (extension === 'hop-by-hop' && i > 0) return 'invalid extension header'
    // Where it goes is not what its destination says.
    if (extension === 'routing' && lie === 'segments') return 'invalid extension header'
  }
  const isLater = fragment !== undefined && fragment.offset > 0
  const headers = extensions.length + (fragment === undefined ? 0 : 1)
  if (headers > (isLater ? extensionsMax + 1 : extensionsMax)) return 'invalid extension header'
  return isLater ? wrongLater(packet) : wrongLayer4(packet)
}

function wrongLayer4(packet: Packet): Reason | undefined {
  const { layer4, short = Number.POSITIVE_INFINITY, lie } = packet
  const protocol = protocolOf(packet)
  const foreign = familyOf(packet.source) === 4 ? protocols.icmp6 : protocols.icmp
  if (protocol === foreign) return 'unknown protocol'
  const bytes = Math.min(short, layer4Bytes(layer4))
  if (bytes < (needed[protocol] ?? 0)) return 'truncated header'
  if (layer4.kind !== 'tcp') return undefined
  if (lie === 'offset') return 'truncated header'
  return lie === 'far-offset' && bytes < 60 ? 'truncated header' : undefined
}

/** Neighbour discovery is the link's own affair (RFC 4861): it is never between pods. */
export const isNeighbours = ({ source, layer4 }: Packet): boolean =>
  familyOf(source) === 6 && layer4.kind === 'message' && layer4.type >= 133 && layer4.type <= 137

/** A pod has no use for others' multicast or a broadcast, and its link is nobody else's. */
export function isLinkLocal({ source, destination }: Packet): boolean {
  if (familyOf(destination) === 4) return contains('224.0.0.0/4', destination) || destination === '255.255.255.255'
  return contains('ff00::/8', destination) || contains('fe80::/10', destination) || contains('fe80::/10', source)
}
