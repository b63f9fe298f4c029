import { join } from 'node:path'
import { decodeAddress } from '#datapath/maps/address.ts'
import { BpfMap } from '#kernel/bpf/map.ts'
import { openPin } from '#kernel/bpf/program.ts'
import { protocolName } from '../flows/present.ts'
import type { Names } from '../flows/record.ts'

/** A map of bpf/maps that nobody but the programs, or one writer, has to do with: read as it is, by its pin. */
interface SideMap {
  readonly pin: string
  readonly columns: readonly string[]
  /** Undefined: an entry that says nothing, as of an array's unused places. */
  readonly row: (key: Buffer, value: Buffer, names: Names) => readonly string[] | undefined
}

const literal = (address: string): string => (address.includes(':') ? `[${address}]` : address)
const place = (bytes: Buffer, address: number, port: number): string =>
  `${literal(decodeAddress(bytes, address))}:${bytes.readUInt16BE(port)}`

/** A prefix as in struct network_key: of 128 bits, IPv4 mapped. */
function network(key: Buffer, prefix: number, address: number): string {
  const text = decodeAddress(key, address)
  return `${text}/${text.includes(':') ? prefix : prefix - 96}`
}

function serviceOf(number: bigint, names: Names): string {
  const text = number.toString(16)
  const named = names.serviceNumbered(text)
  return named === undefined ? (number === 0n ? 'any' : text) : `${named.namespace}/${named.name}`
}

function who(address: string, names: Names): string {
  const { namespace, pod, entity } = names.party(address, 0, Number.MAX_SAFE_INTEGER)
  return namespace === undefined ? (entity ?? '-') : `${namespace}/${pod}`
}

/** Seconds of CLOCK_MONOTONIC since then. */
const ago = (ns: bigint): string => `${((Number(process.hrtime.bigint() - ns) / 1e9) | 0).toString()} s ago`

/** AF_INET6. */
const inet6 = 10

/** `affinity.client`: an address, or of a socket the cookie of its network namespace behind its family. */
function clientOf(bytes: Buffer, at: number, names: Names): string {
  const family = bytes.readUInt32LE(at)
  const isAddress = bytes.readUInt32BE(at + 8) === 0xffff || bytes.readUInt32LE(at + 4) !== 0
  if (!isAddress && (family === 0 || family === inet6)) {
    const cookie = (BigInt(bytes.readUInt32LE(at + 8)) << 32n) | BigInt(bytes.readUInt32LE(at + 12))
    return `network namespace ${cookie}`
  }
  const address = decodeAddress(bytes, at)
  return `${address} ${who(address, names)}`
}

const runs = ['inside', 'outside', 'inside, of this node only']

