import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { delay } from '#base/async/delay.ts'
import type { BpfMap } from '#kernel/bpf/map.ts'
import { runSyscall } from '#kernel/bpf/program.ts'
import type { Namespace } from '#kernel/netns.ts'
import { Attachments } from './attach.ts'
import { LeftMaps } from './carry.ts'
import type { CompiledObject } from './compile.ts'
import { load, openMap, programOf } from './load.ts'
import { endpointsMapV1 } from './maps/endpoints.ts'
import { PodSide } from './pod-side.ts'

/** What programs are attached to, pods apart. */
export interface NodePlace {
  readonly uplink: number
  readonly tunnel: number | undefined
  readonly xdp: Parameters<Attachments['attachXdp']>[0]
  readonly cgroupPath: string
}

/** Says whether anything had to be done. */
export async function attachAll(
  attachments: Attachments,
  { uplink, tunnel, xdp, cgroupPath }: NodePlace,
): Promise<boolean> {
  const changed = [
    attachments.attachCgroup(cgroupPath),
    await attachments.attachDevice('uplink', 'node', uplink),
    await attachments.attachXdp(xdp, uplink),
    tunnel !== undefined && (await attachments.attachDevice('overlay', 'node', tunnel)),
  ]
  changed.push(attachments.updateDevices('egress'), attachments.updateDevices('endpoint'))
  return changed.includes(true)
}

export interface SuccessionOptions {
  readonly objects: readonly CompiledObject[]
  readonly pinDir: string
  readonly namespace?: Namespace
}

/**
 * Another version has left maps of other layouts. Links change one by one, so for a moment both versions' programs see
 * the same connections: ours are loaded knowing the others' maps, too, and look there for what they miss. When every link has
 * them the maps are emptied into ours. Then our programs are loaded as they are without others' maps, and when every link
 * has those, `finish` takes the pins away. Killed at any moment, the next agent begins again and finds less to do.
 */
export class Succession implements Disposable {
  readonly #left: LeftMaps
  /** Entries that were taken over, by what they were in. */
  readonly carried: Readonly<Record<string, number>>
  /** Addresses of pods that a version before policies knew. */
  readonly pods: readonly string[]

  private constructor(left: LeftMaps, carried: Readonly<Record<string, number>>, pods: readonly string[]) {
    this.#left = left
    this.carried = carried
    this.pods = pods
  }

  /** Undefined where nobody has left anything. */
  static async begin(
    { objects, pinDir, namespace }: SuccessionOptions,
    globals: ReadonlyMap<string, Buffer>,
    place: NodePlace,
  ): Promise<Succession | undefined> {
    mkdirSync(join(pinDir, 'maps'), { recursive: true, mode: 0o700 })
    const left = LeftMaps.find(objects, pinDir)
    if (left === undefined) return undefined
    using failed = new DisposableStack()
    failed.use(left)
    using held = new DisposableStack()
    const { programs } = load(objects, globals, pinDir, left)
    for (const program of programs.values()) held.use(program)
    const attachments = new Attachments(pinDir, programs, namespace)
    const open = (name: string): BpfMap => held.use(openMap(pinDir, name))
    const carried = left.carry('first')
    const before = left.mapOf(endpointsMapV1)
    const pods = before && new PodSide(open, attachments, programOf(programs, 'sweep')).takeOver(before)
    await attachAll(attachments, place)
    // One of theirs may have begun before its link was exchanged, on a processor that has stood still since.
    await delay(lastRunMs)
    // Nobody but ourselves writes the old ones any more.
    for (const [tool, name] of [
      ['take_flows', 'flows'],
      ['take_translations', 'translations'],
    ] as const) {
      for (let tries = 0; tries < drainTries; tries++) {
        const out = await runSyscall(programOf(programs, tool), Buffer.alloc(takingSize))
        if (out.readUInt32LE(0) > 0) carried[name] = (carried[name] ?? 0) + out.readUInt32LE(0)
        // What found no room is tried again: the kernel gets memory for elements in the background.
        if (out.readUInt32LE(8) === 0) break
        await delay(1)
      }
    }
    for (const [name, count] of Object.entries(left.carry('again'))) carried[name] = (carried[name] ?? 0) + count
    failed.move()
    return new Succession(left, carried, pods ?? [])
  }

  /** After the last link has programs that know our maps only. What an attached program still uses is kept. */
  finish(): { readonly removed: string[]; readonly kept: string[] } {
    return this.#left.unpin()
  }

  [Symbol.dispose](): void {
    this.#left[Symbol.dispose]()
  }
}

/** A run takes microseconds; a virtual machine's processor may be away for tens of milliseconds in the middle of one. */
const lastRunMs = 100

/** struct taking of bpf/programs/sweep.bpf.c. */
const takingSize = 16
/** A map that is full stays full: what is left then is met in its middle, as what nobody knows. */
const drainTries = 200
