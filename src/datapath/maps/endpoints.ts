import type { BpfMap } from '#kernel/bpf/map.ts'
import { formatMac, parseMac } from '#kernel/netlink/netlink.ts'
import { decodeAddress, encodeAddress } from './address.ts'

/** struct endpoint of bpf/maps/endpoints.h. */
export interface EndpointEntry {
  /** Host end of the veth pair. */
  readonly ifindex: number
  /** Of the pod's end. */
  readonly mac: string
  /** The pod's own, 1 … 4095: what its share of the flows is counted under. */
  readonly number: number
  readonly identity: number
  /** 0: not isolated; `setNotReady`: nothing is allowed yet. */
  readonly egressSet: number
  readonly ingressSet: number
  /** Epoch in which the sandbox got the address. */
  readonly since: number
  /** Tells one sandbox with the address from the next. */
  readonly owner: number
}

export const endpointsMap = 'endpoints_v2'
/** The layout before: ifindex, MAC address, two bytes that mean nothing. */
export const endpointsMapV1 = 'endpoints_v1'
export const endpointsMax = 4096

export function encodeEndpoint(entry: EndpointEntry): Buffer {
  const out = Buffer.alloc(32)
  out.writeUInt32LE(entry.ifindex, 0)
  parseMac(entry.mac).copy(out, 4)
  out.writeUInt16LE(entry.number, 10)
  out.writeUInt32LE(entry.identity, 12)
  out.writeUInt32LE(entry.egressSet, 16)
  out.writeUInt32LE(entry.ingressSet, 20)
  out.writeUInt32LE(entry.since, 24)
  out.writeUInt32LE(entry.owner, 28)
  return out
}

export function decodeEndpoint(bytes: Buffer): EndpointEntry {
  return {
    ifindex: bytes.readUInt32LE(0),
    mac: formatMac(bytes.subarray(4, 10)),
    number: bytes.readUInt16LE(10),
    identity: bytes.readUInt32LE(12),
    egressSet: bytes.readUInt32LE(16),
    ingressSet: bytes.readUInt32LE(20),
    since: bytes.readUInt32LE(24),
    owner: bytes.readUInt32LE(28),
  }
}

/**
 * An agent of before has left pods in the layout of before, which its programs still read: they are copied before the first
 * of the new programs is attached, so that no packet meets a program that does not know its pod. Returns the addresses.
 */
export function takeOverEndpoints(old: BpfMap, endpoints: EndpointMap): string[] {
  const found = old.entries().map(({ key, value }) => {
    const entry = { ifindex: value.readUInt32LE(0), mac: formatMac(value.subarray(4, 10)) }
    return { address: decodeAddress(key), ...entry }
  })
  const taken = found.filter(({ address }) => endpoints.get(address) === undefined)
  for (const { address, ifindex, mac } of taken) {
    const addresses = found.filter((other) => other.ifindex === ifindex).map((other) => other.address)
    const { number } = endpoints.numberFor(addresses, ifindex)
    // Who it is and what it may, nobody knew then: the agent says so when it has its policies.
    endpoints.set(address, { ifindex, mac, number, identity: 0, egressSet: 0, ingressSet: 0, since: 0, owner: 0 })
  }
  return taken.map(({ address }) => address)
}

/** Pods of this node by address. */
export class EndpointMap {
  readonly #map: BpfMap

  constructor(map: BpfMap) {
    this.#map = map
  }

  /** Says whether anything is different now. */
  set(address: string, entry: EndpointEntry): boolean {
    const value = encodeEndpoint(entry)
    const known = this.#map.lookup(encodeAddress(address))
    if (known?.equals(value)) return false
    this.#map.update(encodeAddress(address), value)
    return true
  }

  /** The number of the sandbox on that device, or a free one (`fresh`). Throws a RangeError where all are in use. */
  numberFor(addresses: readonly string[], ifindex: number): { readonly number: number; readonly fresh: boolean } {
    const entries = [...this.entries()]
    const own = entries.find(([address, entry]) => entry.ifindex === ifindex && addresses.includes(address))
    if (own !== undefined && own[1].number !== 0) return { number: own[1].number, fresh: false }
    const used = new Set(entries.map(([, { number }]) => number))
    for (let number = 1; number < endpointsMax; number++) if (!used.has(number)) return { number, fresh: true }
    throw new RangeError(`all ${endpointsMax - 1} numbers of endpoints are in use`)
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
