import { contains } from './address.ts'
import { nameOf } from './cluster.ts'
import { etherBytes, frameLength } from './frame.ts'
import type { Identity, Outcome } from './journey.ts'
import type { Packet } from './packet.ts'
import type { Place } from './place.ts'
import type { Reason } from './reasons.ts'

/** Of every device; and what is put around a packet in the tunnel (RFC 7348: Ethernet, IPv4, UDP and VXLAN headers). */
export const mtu = 1_500
const tunnelBytes = 14 + 20 + 8 + 8

/** Where a packet goes on to that may. `reason`: why it does not. */
export type Way = Pick<Outcome, 'end' | 'packet' | 'pod' | 'wrapped'> & { readonly reason?: Reason }

/** To a pod of this node; everything else is the stack's. `came`: as it came, and if it still is. */
export function forward(place: Place, packet: Packet, came: Packet | undefined): Way {
  const to = place.local(packet.destination)
  if (to === undefined || packet.hops < 2) return packet === came ? { end: 'stack' } : { end: 'stack', packet }
  return { end: 'pod', packet: { ...packet, hops: packet.hops - 1 }, pod: nameOf(to) }
}

/** By the node's routes: what is its own, and what needs an ICMP error, is the stack's. `sender`: who it is to be wrapped as. */
export function route(place: Place, packet: Packet, came: Packet | undefined, sender: Identity): Way {
  const { addresses, podCidrs } = place.node
  const toStack: Way = packet === came ? { end: 'stack' } : { end: 'stack', packet }
  const bytes = frameLength(packet) - etherBytes
  const onward = { ...packet, hops: packet.hops - 1 }
  const node = place.cluster.isTunnelled === true ? place.remoteNode(packet.destination) : undefined
  if (node !== undefined) {
    if (packet.hops < 2 || bytes > mtu - tunnelBytes) return toStack
    return { end: 'tunnel', packet: onward, wrapped: { node, as: sender } }
  }
  // Nobody knows where that is.
  const isStranger = place.cluster.isTunnelled === true && place.identityOf(packet.destination) === 'unknown pod'
  if (isStranger) return { end: 'drop', reason: 'no tunnel' }
  const isOwn = addresses.includes(packet.destination) || podCidrs.some((c) => contains(c, packet.destination))
  if (isOwn || packet.hops < 2 || bytes > mtu) return toStack
  return { end: 'out', packet: onward }
}
