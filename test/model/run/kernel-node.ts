import { gatewayMac } from '#datapath/object.ts'
import { PacketBench } from '#kernel/bpf/program.ts'
import { parseMac } from '#kernel/netlink/netlink.ts'
import type { Endpoint } from '../cluster.ts'
import { writeFrame } from '../frame.ts'
import type { Hook } from '../journey.ts'
import type { Packet } from '../packet.ts'
import { ClusterMaps, type IdentityNumbers, ipv4Number, podMac } from './cluster-maps.ts'
import type { ProgramName, Programs } from './programs.ts'
import type { World } from './world.ts'

/** What the programs said of one packet. Reused: read it before the next one. */
export interface Answer {
  /** TC_ACT_*. */
  verdict: number
  reason: number
  rule: number
  source: number
  destination: number
  choice: number
  /** Of a packet that was wrapped: whose identity goes with it, and to which node. */
  wrappedAs: number
  wrappedTo: number
}

/** Offsets in struct __sk_buff. */
const at = { ifindex: 40, cb: 48, tstamp: 152 } as const
/** Offsets in struct xdp_md. */
const xdpAt = { data: 0, end: 4, ifindex: 12 } as const
const xdpVerdicts = { pass: 2, transmit: 3, redirect: 4 } as const
const timeBytes = 8
const programOf = {
  pod: 'from_container',
  uplink: 'from_netdev',
  host: 'to_container',
  tunnel: 'from_overlay',
  stack: 'to_overlay',
} as const satisfies Record<Hook['from'], ProgramName>

const gateway = parseMac(gatewayMac)
const stranger = parseMac('02:00:00:00:00:99')

/** The compiled programs on maps of their own, asked of one packet after another by test-runs. */
export class KernelNode {
  readonly maps: ClusterMaps
  readonly answer: Answer = {
    verdict: 0,
    reason: 0,
    rule: 0,
    source: 0,
    destination: 0,
    choice: 0,
    wrappedAs: 0,
    wrappedTo: 0,
  }
  readonly bench = new PacketBench()
  readonly #early = new PacketBench()
  readonly world: World
  readonly #programs: Programs
  readonly #uplinkMac: Buffer

  constructor(world: World, programs: Programs, numbers?: IdentityNumbers) {
    this.world = world
    this.#programs = programs
    this.#uplinkMac = parseMac(world.uplinkMac)
    this.maps = new ClusterMaps(world, programs, numbers)
  }

  /** Whether the kernel chose this backend for the last packet. */
  isChosen(endpoint: Endpoint): boolean {
    return this.maps.isBackend(this.answer.choice, endpoint)
  }

  /** Device that a packet comes by. */
  #ifindexOf(hook: Hook): number {
    if (hook.from === 'uplink') return this.world.uplink
    if (hook.from === 'tunnel' || hook.from === 'stack') return this.maps.isTunnelled ? this.world.tunnel : 0
    const pod = this.maps.cluster?.pods.get(hook.pod)
    return this.world.devices.get(pod?.addresses[0] ?? '') ?? 0
  }

  canRun(hook: Hook): boolean {
    return this.#ifindexOf(hook) !== 0
  }

  /** Writes the packet as it comes to the hook. Returns its length. */
  write(hook: Hook, packet: Packet): number {
    const { bench } = this
    if (hook.from === 'pod') {
      const pod = this.maps.cluster?.pods.get(hook.pod)
      return writeFrame(bench.packet, packet, gateway, pod === undefined ? stranger : podMac(pod))
    }
    return writeFrame(bench.packet, packet, hook.from === 'uplink' ? this.#uplinkMac : stranger, stranger)
  }

  /** A frame that another node has sent, as it comes to the hook. Returns its length. */
  receive(hook: Hook, frame: Buffer): number {
    const { packet } = this.bench
    frame.copy(packet)
    packet.set(hook.from === 'uplink' ? this.#uplinkMac : stranger, 0)
    packet.set(stranger, 6)
    return frame.length
  }

  /**
   * XDP's look at what `write` has written: what it left to others as it was, or changed. Whether it sends it on is said, and
   * what it then is lies where the other programs leave it.
   */
  runEarly(length: number, now: number): 'sent on' | 'left' | 'changed and left' | 'lost' {
    const { bench } = this
    const { packet, out, context } = this.#early
    context.fill(0)
    // Eight bytes of metadata in front: the time.
    context.writeUInt32LE(timeBytes, xdpAt.data)
    context.writeUInt32LE(timeBytes + length, xdpAt.end)
    context.writeUInt32LE(this.world.uplink, xdpAt.ifindex)
    const ns = now * 1e6
    packet.writeUInt32LE(ns % 0x1_0000_0000, 0)
    packet.writeUInt32LE(Math.floor(ns / 0x1_0000_0000), 4)
    bench.packet.copy(packet, timeBytes, 0, length)
    this.maps.clock.ms = now
    this.answer.choice = 0
    const verdict = this.#early.run(this.#programs.program('xdp_entry', this.maps.isTunnelled), timeBytes + length)
    bench.outLength = this.#early.outLength - timeBytes
    out.copy(bench.out, 0, timeBytes, this.#early.outLength)
    if (verdict === xdpVerdicts.transmit || verdict === xdpVerdicts.redirect) return 'sent on'
    if (verdict !== xdpVerdicts.pass) return 'lost'
    const same = bench.outLength === length && bench.packet.compare(bench.out, 0, length, 0, length) === 0
    return same ? 'left' : 'changed and left'
  }

  /** Runs what `write` has written. Inside of the world's namespace. `now` is ms. `key`: the number that came with it. */
  run(hook: Hook, length: number, now: number, key?: number): Answer {
    const { bench, answer } = this
    const { context } = bench
    // What the last run wrote there the kernel would refuse.
    context.fill(0)
    context.writeUInt32LE(this.#ifindexOf(hook), at.ifindex)
    this.maps.clock.ms = now
    const ns = now * 1e6
    context.writeUInt32LE(ns % 0x1_0000_0000, at.tstamp)
    context.writeUInt32LE(Math.floor(ns / 0x1_0000_0000), at.tstamp + 4)
    if (hook.from === 'tunnel') {
      context.writeUInt32LE(key ?? this.maps.claimed(hook.as), at.cb)
      context.writeUInt32LE(ipv4Number(hook.node), at.cb + 4)
    }
    answer.verdict = bench.run(this.#programs.program(programOf[hook.from], this.maps.isTunnelled), length)
    answer.wrappedAs = context.readUInt32LE(at.tstamp)
    answer.wrappedTo = context.readUInt32LE(at.tstamp + 4)
    const first = context.readUInt32LE(at.cb)
    answer.reason = first & 0xffff
    answer.rule = context.readUInt32LE(at.cb + 4)
    answer.source = context.readUInt32LE(at.cb + 8)
    answer.destination = context.readUInt32LE(at.cb + 12)
    answer.choice = context.readUInt32LE(at.cb + 16)
    return answer
  }
}