export const sideMaps: Readonly<Record<string, SideMap>> = {
  network: {
    pin: 'networks_v1',
    columns: ['NETWORK', 'CLASS'],
    row: (key, value) => [network(key, key.readUInt32LE(0), 4), `${value.readUInt32LE(0)}`],
  },
  epoch: {
    pin: 'policy_state_v1',
    columns: ['EPOCH', 'NETWORKS'],
    row: (_, value) => [`${value.readUInt32LE(0)}`, `${value.readUInt32LE(4)}`],
  },
  range: {
    pin: 'source_ranges_v1',
    columns: ['SERVICE', 'FROM'],
    row: (key, _, names) => [serviceOf(key.readBigUInt64LE(4), names), network(key, key.readUInt32LE(0) - 64, 12)],
  },
  affinity: {
    pin: 'affinity_v1',
    columns: ['SERVICE', 'CLIENT', 'BACKEND', 'SEEN'],
    row: (key, value, names) => [
      serviceOf(key.readBigUInt64LE(0), names),
      clientOf(key, 8, names),
      `${decodeAddress(value, 0)} ${who(decodeAddress(value, 0), names)}`,
      ago(value.readBigUInt64LE(16)),
    ],
  },
  member: {
    pin: 'members_v1',
    columns: ['SERVICE', 'PORT', 'PROTOCOL', 'BACKEND', 'WHOSE'],
    row: (key, _, names) => [
      serviceOf(key.readBigUInt64LE(0), names),
      `${key.readUInt16BE(24)}`,
      protocolName(key.readUInt8(26)),
      `${decodeAddress(key, 8)} ${who(decodeAddress(key, 8), names)}`,
      runs[key.readUInt8(27)] ?? '?',
    ],
  },
  stale: {
    pin: 'stale_v1',
    columns: ['SERVICE', 'BACKEND', 'PROTOCOL'],
    row: (key, _, names) => [
      serviceOf(key.readBigUInt64LE(0), names),
      place(key, 8, 24),
      protocolName(key.readUInt8(26)),
    ],
  },
  exclusion: {
    pin: 'exclusions_v1',
    columns: ['NETWORK'],
    row: (key) => [network(key, key.readUInt32LE(0), 4)],
  },
  fragment: {
    pin: 'fragments_v1',
    columns: ['PROTOCOL', 'SOURCE', 'DESTINATION', 'ID', 'PORTS', 'SEEN'],
    row: (key, value) => [
      protocolName(key.readUInt8(36)),
      decodeAddress(key, 0),
      decodeAddress(key, 16),
      `${key.readUInt32LE(32)}`,
      `${value.readUInt16BE(0)} > ${value.readUInt16BE(2)}`,
      ago(value.readBigUInt64LE(8)),
    ],
  },
  datagram: {
    pin: 'datagrams_v1',
    columns: ['SOCKET', 'BACKEND', 'ASKED FOR'],
    row: (key, value) => [`${key.readBigUInt64LE(0)}`, place(key, 8, 24), place(value, 0, 16)],
  },
  answer: {
    pin: 'answers_v1',
    columns: ['IFINDEX', 'REFUSALS', 'IN SECOND'],
    row: (key, value) => [
      `${key.readUInt32LE(0)}`,
      `${value.readBigUInt64LE(8)}`,
      ago(value.readBigUInt64LE(0) * 1_000_000_000n),
    ],
  },
  share: {
    pin: 'shares_v1',
    columns: ['ENDPOINT', 'FLOWS'],
    row: (key, value) => {
      const number = key.readUInt32LE(0)
      const flows = value.readUInt32LE(0)
      return flows === 0 ? undefined : [number === 0 ? 'waiting for an answer' : `number ${number}`, `${flows}`]
    },
  },
  'nat-share': {
    pin: 'pairs_v1',
    columns: ['ENDPOINT', 'CONNECTIONS'],
    row: (key, value) => {
      const pairs = value.readUInt32LE(0)
      return pairs === 0 ? undefined : [`number ${key.readUInt32LE(0)}`, `${pairs}`]
    },
  },
  flood: {
    pin: 'embryonic_used_v1',
    columns: ['MET'],
    row: (_, value) => [value.readBigUInt64LE(0) === 0n ? 'never' : ago(value.readBigUInt64LE(0))],
  },
  listener: {
    pin: 'listeners_v1',
    columns: ['ADDRESS', 'PROTOCOL', 'SLOT'],
    row: (key, value) => [
      `${literal(decodeAddress(key, 0))}:${key.readUInt16LE(16)}`,
      protocolName(key.readUInt16LE(18)),
      `${value.readUInt32LE(0)}`,
    ],
  },
  lost: {
    pin: 'events_lost_v1',
    columns: ['FLOW RECORDS LOST'],
    row: (_, value) => {
      let sum = 0n
      for (let at = 0; at < value.length; at += 8) sum += value.readBigUInt64LE(at)
      return [`${sum}`]
    },
  },
}

/** Reads one as it is at this moment; none where its programs are not on this node. */
export function readSideMap({ pin, row }: SideMap, mapDir: string, names: Names): (readonly string[])[] {
  const fd = openPin(join(mapDir, pin))
  if (fd === undefined) return []
  using map = new BpfMap(fd)
  return map.entries().flatMap(({ key, value }) => {
    const found = row(key, value, names)
    return found === undefined ? [] : [found]
  })
}
