import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { Program, type TestRunResult } from '#kernel/bpf/program.ts'
import type { TestNode } from './topology.ts'

/**
 * A node's own programs, as they are attached, asked packet by packet (BPF_PROG_TEST_RUN): its own maps are read and written,
 * the clock is the kernel's, nothing is sent.
 */
export class Attached implements Disposable {
  readonly #node: TestNode
  readonly #open = new Map<string, Program>()

  constructor(node: TestNode) {
    this.#node = node
  }

  /** Throws where it is not pinned. This object's to dispose. */
  program(name: string): Program {
    const present = this.#open.get(name)
    if (present !== undefined) return present
    const dir = join(this.#node.pinDir, 'programs')
    const version = readdirSync(dir).find((entry) => entry.startsWith(`${name}-`)) ?? ''
    const program = Program.openPin(join(dir, version, name))
    if (program === undefined) throw new Error(`${name} is not pinned`)
    this.#open.set(name, program)
    return program
  }

  /** A frame that came by this device: one of the node's namespace. */
  run(name: string, frame: Buffer, ifindex: number): TestRunResult {
    // struct __sk_buff, of which the kernel takes the device (offset 40).
    const context = Buffer.alloc(192)
    context.writeUInt32LE(ifindex, 40)
    return this.within(name, frame, context)
  }

  /** The same with a context of the caller's. */
  within(name: string, frame: Buffer, context: Buffer): TestRunResult {
    const program = this.program(name)
    return this.#node.namespace.within(() => program.testRun(frame, { context }))
  }

  [Symbol.dispose](): void {
    for (const program of this.#open.values()) program[Symbol.dispose]()
  }
}
