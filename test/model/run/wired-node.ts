import { readFileSync } from 'node:fs'
import { countersMap, readCounters, reasons as reasonTexts } from '#datapath/maps/counters.ts'
import { gatewayMac } from '#datapath/object.ts'
import { type AttachType, Link } from '#kernel/bpf/program.ts'
import { parseMac } from '#kernel/netlink/netlink.ts'
import { etherBytes, writeFrame } from '../frame.ts'
import type { Hook } from '../journey.ts'
import type { Packet } from '../packet.ts'
import { slots } from '../universe.ts'
import { ClusterMaps, podMac } from './cluster-maps.ts'
import type { ProgramName, Programs } from './programs.ts'
import { finished } from './received.ts'
import { type Left, type Taken, Wire } from './wire.ts'
import type { World } from './world.ts'

const places = [
  ['from_netdev', 'uplink', 'tcxIngress'],
  ['from_container', 'pod', 'tcxIngress'],
  ['to_container', 'pod', 'tcxEgress'],
  ['from_overlay', 'tunnel', 'tcxIngress'],
  ['to_overlay', 'tunnel', 'tcxEgress'],
] as const satisfies readonly (readonly [ProgramName, string, AttachType])[]

const stranger = parseMac('02:00:00:00:00:99')
const gateway = parseMac(gatewayMac)

/** The tunnel: VXLAN (RFC 7348) with the sender's identity as the network's number. */
const tunnelPort = 8_472
const vxlan = { headers: 20 + 8 + 8, hasNumber: 0x08 } as const

/** What came out of the tunnel's device on the wire. */
export interface Wrapped {
  readonly frame: Buffer
  readonly number: number
  readonly to: number
}

/** What the node has counted since it began. */
export interface Counts {
  /** By the number of the reason. */
  readonly reasons: readonly number[]
  /** IP packets that its stack has seen. */
  readonly stack: number
}

/** The programs attached to devices, as the agent attaches them: whatever a packet does happens. */
export class WiredNode implements Disposable {
  readonly maps: ClusterMaps
  readonly world: World
  readonly #programs: Programs
  readonly #links: { readonly name: ProgramName; readonly link: Link }[]
  /** Far ends, by the near one's name; and where the node's own stack sends. */
  readonly #wires = new Map<string, Wire>()
  readonly #buffer = Buffer.alloc(4096)
  #early: Link | undefined

  private constructor(world: World, programs: Programs, links: { name: ProgramName; link: Link }[]) {
    this.world = world
    this.#programs = programs
    this.#links = links
    this.maps = new ClusterMaps(world, programs)
    if (world.far === undefined) throw new RangeError('this world is not wired')
    for (const near of ['eth0', ...podDevices]) this.#wires.set(near, new Wire(world.far, `${near}-far`))
    for (const device of podDevices) this.#wires.set(`to ${device}`, new Wire(world.namespace, device))
    this.#wires.set('to tunnel', new Wire(world.namespace, 'weft-vxlan'))
  }

  static async attach(world: World, programs: Programs): Promise<WiredNode> {
    const devices = { uplink: [world.uplink], pod: [...world.devices.values()], tunnel: [world.tunnel] }
    const links = await Promise.all(
      places.flatMap(([name, place, type]) =>
        devices[place].map(async (ifindex) => ({
          name,
          link: await Link.attachDevice(programs.program(name), type, ifindex, world.namespace),
        })),
      ),
    )
    return new WiredNode(world, programs, links)
  }

