import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { BpfMap } from '#kernel/bpf/map.ts'
import { BpfObject } from '#kernel/bpf/object.ts'
import { openPin, Program } from '#kernel/bpf/program.ts'
import { hasCode } from '#kernel/errno.ts'
import type { CompiledObject } from './compile.ts'
import { type ProgramSpec, programs, tools } from './object.ts'

/** Maps of another version, which programs shall know beside their own. */
export interface OtherMaps {
  /** Tells programs that know them from those that do not. */
  readonly mark: string
  /** Before the object is loaded. */
  tell(object: BpfObject): void
}

/** Programs of this node by name, loaded or found where an earlier agent left them. */
export interface Loaded {
  readonly programs: ReadonlyMap<string, Program>
  /** Names of the objects that had to be loaded; empty where all was there. */
  readonly fresh: readonly string[]
}

/**
 * Puts every program into the kernel and pins it below `pinDir/programs/<hash>`, with its maps in `pinDir/maps`.
 * The hash is of the object and its globals: what is pinned under it is this very program, so a restart loads nothing.
 * With `left`, programs that also know the maps of another version.
 */
export function load(
  objects: readonly CompiledObject[],
  globals: ReadonlyMap<string, Buffer>,
  pinDir: string,
  left?: OtherMaps,
): Loaded {
  const mapDir = join(pinDir, 'maps')
  mkdirSync(mapDir, { recursive: true, mode: 0o700 })
  const found = new Map<string, Program>()
  const fresh: string[] = []
  for (const object of objects) {
    const version = versionOf(object, globals, left)
    const dir = join(pinDir, 'programs', version)
    const names = [...programs, ...tools].filter((p) => p.object === object.name).map((p) => p.name)
    const known = names.map((name) => Program.openPin(join(dir, name)))
    if (known.every((p) => p !== undefined)) {
      for (const [i, name] of names.entries()) found.set(name, known[i] as Program)
      continue
    }
    for (const program of known) program?.[Symbol.dispose]()
    fresh.push(object.name)
    // An earlier agent may have died half-way through pinning.
    rmSync(dir, { recursive: true, force: true })
    mkdirSync(dir, { recursive: true, mode: 0o700 })
    using loading = BpfObject.open(object.name, object.elf, mapDir)
    for (const [name, value] of globals) setIfUsed(loading, name, value)
    left?.tell(loading)
    loading.load()
    for (const name of names) {
      const program = loading.program(name)
      program.pin(join(dir, name))
      found.set(name, program)
    }
  }
  return { programs: found, fresh }
}

/** A program once more, with a number of its own, pinned nowhere. The caller's to dispose. */
export function loadAgain(
  objects: readonly CompiledObject[],
  globals: ReadonlyMap<string, Buffer>,
  pinDir: string,
  spec: Pick<ProgramSpec, 'object' | 'name'>,
): Program {
  const object = objects.find(({ name }) => name === spec.object)
  if (object === undefined) throw new Error(`Cannot load program ${spec.name}: there is no object ${spec.object}`)
  using loading = BpfObject.open(object.name, object.elf, join(pinDir, 'maps'))
  for (const [name, value] of globals) setIfUsed(loading, name, value)
  loading.load()
  return loading.program(spec.name)
}

/** Pins of programs that are no longer used go once every link has moved on. */
export function prunePrograms(
  objects: readonly CompiledObject[],
  globals: ReadonlyMap<string, Buffer>,
  pinDir: string,
): void {
  const used = new Set(objects.map((object) => versionOf(object, globals)))
  const dir = join(pinDir, 'programs')
  for (const name of existsSync(dir) ? readdirSync(dir) : []) {
    if (!used.has(name)) rmSync(join(dir, name), { recursive: true, force: true })
  }
}

/** One of those that were loaded. */
export function programOf(programs: ReadonlyMap<string, Program>, name: string): Program {
  const program = programs.get(name)
  if (program === undefined) throw new Error(`Cannot run program ${name}: it is not loaded`)
  return program
}

/** A map that a loaded object has pinned. */
export function openMap(pinDir: string, name: string): BpfMap {
  const path = join(pinDir, 'maps', name)
  const fd = openPin(path)
  if (fd === undefined) throw new Error(`Cannot open map ${name}: nothing is pinned at ${path}`)
  return new BpfMap(fd)
}

/** An object has the globals that its program reads; the compiler left the others out. */
export function setIfUsed(object: BpfObject, name: string, value: Buffer): void {
  try {
    object.setGlobal(name, value)
  } catch (error) {
    if (!hasCode(error, 'ENOENT')) throw error
  }
}

function versionOf(object: CompiledObject, globals: ReadonlyMap<string, Buffer>, left?: OtherMaps): string {
  const sum = createHash('sha256').update(object.hash)
  if (left !== undefined) sum.update(left.mark)
  for (const [name, value] of globals) sum.update(name).update(value)
  return `${object.name}-${sum.digest('hex').slice(0, 16)}`
}
