import { addressesMap } from '#datapath/maps/addresses.ts'
import { endpointsMap } from '#datapath/maps/endpoints.ts'
import { embryonicMap, flowsMap, sharesMap } from '#datapath/maps/flows.ts'
import { identitiesMap } from '#datapath/maps/identities.ts'
import { networksMap, policyMap } from '#datapath/maps/policy.ts'
import { membersMap, sourceRangesMap } from '#datapath/maps/service-extras.ts'
import { frontendsMap } from '#datapath/maps/services.ts'
import type { BpfMap } from '#kernel/bpf/map.ts'
import { runSyscallNow } from '#kernel/bpf/program.ts'
import type { Programs } from './programs.ts'

/** What the programs remember: how it ends, becomes older, and is forgotten. */

const emptied = [
  endpointsMap,
  identitiesMap,
  policyMap,
  networksMap,
  flowsMap,
  embryonicMap,
  'fragments_v1',
  'answers_v1',
  frontendsMap,
  addressesMap,
  sourceRangesMap,
  membersMap,
  'affinity_v1',
  'translations_v1',
]
const zeroed = [
  [sharesMap, 64],
  ['embryonic_used_v1', 1],
] as const

/** Where maps note when something was last met: bpf/maps/. */
const timesInNs = [
  [flowsMap, 0],
  [embryonicMap, 0],
  ['fragments_v1', 8],
  ['affinity_v1', 16],
] as const
const translationSeen = 48

/** Nothing has ever been. */
export function forget(programs: Programs): void {
  for (const name of emptied) if (programs.has(name)) clear(programs.map(name))
  for (const [name, count] of zeroed) if (programs.has(name)) zero(programs.map(name), count)
}

/** The agent's two sweeps, at this time (ms). */
export function sweep(programs: Programs, now: number): void {
  for (const name of ['sweep', 'sweep_translations'] as const) {
    const context = Buffer.alloc(name === 'sweep' ? 24 : 16)
    if (name === 'sweep') context.writeBigUInt64LE(BigInt(Math.floor(now)) * 1_000_000n)
    else context.writeUInt32LE(Math.floor(now / 1_000))
    runSyscallNow(programs.program(name), context)
  }
}

/** Everything that is remembered of connections was so much longer ago. */
export function age(programs: Programs, ms: number): void {
  for (const [name, at] of timesInNs) {
    if (!programs.has(name)) continue
    const map = programs.map(name)
    for (const { key, value } of map.entries()) {
      value.writeBigUInt64LE(BigInt.asUintN(64, value.readBigUInt64LE(at) - BigInt(ms) * 1_000_000n), at)
      map.update(key, value)
    }
  }
  const translations = programs.map('translations_v1')
  for (const { key, value } of translations.entries()) {
    value.writeUInt32LE((value.readUInt32LE(translationSeen) - Math.floor(ms / 1_000)) >>> 0, translationSeen)
    translations.update(key, value)
  }
}

function clear(map: BpfMap): void {
  // A trie has no batch of deletions in every kernel of the floor.
  for (const { key } of map.entries()) map.delete(key)
}

function zero(map: BpfMap, count: number): void {
  const key = Buffer.alloc(4)
  const value = Buffer.alloc(map.valueSize)
  for (let i = 0; i < count; i++) {
    key.writeUInt32LE(i)
    map.update(key, value)
  }
}