  /** As if nothing had ever been; with a tunnel between the nodes or without; with XDP at the uplink or without. */
  async reset({ isTunnelled, isEarly }: { isTunnelled: boolean; isEarly: boolean }): Promise<void> {
    for (const { name, link } of this.#links) link.update(this.#programs.program(name, isTunnelled))
    this.#early?.detach()
    this.#early?.[Symbol.dispose]()
    const { uplink: ifindex, namespace } = this.world
    const program = this.#programs.program('xdp_entry', isTunnelled)
    this.#early = isEarly ? await Link.attachDevice(program, 'xdpGeneric', ifindex, namespace) : undefined
    await this.world.route(isTunnelled)
    this.maps.reset()
    for (const wire of this.#wires.values()) while (wire.take() !== undefined);
  }

  setOffloads(offloads: 'on' | 'off'): void {
    const { namespace, far } = this.world
    for (const device of ['eth0', ...podDevices]) {
      namespace.setOffloads(device, offloads)
      far?.setOffloads(`${device}-far`, offloads)
    }
    namespace.setOffloads('weft-vxlan', offloads)
  }

  /** The packet as a frame on its way to where the hook is. A buffer of its own. */
  frameOf(hook: Hook, packet: Packet): Buffer {
    const pod = hook.from === 'pod' ? this.maps.cluster?.pods.get(hook.pod) : undefined
    const to = hook.from === 'pod' ? gateway : hook.from === 'uplink' ? parseMac(this.world.uplinkMac) : stranger
    const length = writeFrame(this.#buffer, packet, to, pod === undefined ? stranger : podMac(pod))
    return Buffer.from(this.#buffer.subarray(0, length))
  }

  /** Says whether there is a place for it. */
  canSend(hook: Hook): boolean {
    return hook.from === 'pod' || hook.from === 'host' ? this.placeOf(hook.pod) !== undefined : true
  }

  send(hook: Hook, frame: Buffer, left: Left | undefined): void {
    switch (hook.from) {
      case 'pod':
        this.#wire(this.placeOf(hook.pod) ?? '').send(frame, left)
        return
      case 'uplink':
        this.#wire('eth0').send(frame, left)
        return
      case 'host':
        this.#wire(`to ${this.placeOf(hook.pod)}`).send(frame, left)
        return
      case 'stack':
        this.#wire('to tunnel').send(frame, left)
        return
      case 'tunnel':
        this.#wire('eth0').send(this.#wrap(frame, hook.node, this.maps.claimed(hook.as)))
        return
      default:
        hook satisfies never
    }
  }

  #wrap(inner: Buffer, from: string, number: number): Buffer {
    const packet: Packet = {
      source: from,
      destination: this.maps.cluster?.nodes.get(this.world.node)?.addresses[0] ?? '',
      hops: 64,
      layer4: {
        kind: 'udp',
        sourcePort: 50_000,
        destinationPort: tunnelPort,
        payload: 8 + inner.length,
        unsummed: true,
      },
    }
    const length = writeFrame(this.#buffer, packet, parseMac(this.world.uplinkMac), stranger)
    const frame = Buffer.from(this.#buffer.subarray(0, length))
    const at = etherBytes + vxlan.headers - 8
    frame.writeUInt32BE(vxlan.hasNumber << 24, at)
    frame.writeUInt32BE(number << 8, at + 4)
    inner.copy(frame, at + 8)
    return frame
  }

  #wire(place: string): Wire {
    const wire = this.#wires.get(place)
    if (wire === undefined) throw new RangeError(`there is no wire ${JSON.stringify(place)}`)
    return wire
  }

  /** The device of a pod of this node, by its near end. */
  placeOf(pod: string): string | undefined {
    const address = this.maps.cluster?.pods.get(pod)?.addresses[0]
    const at = slots.findIndex((slot) => slot.addresses[0] === address && slot.node === this.world.node)
    return at < 0 ? undefined : `pod${at}`
  }

  /** What has arrived at the far ends since. */
  *taken(): Generator<{ readonly place: string; readonly taken: Taken }> {
    for (const place of ['eth0', ...podDevices])
      for (let taken = this.#wire(place).take(); taken !== undefined; taken = this.#wire(place).take())
        yield { place, taken }
  }

  get counts(): Counts {
    const sums: number[] = reasonTexts.map(() => 0)
    for (const { reason, packets } of readCounters(this.#programs.map(countersMap))) {
      const number = reasonTexts.indexOf(reason)
      sums[number] = (sums[number] ?? 0) + packets
    }
    const stack = this.world.namespace.within(
      () =>
        ip4Received(readFileSync('/proc/thread-self/net/snmp', 'utf8')) +
        ip6Received(readFileSync('/proc/thread-self/net/snmp6', 'utf8')),
    )
    return { reasons: sums, stack }
  }

  [Symbol.dispose](): void {
    this.#early?.[Symbol.dispose]()
    for (const { link } of this.#links) link[Symbol.dispose]()
    for (const wire of this.#wires.values()) wire[Symbol.dispose]()
  }
}

/** Of the world's first node, by the number of the slot. */
const podDevices = slots.flatMap((slot, i) => (slot.node === slots[0]?.node ? [`pod${i}`] : []))

/** The frame in the tunnel's packet; a text: what is wrong; undefined: it is no such packet. */
export function unwrapped({ frame, left }: Taken): Wrapped | string | undefined {
  const at = etherBytes + vxlan.headers
  const isOne =
    frame.readUInt16BE(12) === 0x0800 &&
    frame[etherBytes + 9] === 17 &&
    frame.readUInt16BE(etherBytes + 22) === tunnelPort
  if (!isOne) return undefined
  const number = frame.readUInt32BE(at - 4) >>> 8
  const inner = left === undefined ? undefined : { start: left.start - at, at: left.at - at }
  const whole = finished({ frame: frame.subarray(at), left: inner })
  return typeof whole === 'string' ? whole : { frame: whole, number, to: frame.readUInt32BE(etherBytes + 16) }
}

/** `Ip: … InReceives …`, and the numbers on the next line. */
function ip4Received(text: string): number {
  const [names, numbers] = text.split('\n').filter((line) => line.startsWith('Ip:'))
  const at = names?.split(' ').indexOf('InReceives') ?? -1
  return Number(numbers?.split(' ')[at])
}
const ip6Received = (text: string): number => Number(/Ip6InReceives\s+(\d+)/.exec(text)?.[1])
