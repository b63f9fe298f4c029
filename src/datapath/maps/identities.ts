import { createHash } from 'node:crypto'
import type { BpfMap } from '#kernel/bpf/map.ts'
import { decodeAddress, encodeAddress } from './address.ts'

export const identitiesMap = 'identities_v1'

/** enum identity_number of bpf/abi/identity.h. */
export const identities = { unknown: 0, host: 1, world: 2, remoteNode: 3, unknownPod: 4, first: 256 } as const
/** Classes of addresses (ipBlock) begin here: above the 24 bits of the cluster's identities, this node's own. */
export const firstClass = 2 ** 24

/** struct identity of bpf/maps/identities.h. */
export interface IdentityEntry {
  readonly identity: number
  /** Number of the node that has the address; 0: this one. */
  readonly node: number
  /** IPv4 address of that node where packets are wrapped for it; undefined: they are not. */
  readonly tunnel: string | undefined
  /** Epoch in which the owner got the address. */
  readonly since: number
  /** Tells one owner of the address from the next: `ownerNumber()` of a pod's UID. */
  readonly owner: number
}

const identitySize = 20

function encodeIdentity({ identity, node, tunnel, since, owner }: IdentityEntry): Buffer {
  const out = Buffer.alloc(identitySize)
  out.writeUInt32LE(identity, 0)
  out.writeUInt32LE(node, 4)
  if (tunnel !== undefined) encodeAddress(tunnel).copy(out, 8, 12)
  out.writeUInt32LE(since, 12)
  out.writeUInt32LE(owner, 16)
  return out
}

function decodeIdentity(bytes: Buffer): IdentityEntry {
  return {
    identity: bytes.readUInt32LE(0),
    node: bytes.readUInt32LE(4),
    tunnel: bytes.readUInt32LE(8) === 0 ? undefined : bytes.subarray(8, 12).join('.'),
    since: bytes.readUInt32LE(12),
    owner: bytes.readUInt32LE(16),
  }
}

export const ownerNumber = (uid: string): number => createHash('sha1').update(uid).digest().readUInt32LE()

/** Who has which address. */
export class IdentityMap {
  readonly #map: BpfMap

  constructor(map: BpfMap) {
    this.#map = map
  }

  /** Says whether anything is different now. */
  set(address: string, entry: IdentityEntry): boolean {
    const value = encodeIdentity(entry)
    const known = this.#map.lookup(encodeAddress(address))
    if (known?.equals(value)) return false
    this.#map.update(encodeAddress(address), value)
    return true
  }

  get(address: string): IdentityEntry | undefined {
    const value = this.#map.lookup(encodeAddress(address))
    return value === undefined ? undefined : decodeIdentity(value)
  }

  remove(address: string): boolean {
    return this.#map.delete(encodeAddress(address))
  }

  entries(): Map<string, IdentityEntry> {
    return new Map(this.#map.entries().map(({ key, value }) => [decodeAddress(key), decodeIdentity(value)]))
  }
}
