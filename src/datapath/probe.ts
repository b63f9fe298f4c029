import { BpfObject } from '#kernel/bpf/object.ts'
import type { Program } from '#kernel/bpf/program.ts'
import type { Namespace } from '#kernel/netns.ts'
import type { CompiledObject } from './compile.ts'
import { setIfUsed } from './load.ts'
import { type Reason, reasons } from './maps/counters.ts'

/** Programs that can be asked about a packet. */
const probed = ['from_container', 'to_container', 'from_netdev'] as const
/** Where a packet would meet a program. */
export type Hook = (typeof probed)[number]

/** PROBE_WHY of bpf/config.h. */
const probeWhy = 2

/** struct __sk_buff of linux/bpf.h, as far as a test run takes it. */
const contextSize = 192
const contextIfindex = 40
const contextCb = 48

/** What a program says to a packet that nobody sent. */
export interface Judgement {
  readonly verdict: 'forwarded' | 'dropped' | 'stack'
  readonly reason: Reason
  /** Elements that allowed it; 0: that side is not isolated, or is not of this node. */
  readonly egressRule: number
  readonly ingressRule: number
  /** The policy set that refused it; 0: none did. */
  readonly set: number
  readonly sourceIdentity: number
  readonly destinationIdentity: number
  /** The packet as it would have gone on. */
  readonly packet: Buffer
}

export interface ProbeOptions {
  readonly objects: readonly CompiledObject[]
  /** bpf/config.h, as the attached programs have it. */
  readonly globals: ReadonlyMap<string, Buffer>
  /** Where the attached programs' maps are pinned. */
  readonly mapDir: string
  /** The node's, where this process is elsewhere. */
  readonly namespace?: Namespace
}

/** TC_ACT_* and TCX_*. */
const shot = 2
const redirect = 7

/**
 * The node's own programs, loaded once more to be asked: they read the live maps and write none (`cfg_probe`), and a test run
 * sends nothing. So what they say is what the attached ones would do.
 */
export class Probe implements Disposable {
  readonly #programs: ReadonlyMap<Hook, Program>
  readonly #namespace: Namespace | undefined

  /** Takes 100 ms: the kernel verifies them again. Throws `KernelError` with the verifier's words. */
  static open({ objects, globals, mapDir, namespace }: ProbeOptions): Probe {
    const switched = Buffer.alloc(4)
    switched.writeUInt32LE(probeWhy)
    const programs = new Map<Hook, Program>()
    for (const name of probed) {
      const object = objects.find((o) => o.name === name)
      if (object === undefined) continue
      using loading = BpfObject.open(name, object.elf, mapDir)
      for (const [global, value] of new Map(globals).set('cfg_probe', switched)) setIfUsed(loading, global, value)
      loading.load()
      programs.set(name, loading.program(name))
    }
    return new Probe(programs, namespace)
  }

  private constructor(programs: ReadonlyMap<Hook, Program>, namespace: Namespace | undefined) {
    this.#programs = programs
    this.#namespace = namespace
  }

  /** What happens to the frame at that hook of that device. */
  judge(hook: Hook, packet: Uint8Array, ifindex: number): Judgement {
    const program = this.#programs.get(hook)
    if (program === undefined) throw new Error(`Cannot ask ${hook}: this node has no such program`)
    const context = Buffer.alloc(contextSize)
    context.writeUInt32LE(ifindex, contextIfindex)
    const ask = () => program.testRun(packet, { context })
    // The device's number, and the routes, are those of the namespace that asks.
    const run = this.#namespace === undefined ? ask() : this.#namespace.within(ask)
    const word = (i: number): number => run.context.readUInt32LE(contextCb + 4 * i)
    const reason = word(0) & 0xffff
    const dropped = run.verdict === shot
    return {
      verdict: dropped ? 'dropped' : run.verdict === redirect ? 'forwarded' : 'stack',
      reason: reasons[reason] ?? (`Reason ${reason}` as Reason),
      egressRule: dropped ? 0 : word(4),
      ingressRule: dropped || word(1) === word(4) ? 0 : word(1),
      set: dropped ? word(4) : 0,
      sourceIdentity: word(2),
      destinationIdentity: word(3),
      packet: run.data,
    }
  }

  [Symbol.dispose](): void {
    for (const program of this.#programs.values()) program[Symbol.dispose]()
  }
}
