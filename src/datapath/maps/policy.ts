import { parseCidr } from '#base/net/address.ts'
import type { BpfMap } from '#kernel/bpf/map.ts'
import { decodeAddress, encodeAddress } from './address.ts'

export const policyMap = 'policy_v1'
export const networksMap = 'networks_v1'
export const policyStateMap = 'policy_state_v1'

/** Set numbers that are none: not isolated; not known yet, so nothing is allowed. */
export const setNone = 0
export const setNotReady = 0xffff_ffff

/** What a set allows: one element. */
export interface PolicyEntry {
  readonly set: number
  /** Identity, class, or 0: anyone. */
  readonly peer: number
  /** IP protocol number; undefined: any, and any port. */
  readonly protocol: number | undefined
  /** The leading `portBits` (0 … 16) of the server's port; 0 bits: any port. */
  readonly port: number
  readonly portBits: number
  /** What the one who compiled it finds the object and the field by. Not 0. */
  readonly rule: number
}
export type PolicyKey = Omit<PolicyEntry, 'rule'>

/** POLICY_PREFIX_* of bpf/maps/policy.h. */
const prefixAny = 64
const prefixProtocol = 80

/** struct policy_key. */
function encodePolicyKey({ set, peer, protocol, port, portBits }: PolicyKey): Buffer {
  const out = Buffer.alloc(16)
  out.writeUInt32LE(protocol === undefined ? prefixAny : prefixProtocol + portBits, 0)
  out.writeUInt32LE(set, 4)
  out.writeUInt32LE(peer, 8)
  if (protocol === undefined) return out
  out.writeUInt8(protocol, 12)
  out.writeUInt16BE(port & (0xffff_0000 >> portBits) & 0xffff, 14)
  return out
}

function decodePolicy(key: Buffer, value: Buffer): PolicyEntry {
  const prefix = key.readUInt32LE(0)
  const any = prefix === prefixAny
  return {
    set: key.readUInt32LE(4),
    peer: key.readUInt32LE(8),
    protocol: any ? undefined : key.readUInt8(12),
    port: key.readUInt16BE(14),
    portBits: any ? 0 : prefix - prefixProtocol,
    rule: value.readUInt32LE(0),
  }
}

/** struct network_key. */
function encodeNetworkKey(cidr: string): Buffer {
  const parsed = parseCidr(cidr)
  if (parsed === undefined) throw new RangeError(`${JSON.stringify(cidr)} is not a network`)
  const out = Buffer.alloc(20)
  out.writeUInt32LE(parsed.family === 4 ? 96 + parsed.prefix : parsed.prefix, 0)
  encodeAddress({ family: parsed.family, value: parsed.base }).copy(out, 4)
  return out
}

function decodeNetworkKey(key: Buffer): string {
  const prefix = key.readUInt32LE(0)
  const address = decodeAddress(key, 4)
  return `${address}/${address.includes(':') ? prefix : prefix - 96}`
}

/** struct policy_state. */
export interface PolicyState {
  readonly epoch: number
  /** How many networks there are classes for. */
  readonly networks: number
}

function encodePolicyState({ epoch, networks }: PolicyState): Buffer {
  const out = Buffer.alloc(16)
  out.writeUInt32LE(epoch, 0)
  out.writeUInt32LE(networks, 4)
  return out
}

const decodePolicyState = (bytes: Buffer): PolicyState => ({
  epoch: bytes.readUInt32LE(0),
  networks: bytes.readUInt32LE(4),
})

const u32 = (value: number): Buffer => {
  const out = Buffer.alloc(4)
  out.writeUInt32LE(value)
  return out
}

/** Sets, networks and the epoch. Order of writes is the caller's. */
export class PolicyMaps {
  readonly #policy: BpfMap
  readonly #networks: BpfMap
  readonly #state: BpfMap
  /** Keys of `networks`, read once: reading ten thousand at every change would keep the node from all else. */
  #known: Set<string> | undefined

  constructor(maps: { readonly policy: BpfMap; readonly networks: BpfMap; readonly state: BpfMap }) {
    this.#policy = maps.policy
    this.#networks = maps.networks
    this.#state = maps.state
  }

  get state(): PolicyState {
    return decodePolicyState(this.#state.lookup(u32(0)) ?? encodePolicyState({ epoch: 0, networks: 0 }))
  }

  set state(state: PolicyState) {
    this.#state.update(u32(0), encodePolicyState(state))
  }

  /** Throws `KernelError` ENOSPC where the map is full; what was written of it is in sets that nobody has yet. */
  add(entries: readonly PolicyEntry[]): void {
    this.#policy.updateBatch(
      Buffer.concat(entries.map(encodePolicyKey)),
      Buffer.concat(entries.map(({ rule }) => u32(rule))),
      entries.length,
    )
  }

  remove(keys: readonly PolicyKey[]): void {
    for (const key of keys) this.#policy.delete(encodePolicyKey(key))
  }

  entries(): PolicyEntry[] {
    return this.#policy.entries().map(({ key, value }) => decodePolicy(key, value))
  }

  setNetwork(cidr: string, number: number): void {
    const key = encodeNetworkKey(cidr)
    this.#networks.update(key, u32(number))
    this.#known?.add(key.toString('latin1'))
  }

  removeNetwork(cidr: string): boolean {
    const key = encodeNetworkKey(cidr)
    this.#known?.delete(key.toString('latin1'))
    return this.#networks.delete(key)
  }

  /** How many there are. Nobody else writes them. */
  get networkCount(): number {
    this.#known ??= new Set(this.#networks.entries().map(({ key }) => key.toString('latin1')))
    return this.#known.size
  }

  networks(): Map<string, number> {
    return new Map(
      this.#networks.entries().map(({ key, value }) => [decodeNetworkKey(key), value.readUInt32LE(0)] as const),
    )
  }
}
