import { checkResult, hasCode } from '../errno.ts'
import { Fd } from '../fd.ts'
import * as ffi from '../ffi.ts'
import type { Namespace } from '../netns.ts'

/** enum bpf_attach_type of linux/bpf.h; tcx is newer than the headers of Debian 12. */
const attachTypes = {
  connect4: 10,
  connect6: 11,
  post_bind4: 12,
  post_bind6: 13,
  sendmsg4: 14,
  sendmsg6: 15,
  recvmsg4: 19,
  recvmsg6: 20,
  getpeername4: 29,
  getpeername6: 30,
  skLookup: 36,
  /** Generic: XDP_FLAGS_SKB_MODE. Native is what the driver does itself, XDP_FLAGS_DRV_MODE. */
  xdpGeneric: 37 | (2 << 16),
  xdpNative: 37 | (4 << 16),
  /** BPF_F_BEFORE, and nothing that it be before: the first of all. */
  tcxIngress: 46 | (8 << 16),
  tcxEgress: 47 | (8 << 16),
} as const
export type AttachType = keyof typeof attachTypes

export interface TestRunResult {
  /** TC_ACT_* of a tc program. */
  readonly verdict: number
  readonly data: Buffer
  readonly context: Buffer
  /** Mean of one run. */
  readonly nanoseconds: number
}

/** A loaded program. */
export class Program extends Fd {
  static openPin(path: string): Program | undefined {
    const fd = openPin(path)
    return fd === undefined ? undefined : new Program(fd)
  }

  /** By its number in the kernel, whoever loaded it; undefined where it has gone. */
  static openId(id: number): Program | undefined {
    try {
      return new Program(checkResult(ffi.programOpen(id), `open BPF program ${id}`))
    } catch (error) {
      if (hasCode(error, 'ENOENT')) return undefined
      throw error
    }
  }

  /** As the kernel knows it: 15 characters at most. */
  get name(): string {
    const out = Buffer.alloc(16)
    checkResult(ffi.programName(this.number, out), 'read the name of a BPF program')
    return out.toString('latin1', 0, out.indexOf(0))
  }

  /** Numbers of the maps that it uses. */
  get mapIds(): number[] {
    const ids = new Uint32Array(256)
    const count = checkResult(ffi.programMaps(this.number, ids, ids.length), 'read the maps of a BPF program')
    return [...ids.subarray(0, count)]
  }

  pin(path: string): void {
    checkResult(ffi.pin(this.number, path), `pin a program at ${path}`)
  }

  get info(): { readonly id: number; readonly tag: string; readonly runs: number; readonly runNanoseconds: number } {
    const out = {} as ffi.ProgramInfoOut
    checkResult(ffi.programInfoOf(this.number, out), 'read about a BPF program')
    return {
      id: out.id,
      tag: Buffer.from(out.tag).toString('hex'),
      runs: out.run_count,
      runNanoseconds: out.run_nanoseconds,
    }
  }

  /** An XDP program on `repeat` copies of a frame, which really go where it says. In the namespace of the caller. */
  runLive(frame: Uint8Array, repeat: number): void {
    checkResult(ffi.runLive(this.number, frame, frame.length, repeat), 'run an XDP program on live frames')
  }

  /** Runs the program on a packet without sending anything (except by bpf_clone_redirect, which does send). */
  testRun(
    data: Uint8Array,
    { context, repeat = 1 }: { readonly context?: Uint8Array; readonly repeat?: number } = {},
  ): TestRunResult {
    const out = Buffer.alloc(data.length + 512)
    const used = context === undefined ? null : Buffer.from(context)
    const run: ffi.TestRunInOut = {
      program: this.number,
      repeat,
      data_in: data,
      data_in_size: data.length,
      data_out: out,
      data_out_size: out.length,
      context: used,
      context_size: used?.length ?? 0,
      verdict: 0,
      nanoseconds: 0,
    }
    checkResult(ffi.programTestRun(run), 'test-run a BPF program')
    return {
      // The kernel says -1 for TCX_NEXT.
      verdict: run.verdict | 0,
      data: out.subarray(0, run.data_out_size),
      context: used ?? Buffer.alloc(0),
      nanoseconds: run.nanoseconds,
    }
  }
}

/**
 * Buffers for one packet after the other, without anything made in between: a model is held against millions of them.
 * Write `packet` and `context`, run, read `out` and `context`.
 */
export class PacketBench {
  /** What goes in: a test-run packet is at most one page, less what the kernel keeps beside it. */
  readonly packet = Buffer.alloc(3712)
  readonly out = Buffer.alloc(4096)
  /** struct __sk_buff. */
  readonly context = Buffer.alloc(192)
  /** Of the packet that came out. */
  outLength = 0
  readonly #run: ffi.TestRunInOut = {
    program: -1,
    repeat: 1,
    data_in: this.packet,
    data_in_size: 0,
    data_out: this.out,
    data_out_size: 0,
    context: this.context,
    context_size: this.context.length,
    verdict: 0,
    nanoseconds: 0,
  }

  /** Returns the verdict. `length` is the packet's. */
  run(program: Program, length: number): number {
    const run = this.#run
    run.program = program.number
    run.data_in = this.packet
    run.data_in_size = length
    run.data_out = this.out
    run.data_out_size = this.out.length
    run.context = this.context
    checkResult(ffi.programTestRun(run), 'test-run a BPF program')
    this.outLength = run.data_out_size
    return run.verdict | 0
  }
}

