import { randomBytes } from 'node:crypto'
import {
  chmodSync,
  chownSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'

export interface PayloadFile {
  readonly data: Uint8Array
  /** Permission bits. */
  readonly mode: number
}

/** Relative paths without `..`, as they appear in the volume. */
export type Payload = ReadonlyMap<string, PayloadFile>

const link = '..data'

/**
 * Writes the files so that a reader sees either all of the old or all of the new ones: into a directory of their own,
 * which the symbolic link `..data` then points to; each first path element is a link through `..data`.
 * Returns whether anything changed. `group` owns the files and may read them, when given.
 */
export function writeAtomically(dir: string, payload: Payload, group: number | undefined): boolean {
  for (const path of payload.keys()) checkPath(path)
  const old = currentOf(dir)
  const heads = new Set([...payload.keys()].map((path) => path.split('/')[0] ?? path))
  if (old !== undefined && same(join(dir, old), payload, group)) {
    linkHeads(dir, heads)
    return false
  }
  const next = `..${new Date().toISOString().slice(0, 19).replaceAll(/[-T:]/g, '_')}.${randomBytes(5).readUInt32LE()}`
  const home = join(dir, next)
  mkdirSync(home, { mode: 0o755 })
  own(home, group, 0o755)
  for (const [path, { data, mode }] of payload) {
    const file = join(home, path)
    for (const parent of parentsOf(path)) {
      mkdirSync(join(home, parent), { recursive: true, mode: 0o755 })
      own(join(home, parent), group, 0o755)
    }
    writeFileSync(file, data)
    chmodSync(file, withGroup(mode, group))
    if (group !== undefined) chownSync(file, -1, group)
  }
  const staged = join(dir, `${link}_tmp`)
  rmSync(staged, { force: true })
  symlinkSync(next, staged)
  renameSync(staged, join(dir, link))
  linkHeads(dir, heads)
  if (old !== undefined) rmSync(join(dir, old), { recursive: true, force: true })
  return true
}

function checkPath(path: string): void {
  const parts = path.split('/')
  if (path === '' || path.startsWith('/') || parts.includes('..') || (parts[0] ?? '').startsWith('..'))
    throw new Error(`invalid path ${JSON.stringify(path)}: must be relative and stay in the volume`)
}

function parentsOf(path: string): string[] {
  const parents: string[] = []
  for (let at = dirname(path); at !== '.'; at = dirname(at)) parents.unshift(at)
  return parents
}

function currentOf(dir: string): string | undefined {
  try {
    return readlinkSync(join(dir, link))
  } catch {
    return undefined
  }
}

const withGroup = (mode: number, group: number | undefined): number => (group === undefined ? mode : mode | 0o440)

function own(dir: string, group: number | undefined, mode: number): void {
  if (group === undefined) return
  chownSync(dir, -1, group)
  // setgid: what is made inside belongs to the group too.
  chmodSync(dir, mode | 0o2050)
}

function same(home: string, payload: Payload, group: number | undefined): boolean {
  const files = filesOf(home)
  if (files.length !== payload.size) return false
  return files.every((path) => {
    const wanted = payload.get(path)
    if (wanted === undefined) return false
    const file = join(home, path)
    return (lstatSync(file).mode & 0o7777) === withGroup(wanted.mode, group) && readFileSync(file).equals(wanted.data)
  })
}

function filesOf(home: string): string[] {
  try {
    return readdirSync(home, { recursive: true, withFileTypes: true })
      .filter((e) => e.isFile())
      .map((e) => join(e.parentPath, e.name).slice(home.length + 1))
  } catch {
    return []
  }
}

/** One visible link per first path element, none for what is no longer there. */
function linkHeads(dir: string, heads: ReadonlySet<string>): void {
  const present = readdirSync(dir).filter((name) => !name.startsWith('..'))
  for (const name of present) if (!heads.has(name)) rmSync(join(dir, name), { recursive: true, force: true })
  for (const head of heads) if (!present.includes(head)) symlinkSync(join(link, head), join(dir, head))
}
