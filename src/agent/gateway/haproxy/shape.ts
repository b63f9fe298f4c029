import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Slot } from './certificates.ts'
import { type Capacity, configText, type ListenFds } from './config.ts'
import { childFds } from './process.ts'
import { hashOf } from './program.ts'

export const defaultCapacity: Capacity = { pools: { h1: 256, h2c: 32 }, tlsSlots: { strict: 4, lax: 4 } }
export const luaFile = join(import.meta.dirname, 'weft.lua')

/** Twice as many descriptors, which HAProxy takes only below the hard limit of the process. */
const connectionsMax = 20_000
export function connections(): number {
  const limit = /^Max open files\s+\S+\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1]
  return limit === undefined ? connectionsMax : Math.min(connectionsMax, Math.floor((Number(limit) - 256) / 2))
}

/** Pairs of sockets: one in the clear, then strict and lax slots by turns, so that more of them move none of these. */
export const pairsOf = ({ tlsSlots }: Capacity): number => 1 + 2 * Math.max(tlsSlots.strict, tlsSlots.lax)

export const pairOf = ({ kind, number }: Slot): number => 1 + 2 * number + (kind === 'strict' ? 0 : 1)

/** Which of the descriptors that a process inherits are which. */
export function fdsOf(capacity: Capacity): ListenFds {
  const fds = childFds(2 * pairsOf(capacity))
  const pair = (i: number): number[] => fds.slice(2 * i, 2 * i + 2)
  const slots = (kind: Slot['kind']): number[][] =>
    Array.from({ length: capacity.tlsSlots[kind] }, (_, number) => pair(pairOf({ kind, number })))
  return { plain: pair(0), tls: { strict: slots('strict'), lax: slots('lax') } }
}

/** Same shape, same tables and commands: what an agent may take over from another. */
export function shapeOfProgram(dir: string, goldenSignals: boolean): string {
  const capacity = { pools: { h1: 1, h2c: 1 }, tlsSlots: { strict: 1, lax: 1 } }
  const config = configText({
    ...{ capacity, fds: fdsOf(capacity), dir, luaFile, threads: 1, connectionsMax, servers: new Map(), generation: 0 },
    goldenSignals,
  })
  return hashOf(`${config}\n${readFileSync(luaFile, 'utf8')}`)
}
