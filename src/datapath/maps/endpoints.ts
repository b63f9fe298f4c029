import type { BpfMap } from '#kernel/bpf/map.ts'
import { formatMac, parseMac } from '#kernel/netlink/netlink.ts'
import { decodeAddress, encodeAddress } from './address.ts'

/** struct endpoint of bpf/maps/endpoints.h. */
export interface EndpointEntry {
  /** Host end of the veth pair. */
  readonly ifindex: number
  /** Of the pod's end. */
  readonly mac: string
}

export const endpointsMap = 'endpoints_v1'

export function encodeEndpoint({ ifindex, mac }: EndpointEntry): Buffer {
  const out = Buffer.alloc(12)
  out.writeUInt32LE(ifindex, 0)
  parseMac(mac).copy(out, 4)
  return out
}

export function decodeEndpoint(bytes: Buffer): EndpointEntry {
  return { ifindex: bytes.readUInt32LE(0), mac: formatMac(bytes.subarray(4, 10)) }
}

/** Pods of this node by address. */
export class EndpointMap {
  readonly #map: BpfMap

  constructor(map: BpfMap) {
    this.#map = map
  }

  set(address: string, entry: EndpointEntry): void {
    this.#map.update(encodeAddress(address), encodeEndpoint(entry))
  }

  get(address: string): EndpointEntry | undefined {
    const value = this.#map.lookup(encodeAddress(address))
    return value === undefined ? undefined : decodeEndpoint(value)
  }

  /** Only where the address still leads to that device: it may be another pod's by now. */
  removeOf(address: string, ifindex: number): boolean {
    return this.get(address)?.ifindex === ifindex && this.#map.delete(encodeAddress(address))
  }

  entries(): Map<string, EndpointEntry> {
    return new Map(this.#map.entries().map(({ key, value }) => [decodeAddress(key), decodeEndpoint(value)]))
  }
}
