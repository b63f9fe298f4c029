import { type Packet, protocolOf, type Tuple, tupleOf } from './packet.ts'

/**
 * Later fragments carry no ports: those of the first one are remembered under what all of them have in common (RFC 791,
 * 8200). One that comes before its first belongs nowhere.
 */

/** Longer than a receiver waits for the rest. */
export const fragmentLifeMs = 30_000

export class Fragments {
  readonly #first = new Map<string, { readonly tuple: Tuple; readonly seen: number }>()

  /** Ports of the packet, 0 for what has none; undefined: a later fragment whose first is not known. */
  tupleOf(packet: Packet, now: number): Tuple | undefined {
    const { source, destination, fragment } = packet
    const protocol = protocolOf(packet)
    const isLater = fragment !== undefined && fragment.offset > 0
    const own = (isLater ? undefined : tupleOf(packet)) ?? {
      source,
      destination,
      sourcePort: 0,
      destinationPort: 0,
      protocol,
    }
    // Alone in its datagram it is no fragment (RFC 6946).
    if (fragment === undefined || (!isLater && !fragment.more)) return own
    const key = `${source} ${destination} ${fragment.id} ${protocol}`
    if (!isLater) {
      this.#first.set(key, { tuple: own, seen: now })
      return own
    }
    const first = this.#first.get(key)
    return first === undefined || now - first.seen > fragmentLifeMs ? undefined : first.tuple
  }

  /** Of a later fragment that is only spoken of, whenever its first one came. */
  peek(later: Packet): Tuple | undefined {
    const { source, destination, fragment } = later
    return this.#first.get(`${source} ${destination} ${fragment?.id} ${protocolOf(later)}`)?.tuple
  }
}
