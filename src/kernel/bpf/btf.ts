/** Members by their path (`to.source.word.0`): where each begins, and its bytes. A type without members has one, ``. */
export type Members = ReadonlyMap<string, { readonly offset: number; readonly size: number }>

/** BTF_KIND_* of linux/btf.h, as far as they are told apart. */
const kinds = {
  ...{ int: 1, pointer: 2, array: 3, struct: 4, union: 5, enum: 6, typedef: 8, volatile: 9, const: 10, restrict: 11 },
  ...{ prototype: 13, variable: 14, section: 15, float: 16, declTag: 17, typeTag: 18, enum64: 19 },
} as const

interface Type {
  readonly kind: number
  readonly name: string
  /** A size, or the number of another type. */
  readonly value: number
  readonly count: number
  /** Where its own part begins. */
  readonly at: number
}

/** Types as the compiler described them and the kernel keeps them (Documentation/bpf/btf.rst). */
export class Btf {
  readonly #bytes: Buffer
  /** Number 0 is void. */
  readonly #types: Type[] = [{ kind: 0, name: '', value: 0, count: 0, at: 0 }]

  /** Throws a RangeError for bytes that are none. */
  constructor(bytes: Buffer) {
    this.#bytes = bytes
    if (bytes.readUInt16LE(0) !== 0xeb9f) throw new RangeError('these bytes are no BTF')
    const header = bytes.readUInt32LE(4)
    const at = header + bytes.readUInt32LE(8)
    const strings = header + bytes.readUInt32LE(16)
    for (let next = at; next < at + bytes.readUInt32LE(12); ) {
      const name = strings + bytes.readUInt32LE(next)
      const info = bytes.readUInt32LE(next + 4)
      const kind = (info >> 24) & 0x1f
      const count = info & 0xffff
      const own = next + 12
      this.#types.push({
        kind,
        name: bytes.toString('latin1', name, bytes.indexOf(0, name)),
        value: bytes.readUInt32LE(next + 8),
        count,
        at: own,
      })
      next = own + ownBytes(kind, count)
    }
  }

  #type(id: number): Type {
    const type = this.#types[id]
    if (type === undefined) throw new RangeError(`there is no type ${id}`)
    const { typedef, volatile, const: constant, restrict, typeTag } = kinds
    return [typedef, volatile, constant, restrict, typeTag].some((kind) => kind === type.kind)
      ? this.#type(type.value)
      : type
  }

  /** Of a struct by its name; undefined where there is none. */
  struct(name: string): { readonly members: Members; readonly size: number } | undefined {
    const id = this.#types.findIndex((type) => type.kind === kinds.struct && type.name === name)
    return id < 0 ? undefined : { members: this.membersOf(id), size: this.#size(id) }
  }

  /** Of the map definitions in an object: their names. */
  get mapNames(): string[] {
    const section = this.#types.find((type) => type.kind === kinds.section && type.name === '.maps')
    if (section === undefined) return []
    return Array.from({ length: section.count }, (_, i) => {
      const variable = this.#types[this.#bytes.readUInt32LE(section.at + i * 12)]
      return variable?.name ?? ''
    })
  }

  membersOf(id: number): Members {
    const found = new Map<string, { offset: number; size: number }>()
    this.#collect(id, '', 0, found)
    return found
  }

  #collect(id: number, path: string, offset: number, found: Map<string, { offset: number; size: number }>): void {
    const type = this.#type(id)
    const below = (name: string | number): string => (path === '' ? `${name}` : `${path}.${name}`)
    if (type.kind === kinds.struct || type.kind === kinds.union) {
      for (let i = 0; i < type.count; i++) {
        const at = type.at + i * 12
        const name = this.#text(this.#bytes.readUInt32LE(at))
        const bits = this.#bytes.readUInt32LE(at + 8) & 0xff_ffff
        this.#collect(this.#bytes.readUInt32LE(at + 4), below(name), offset + bits / 8, found)
      }
    } else if (type.kind === kinds.array) {
      const element = this.#bytes.readUInt32LE(type.at)
      const size = this.#size(element)
      const count = this.#bytes.readUInt32LE(type.at + 8)
      for (let i = 0; i < count; i++) this.#collect(element, below(i), offset + i * size, found)
    } else {
      found.set(path, { offset, size: this.#size(id) })
    }
  }

  #text(offset: number): string {
    const at = this.#bytes.readUInt32LE(4) + this.#bytes.readUInt32LE(16) + offset
    return this.#bytes.toString('latin1', at, this.#bytes.indexOf(0, at))
  }

  #size(id: number): number {
    const type = this.#type(id)
    if (type.kind === kinds.pointer) return 8
    if (type.kind !== kinds.array) return type.value
    return this.#size(this.#bytes.readUInt32LE(type.at)) * this.#bytes.readUInt32LE(type.at + 8)
  }
}

/** What follows the twelve bytes that every type has. */
function ownBytes(kind: number, count: number): number {
  switch (kind) {
    case kinds.int:
    case kinds.variable:
    case kinds.declTag:
      return 4
    case kinds.array:
      return 12
    case kinds.struct:
    case kinds.union:
    case kinds.section:
    case kinds.enum64:
      return count * 12
    case kinds.enum:
    case kinds.prototype:
      return count * 8
    default:
      return 0
  }
}
