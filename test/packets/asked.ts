import { join } from 'node:path'
import { type Counter, reasons } from '#datapath/maps/counters.ts'
import { encodeConfig, gatewayMac } from '#datapath/object.ts'
import { BpfObject } from '#kernel/bpf/object.ts'
import type { Program } from '#kernel/bpf/program.ts'
import { parseMac } from '#kernel/netlink/netlink.ts'
import { writeFrame } from '#test/model/frame.ts'
import { parsePacket } from '#test/model/packet-text.ts'
import { podCidrs, serviceCidrs, type TestNode, type TestPod } from './topology.ts'

/** What the programs said of one packet. */
export interface Verdict {
  readonly verdict: 'pass' | 'drop' | 'redirect' | 'other'
  readonly reason: string
  readonly rule: number
  readonly source: number
  readonly destination: number
  /** The frame as it came out. */
  readonly data: Buffer
}

const verdicts: ReadonlyMap<number, Verdict['verdict']> = new Map([
  [0, 'pass'],
  [-1, 'pass'],
  [2, 'drop'],
  [7, 'redirect'],
])
/** Offsets in struct __sk_buff. */
const at = { ifindex: 40, cb: 48, tstamp: 152 } as const
const programNames = ['from_container', 'to_container', 'from_netdev'] as const
const probeModel = 1

/**
 * A node's programs on the node's own maps, asked packet by packet (BPF_PROG_TEST_RUN, `cfg_probe` 1): the clock is ours and
 * nothing is sent. Packets are the model's lines of text.
 */
export class Asked implements Disposable {
  /** The clock of the programs. */
  ms = 1_000_000
  readonly #node: TestNode
  readonly #programs = new Map<string, Program>()
  readonly #uplink: number
  readonly #frame = Buffer.alloc(4096)

  /**
   * `globals`: of `encodeConfig`. `apart`: maps of its own in that directory of the node's bpffs, established flows with so
   * little room.
   */
  constructor(
    node: TestNode,
    objects: readonly { readonly name: string; readonly elf: Buffer }[],
    globals = {},
    apart?: { readonly dir: string; readonly flowsMax: number },
  ) {
    const mapDir = apart?.dir ?? join(node.pinDir, 'maps')
    this.#node = node
    this.#uplink = node.namespace.ifindex('eth0')
    const config = encodeConfig({
      serviceCidrs,
      podCidrs,
      gatewayMac,
      uplinkMac: '02:00:00:00:00:01',
      ...globals,
    })
    for (const name of programNames) {
      const elf = objects.find((object) => object.name === name)?.elf ?? Buffer.alloc(0)
      using loading = BpfObject.open(name, elf, mapDir)
      if (apart !== undefined) loading.resizeMap('flows_v1', apart.flowsMax)
      const probe = Buffer.alloc(4)
      probe.writeUInt32LE(probeModel)
      for (const [global, value] of new Map([...config, ['cfg_probe', probe] as const]))
        setIfThere(loading, global, value)
      loading.load()
      this.#programs.set(name, loading.program(name))
    }
  }

  /** From a pod. */
  sent(pod: TestPod, text: string): Verdict {
    return this.#run('from_container', text, pod.endpoint.ifindex, gatewayMac, pod.endpoint.mac)
  }

  /** By the uplink. */
  arrived(text: string): Verdict {
    return this.#run('from_netdev', text, this.#uplink, '02:00:00:00:00:01', '02:00:00:00:00:99')
  }

  /** From the node's own stack to a pod. */
  handed(pod: TestPod, text: string): Verdict {
    return this.#run('to_container', text, pod.endpoint.ifindex, pod.endpoint.mac, gatewayMac)
  }

  #run(name: string, text: string, ifindex: number, to: string, from: string): Verdict {
    const program = this.#programs.get(name)
    if (program === undefined) throw new Error(`${name} is not loaded`)
    const length = writeFrame(this.#frame, parsePacket(text), parseMac(to), parseMac(from))
    const context = Buffer.alloc(192)
    context.writeUInt32LE(ifindex, at.ifindex)
    // A machine that was just started may not be as old as a test's past.
    context.writeBigUInt64LE(BigInt.asUintN(64, BigInt(this.ms) * 1_000_000n), at.tstamp)
    const frame = Buffer.from(this.#frame.subarray(0, length))
    const run = this.#node.namespace.within(() => program.testRun(frame, { context }))
    const word = (i: number): number => run.context.readUInt32LE(at.cb + 4 * i)
    return {
      verdict: verdicts.get(run.verdict) ?? 'other',
      reason: reasons[word(0) & 0xffff] ?? `reason ${word(0) & 0xffff}`,
      rule: word(1),
      source: word(2),
      destination: word(3),
      data: run.data,
    }
  }

  [Symbol.dispose](): void {
    for (const program of this.#programs.values()) program[Symbol.dispose]()
  }
}

function setIfThere(object: BpfObject, name: string, value: Buffer): void {
  try {
    object.setGlobal(name, value)
  } catch (error) {
    if (!/ENOENT/.test(String((error as { code?: string }).code ?? error))) throw error
  }
}

/** Counters that grew while `body` ran: `EGRESS Invalid source ip`. */
export function counted(node: TestNode, body: () => void): string[] {
  const read = (): readonly Counter[] => node.datapath.counters()
  const before = read()
  body()
  return read().flatMap(({ packets, direction, reason }, i) =>
    // The pods' own stacks say something now and then, by multicast.
    packets > (before[i]?.packets ?? 0) && reason !== 'Multicast or link-local destination'
      ? [`${direction} ${reason}`]
      : [],
  )
}
