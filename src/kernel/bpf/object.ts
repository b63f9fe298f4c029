import { checkResult } from '../errno.ts'
import * as ffi from '../ffi.ts'
import { Btf } from './btf.ts'
import { BpfMap } from './map.ts'
import { Program } from './program.ts'

/** Enough for the whole of what the verifier says of one of our programs. */
const logBytes = 256 * 1024

/**
 * A compiled object on its way into the kernel: open, set globals, load, take programs and maps, dispose.
 * What was taken stays after the object is gone.
 */
export class BpfObject implements Disposable {
  #object: ffi.ObjectPointer | undefined
  readonly #name: string
  /** libbpf reads it until the object is closed. */
  readonly #elf: Uint8Array

  private constructor(object: ffi.ObjectPointer, name: string, elf: Uint8Array) {
    this.#object = object
    this.#name = name
    this.#elf = elf
  }

  /** Maps are shared by name: those pinned in `pinDir` are used, others are made and pinned there. */
  static open(name: string, elf: Uint8Array, pinDir: string | null): BpfObject {
    const out: [ffi.ObjectPointer | null] = [null]
    checkResult(
      ffi.objectOpen(elf, elf.length, name.slice(0, 15), pinDir, out),
      `read BPF object ${name}`,
      readLibbpfLog,
    )
    if (out[0] === null) throw new Error(`Cannot read BPF object ${name}: libbpf gave neither object nor error`)
    return new BpfObject(out[0], name, elf)
  }

  get #pointer(): ffi.ObjectPointer {
    if (this.#object === undefined) throw new Error(`Cannot use BPF object ${this.#name}: it is closed`)
    return this.#object
  }

  get sizeBytes(): number {
    return this.#elf.length
  }

  /** Sets a `const volatile` global. Throws `KernelError`, EINVAL where its size is another, ENOENT where there is none. */
  setGlobal(name: string, value: Uint8Array): void {
    checkResult(
      ffi.objectSet(this.#pointer, name, value, value.length),
      `set global ${name} of BPF object ${this.#name}`,
    )
  }

  resizeMap(name: string, entriesMax: number): void {
    checkResult(ffi.objectResize(this.#pointer, name, entriesMax), `resize map ${name} to ${entriesMax} entries`)
  }

  /** Another map, of whatever name and layout, in place of the object's of that name; it stays its owner's. ENOENT: there is none. */
  reuseMap(name: string, map: BpfMap): void {
    const action = `use map ${map.name} as ${name} of BPF object ${this.#name}`
    checkResult(ffi.objectReuse(this.#pointer, name, map.number), action)
  }

  /** Its types. */
  get types(): Btf {
    const action = `read the types of BPF object ${this.#name}`
    const size = checkResult(ffi.objectBtf(this.#pointer, null, 0), action)
    const out = Buffer.alloc(size)
    checkResult(ffi.objectBtf(this.#pointer, out, size), action)
    return new Btf(out)
  }

  /** Verifies and loads. Throws `KernelError` with the verifier's words. */
  load(): void {
    checkResult(ffi.objectLoad(this.#pointer), `load BPF object ${this.#name}`, readLibbpfLog)
  }

  program(name: string): Program {
    return new Program(checkResult(ffi.objectProgram(this.#pointer, name), `find program ${name} in ${this.#name}`))
  }

  map(name: string): BpfMap {
    return new BpfMap(checkResult(ffi.objectMap(this.#pointer, name), `find map ${name} in ${this.#name}`))
  }

  [Symbol.dispose](): void {
    if (this.#object === undefined) return
    ffi.objectClose(this.#object)
    this.#object = undefined
  }
}

function readLibbpfLog(): string {
  const out = Buffer.alloc(logBytes)
  return out.toString('utf8', 0, ffi.objectLog(out, out.length))
}
