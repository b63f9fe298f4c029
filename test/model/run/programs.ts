import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { threadId } from 'node:worker_threads'
import { bpfDir } from '#datapath/compile.ts'
import { encodeAddress } from '#datapath/maps/address.ts'
import { encodeConfig, gatewayMac } from '#datapath/object.ts'
import { BpfMap } from '#kernel/bpf/map.ts'
import { BpfObject } from '#kernel/bpf/object.ts'
import { openPin, type Program, tickNanoseconds } from '#kernel/bpf/program.ts'
import { hasCode } from '#kernel/errno.ts'
import { podCidrs, serviceCidrs } from '../scenario.ts'
import { nodes } from '../universe.ts'
import type { World } from './world.ts'

const run = promisify(execFile)

/** The programs that a packet of the model meets, by their sources. */
const sources = {
  from_container: ['from_container'],
  from_netdev: ['from_netdev'],
  to_container: ['to_container'],
  xdp_entry: ['xdp_entry'],
  overlay: ['from_overlay', 'to_overlay'],
  sweep: ['sweep'],
  sweep_translations: ['sweep_translations'],
} as const
type SourceName = keyof typeof sources
const sourceNames = Object.keys(sources) as SourceName[]
export type ProgramName = (typeof sources)[SourceName][number]

/** Small enough that histories fill them. */
export const limits = { flows: 20, share: 7, waiting: 6, translations: 40 } as const

const cacheDir = '/var/cache/weft/model'

/**
 * The real sources, compiled as the agent compiles them, with the seeded fault of that number in (`lib/fault.h`); 0: none.
 * Kept by a hash of everything that went in.
 */
export async function compileWithFault(fault: number): Promise<ReadonlyMap<SourceName, Buffer>> {
  const sum = createHash('sha256').update(`${fault}`)
  for (const file of readdirSync(bpfDir, { recursive: true, encoding: 'utf8' })
    .filter((f) => /\.[ch]$/.test(f))
    .toSorted())
    sum.update(file).update(readFileSync(join(bpfDir, file)))
  const dir = join(cacheDir, sum.digest('hex').slice(0, 24))
  if (!existsSync(dir)) {
    // Test files are threads of one process.
    const aside = `${dir}.${process.pid}.${threadId}`
    mkdirSync(aside, { recursive: true })
    const machine = { x64: 'x86_64-linux-gnu', arm64: 'aarch64-linux-gnu' }[process.arch as string]
    const flags = ['-O2', '-g', '-Wall', '-target', 'bpf', '-mcpu=v3', `-I${bpfDir}`]
    if (machine !== undefined) flags.push(`-I/usr/include/${machine}`)
    if (fault !== 0) flags.push(`-DFAULT=${fault}`)
    try {
      await Promise.all(
        sourceNames.map((name) =>
          run('clang', [...flags, '-c', join(bpfDir, 'programs', `${name}.bpf.c`), '-o', join(aside, `${name}.o`)]),
        ),
      )
      moveThere(aside, dir)
    } finally {
      rmSync(aside, { recursive: true, force: true })
    }
  }
  return new Map(sourceNames.map((name) => [name, readFileSync(join(dir, `${name}.o`))]))
}

/** Somebody else may have been quicker: both have compiled the same. */
function moveThere(aside: string, dir: string): void {
  try {
    renameSync(aside, dir)
  } catch (error) {
    if (!existsSync(dir)) throw error
  }
}

const u32 = (value: number): Buffer => {
  const out = Buffer.alloc(4)
  out.writeUInt32LE(value)
  return out
}

/** Asked instead of used, with little room. */
const small: readonly (readonly [string, Buffer])[] = [
  ['cfg_probe', u32(1)],
  ['cfg_flow_share', u32(limits.share)],
  ['cfg_unanswered_max', u32(limits.waiting)],
]

function* loadSource(
  world: World,
  source: SourceName,
  elf: Buffer,
  mapDir: string,
  tunnelIndex: number | undefined,
  isLive: boolean,
): Generator<[ProgramName, Program]> {
  const own = nodes.find((node) => node.name === world.node)
  const globals = new Map([
    ...encodeConfig({
      serviceCidrs,
      podCidrs,
      gatewayMac,
      uplinkMac: world.uplinkMac,
      ...(tunnelIndex === undefined ? {} : { tunnelIndex }),
      ...(isLive ? { tickNanoseconds: tickNanoseconds(), nodeCookie: world.namespace.cookie, records: false } : {}),
    }),
    ...(isLive ? [] : small),
    ['cfg_cable_ifindex', u32(world.uplink)],
    ['cfg_node_address4', encodeAddress(own?.addresses[0] ?? '')],
    ['cfg_node_address6', encodeAddress(own?.addresses[1] ?? '')],
  ])
  using object = BpfObject.open(source, elf, mapDir)
  for (const [global, value] of globals) ifThere(() => object.setGlobal(global, value))
  if (!isLive) {
    ifThere(() => object.resizeMap('flows_v1', limits.flows))
    ifThere(() => object.resizeMap('translations_v1', limits.translations))
  }
  object.load()
  for (const name of sources[source]) yield [name, object.program(name)]
}

/** A private load: programs in probe mode MODEL, maps that nobody else has. Live ones are as the agent loads them. */
export class Programs implements Disposable {
  readonly #programs: ReadonlyMap<ProgramName, Program>
  readonly #tunnelled: ReadonlyMap<ProgramName, Program>
  readonly #mapDir: string
  readonly #maps = new Map<string, BpfMap>()

  private constructor(
    programs: ReadonlyMap<ProgramName, Program>,
    tunnelled: ReadonlyMap<ProgramName, Program>,
    mapDir: string,
  ) {
    this.#programs = programs
    this.#tunnelled = tunnelled
    this.#mapDir = mapDir
  }

  /** With a tunnel and without one, on the same maps. */
  static load(world: World, objects: ReadonlyMap<SourceName, Buffer>, { isLive = false } = {}): Programs {
    world.clearPins()
    const mapDir = join(world.pinDir, 'maps')
    mkdirSync(mapDir, { recursive: true })
    const load = (tunnelIndex?: number): Map<ProgramName, Program> => {
      const programs = new Map<ProgramName, Program>()
      for (const [source, elf] of objects)
        for (const [name, program] of loadSource(world, source, elf, mapDir, tunnelIndex, isLive))
          programs.set(name, program)
      return programs
    }
    return new Programs(load(), load(world.tunnel), mapDir)
  }

  program(name: ProgramName, isTunnelled = false): Program {
    const program = (isTunnelled ? this.#tunnelled : this.#programs).get(name)
    if (program === undefined) throw new RangeError(`${name} was not loaded`)
    return program
  }

  /** A map by its name in the sources. */
  map(name: string): BpfMap {
    const known = this.#maps.get(name)
    if (known !== undefined) return known
    const fd = openPin(join(this.#mapDir, name))
    if (fd === undefined) throw new RangeError(`no program that was loaded has map ${name}`)
    const map = new BpfMap(fd)
    this.#maps.set(name, map)
    return map
  }

  has(name: string): boolean {
    return existsSync(join(this.#mapDir, name))
  }

  [Symbol.dispose](): void {
    for (const map of this.#maps.values()) map[Symbol.dispose]()
    for (const program of [...this.#programs.values(), ...this.#tunnelled.values()]) program[Symbol.dispose]()
  }
}

/** An object has the globals and maps that its program uses; the compiler left the others out. */
function ifThere(set: () => void): void {
  try {
    set()
  } catch (error) {
    if (!hasCode(error, 'ENOENT')) throw error
  }
}