/** Between two ticks of this kernel, by which programs tell the time. */
export const tickNanoseconds = (): number =>
  checkResult(ffi.tickNanoseconds(), 'ask for the resolution of the coarse clock')

/**
 * Runs a `SEC("syscall")` program in a thread of the pool. Resolves with its context as it left it; throws `KernelError`
 * where the program says a negative number.
 */
export async function runSyscall(program: Program, context: Uint8Array): Promise<Buffer> {
  // A buffer of its own: the thread writes to it.
  const used = Buffer.alloc(context.length)
  used.set(context)
  checkResult(await ffi.runSyscall(program.number, used), 'run a BPF program')
  return used
}

/** The same at once, `context` in place: for maps that are known to be small. */
export function runSyscallNow(program: Program, context: Buffer): void {
  checkResult(ffi.runSyscallNow(program.number, context), 'run a BPF program')
}

/** enum bpf_link_type, as far as what a link is of can go. */
const linkTypes = { cgroup: 3, xdp: 6, tcx: 11 } as const

interface LinkInfo {
  readonly id: number
  readonly programId: number
  readonly ifindex: number
  readonly cgroupId: bigint
  /** False once its device or cgroup has gone. */
  readonly isAttached: boolean
}

/** An attached program: it stays attached while the link is open or pinned. */
export class Link extends Fd {
  /** `ifindex` is a number of `namespace` (absent: of our own). */
  static async attachDevice(program: Program, type: AttachType, ifindex: number, namespace?: Namespace): Promise<Link> {
    const result = await ffi.attachDevice(namespace?.number ?? -1, ifindex, program.number, attachTypes[type])
    return new Link(checkResult(result, `attach a program to ${type} of device ${ifindex}`))
  }

  static attachCgroup(program: Program, type: AttachType, cgroup: Fd, cgroupPath: string): Link {
    const result = ffi.attachTo(cgroup.number, program.number, attachTypes[type])
    return new Link(checkResult(result, `attach a program to ${type} of cgroup ${cgroupPath}`))
  }

  /** Connections that arrive in `namespace` and have no socket yet. */
  static attachNamespace(program: Program, type: AttachType, namespace: Namespace): Link {
    const result = ffi.attachTo(namespace.number, program.number, attachTypes[type])
    return new Link(checkResult(result, `attach a program to ${type} of ${namespace.path}`))
  }

  static openPin(path: string): Link | undefined {
    const fd = openPin(path)
    return fd === undefined ? undefined : new Link(fd)
  }

  pin(path: string): void {
    checkResult(ffi.pin(this.number, path), `pin a link at ${path}`)
  }

  /** Another program takes over between two packets. Throws ENOLINK where the device has gone. */
  update(program: Program): void {
    checkResult(ffi.linkUpdate(this.number, program.number), 'exchange the program behind a link')
  }

  /** At once; closing or unpinning the last reference only gets round to it. A device that is gone is fine. */
  detach(): void {
    try {
      checkResult(ffi.linkDetach(this.number), 'detach a BPF link')
    } catch (error) {
      if (!hasCode(error, 'ENOLINK')) throw error
    }
  }

  /** `ifindex` and `cgroupId` (a directory's inode) are 0 once the device or cgroup has gone. */
  get info(): LinkInfo {
    const out = {} as ffi.LinkInfoOut
    checkResult(ffi.linkInfoOf(this.number, out), 'read about a BPF link')
    const cgroupId = BigInt(out.cgroup_id)
    const isAttached = out.type === linkTypes.tcx || out.type === linkTypes.xdp ? out.ifindex !== 0 : true
    return {
      id: out.id,
      programId: out.program_id,
      ifindex: out.ifindex,
      cgroupId,
      isAttached: isAttached && (out.type !== linkTypes.cgroup || cgroupId !== 0n),
    }
  }
}

/** What is attached to one hook of a device by tcx, whoever attached it, in the order in which it runs. */
export function attachedTo(
  type: AttachType,
  ifindex: number,
  namespace?: Namespace,
): { readonly programId: number; readonly linkId: number }[] {
  const [programs, links] = [new Uint32Array(attachedMax), new Uint32Array(attachedMax)]
  const result = ffi.queryDevice(namespace?.number ?? -1, ifindex, attachTypes[type], programs, links, attachedMax)
  const count = checkResult(result, `ask what is attached to ${type} of device ${ifindex}`)
  return Array.from({ length: count }, (_, i) => ({ programId: programs[i] ?? 0, linkId: links[i] ?? 0 }))
}

/** BPF_MPROG_MAX of the kernel: more there cannot be. */
const attachedMax = 64

/** Undefined where nothing is pinned. */
export function openPin(path: string): number | undefined {
  try {
    return checkResult(ffi.openPin(path), `open pin ${path}`)
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return undefined
    throw error
  }
}
