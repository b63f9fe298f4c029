import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { bpfDir, type CompiledObject } from './compile.ts'

/** A member: up to four bytes, eight bytes, several of those, or hexadecimal for bytes and structs. */
export type Member = number | bigint | readonly (number | bigint)[] | string

interface Slot {
  readonly name: string
  readonly offset: number
  readonly size: number
  /** `__be16` and the like. */
  readonly isNetworkOrder: boolean
  /** Bytes of one element; undefined: neither an integer nor an array of integers larger than a byte. */
  readonly element: number | undefined
}

/** A struct as clang laid it out: for tests that hold the codecs of `maps/` against it. */
export class Layout {
  readonly size: number
  readonly #slots: readonly Slot[]

  constructor(size: number, slots: readonly Slot[]) {
    this.size = size
    this.#slots = slots
  }

  /** Every member but padding. */
  read(bytes: Buffer): Record<string, Member> {
    if (bytes.length !== this.size) throw new RangeError(`${bytes.length} bytes for a struct of ${this.size}`)
    return Object.fromEntries(this.#slots.map((slot) => [slot.name, readMember(bytes, slot)]))
  }

  /** Members that are not given are zero. Throws a RangeError for one that there is not. */
  write(members: Readonly<Record<string, Member>>): Buffer {
    const out = Buffer.alloc(this.size)
    for (const [name, value] of Object.entries(members)) {
      const slot = this.#slots.find((s) => s.name === name)
      if (slot === undefined) throw new RangeError(`the struct has no ${name}`)
      if (typeof value === 'string') out.write(value, slot.offset, 'hex')
      else [value].flat().forEach((one, i) => void writeInteger(out, slot, i, one as number | bigint))
    }
    return out
  }
}

function readMember(bytes: Buffer, { offset, size, element, isNetworkOrder }: Slot): Member {
  if (element === undefined) return bytes.toString('hex', offset, offset + size)
  const all = Array.from({ length: size / element }, (_, i) => {
    const at = offset + i * element
    if (element === 8) return bytes.readBigUInt64LE(at)
    return isNetworkOrder ? bytes.readUIntBE(at, element) : bytes.readUIntLE(at, element)
  })
  return all.length === 1 ? (all[0] ?? 0) : all
}

function writeInteger(
  out: Buffer,
  { offset, element = 1, isNetworkOrder }: Slot,
  i: number,
  value: number | bigint,
): void {
  const at = offset + i * element
  if (element === 8) out.writeBigUInt64LE(BigInt(value), at)
  else if (isNetworkOrder) out.writeUIntBE(Number(value), at, element)
  else out.writeUIntLE(Number(value), at, element)
}

/** A type of `bpftool btf dump`. */
interface BtfType {
  readonly id: number
  readonly kind: string
  readonly name: string
  readonly size?: number
  readonly type_id?: number
  readonly nr_elems?: number
  readonly members?: readonly { readonly name: string; readonly type_id: number; readonly bits_offset: number }[]
}

/** The structs that the programs use, by name. Needs clang and bpftool. */
export function readLayouts(objects: readonly CompiledObject[]): ReadonlyMap<string, Layout> {
  const dir = mkdtempSync(join(tmpdir(), 'weft-btf-'))
  try {
    const files = objects.map(({ name, elf }) => {
      const file = join(dir, `${name}.o`)
      writeFileSync(file, elf)
      return file
    })
    return new Map([...files, compileEvent(dir)].flatMap(layoutsIn))
  } finally {
    rmSync(dir, { recursive: true })
  }
}

/** The programs have it behind a pointer only, and then their type information has not. */
function compileEvent(dir: string): string {
  const file = join(dir, 'event.o')
  const machine = { x64: 'x86_64-linux-gnu', arm64: 'aarch64-linux-gnu' }[process.arch as string] ?? ''
  const flags = ['-g', '-target', 'bpf', '-I.', `-I/usr/include/${machine}`, '-c', '-x', 'c', '-', '-o', file]
  const input = '#include <linux/types.h>\n#include "abi/event.h"\nstruct event event;\n'
  execFileSync('clang', flags, { cwd: bpfDir, input })
  return file
}

function layoutsIn(file: string): [string, Layout][] {
  const text = execFileSync('bpftool', ['-j', 'btf', 'dump', 'file', file], { encoding: 'utf8', maxBuffer: 64 << 20 })
  const { types } = JSON.parse(text) as { types: readonly BtfType[] }
  const byId = new Map(types.map((type) => [type.id, type]))
  /** Behind typedefs and qualifiers, with the names on the way. */
  const resolve = (id: number): { readonly type: BtfType | undefined; readonly names: readonly string[] } => {
    const names: string[] = []
    let type = byId.get(id)
    while (type !== undefined && ['TYPEDEF', 'CONST', 'VOLATILE'].includes(type.kind)) {
      names.push(type.name)
      type = byId.get(type.type_id ?? 0)
    }
    return { type, names }
  }
  const slotOf = (name: string, offset: number, id: number): Slot => {
    const { type, names } = resolve(id)
    const isNetworkOrder = names.some((each) => each.startsWith('__be'))
    const common = { name, offset, isNetworkOrder }
    if (type?.kind === 'ARRAY') {
      const { size } = slotOf(name, offset, type.type_id ?? 0)
      const isInteger = resolve(type.type_id ?? 0).type?.kind === 'INT' && size > 1
      return { ...common, size: size * (type.nr_elems ?? 0), element: isInteger ? size : undefined }
    }
    const size = type?.kind === 'PTR' ? 8 : (type?.size ?? 0)
    return { ...common, size, element: type?.kind === 'INT' || type?.kind === 'ENUM' ? size : undefined }
  }
  return types
    .filter((type) => type.kind === 'STRUCT')
    .map((type) => {
      const members = (type.members ?? []).filter((member) => member.name !== 'pad')
      const slots = members.map((member) => slotOf(member.name, member.bits_offset / 8, member.type_id))
      return [type.name, new Layout(type.size ?? 0, slots)]
    })
}
