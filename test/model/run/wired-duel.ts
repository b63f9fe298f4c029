import { setImmediate as turn } from 'node:timers/promises'
import { identities } from '#datapath/maps/identities.ts'
import { gatewayMac } from '#datapath/object.ts'
import { parseMac } from '#kernel/netlink/netlink.ts'
import { etherBytes, fillPayload, writeFrame } from '../frame.ts'
import type { Chooser, Hook, Identity, Outcome } from '../journey.ts'
import { beginMs } from '../narrate.ts'
import { NodeModel } from '../node.ts'
import { flag, type Packet, protocols } from '../packet.ts'
import { reasons } from '../reasons.ts'
import { changed, emptyCluster, type Step } from '../scenario.ts'
import { ownNode } from '../universe.ts'
import { chosenBy } from './chance.ts'
import { ipv4Number, podMac } from './cluster-maps.ts'
import { finished, layoutOf, makeSums, unmadeSum, wrongSum } from './received.ts'
import type { Left, Taken } from './wire.ts'
import { type Counts, unwrapped, type WiredNode } from './wired-node.ts'

/** What one packet must have led to. */
interface Expected {
  /** Device at whose far end it arrives. */
  readonly place: string
  readonly frame: Buffer
  readonly wrapped?: { readonly number: number; readonly to: number }
}

interface Arrived {
  readonly place: string
  readonly taken: Taken
}

const deadlineMs = 10_000
/** Shorter frames a card fills up (IEEE 802.3, without the check sequence). */
const shortest = 60
/** What is cut up is cut into pieces of so many bytes. */
const pieceBytes = 8

/** The model beside devices: packets go by veth pairs, arrive or do not, and are read by whoever receives them. */
export class WiredDuel {
  readonly model = new NodeModel(ownNode, emptyCluster)
  readonly #node: WiredNode
  readonly #offloads: 'on' | 'off'
  readonly #hasPieces: boolean
  readonly #chooser: Chooser
  readonly #start = performance.now()
  #waited = 0
  /** Frames that came too early to be looked at. */
  readonly #arrived: Arrived[] = []
  sent = 0
  /** Frames that were whole and right where they arrived. */
  received = 0
  /** Packets that a device cut up, or that went as one that was to be cut up. */
  cut = 0
  /** Packets that came out of the tunnel past the node's stack. */
  past = 0

  /** `isEarly`: XDP is at the uplink, where a veth pair takes nothing that is to be cut up. */
  constructor(node: WiredNode, offloads: 'on' | 'off', isEarly: boolean) {
    this.#node = node
    this.#offloads = offloads
    this.#hasPieces = !isEarly
    this.#chooser = chosenBy(node.maps, () => false)
  }

  get #now(): number {
    return beginMs + performance.now() - this.#start + this.#waited
  }

  /** What was different; undefined: nothing. */
  async play(step: Step): Promise<string | undefined> {
    const { model } = this
    switch (step.do) {
      case 'wait':
        // A kernel's clock nobody turns: what it remembers becomes older.
        this.#waited += step.ms
        this.#node.maps.age(step.ms)
        this.#node.maps.sweep(Number(process.hrtime.bigint() / 1_000_000n))
        model.sweep(this.#now)
        return undefined
      case 'send':
        return await this.#send(step.hook, step.packet)
      default: {
        const cluster = changed(model.cluster, step)
        this.#node.maps.change(step, cluster)
        model.change(cluster)
        return undefined
      }
    }
  }

  async #send(hook: Hook, packet: Packet): Promise<string | undefined> {
    this.sent++
    const came = this.#node.frameOf(hook, packet)
    const left = this.#leave(hook, packet, came)
    const isCut = left?.pieces !== undefined
    if (isCut) this.cut++
    // A device without offloads cuts before anybody looks; what it sends bare is filled up.
    const seen = isCut && this.#offloads === 'off' ? pieces(packet) : [packet]
    const frame =
      left === undefined && this.#offloads === 'off' && came.length < shortest
        ? Buffer.concat([came, Buffer.alloc(shortest - came.length, 0xa5)])
        : came
    const before = this.#node.counts
    this.#node.send(hook, frame, left)
    const lost = await this.#until(() => this.#isProcessed(hook, before, seen.length))
    if (lost) return 'the packet was seen by nobody'
    const outcomes = seen.map((one) => this.model.judge(hook, one, this.#now, this.#chooser))
    return await this.#compare(hook, came, outcomes, before)
  }

  /** What is left to the device, as sockets leave it: `frame` is then without its checksum. */
  #leave(hook: Hook, packet: Packet, frame: Buffer): Left | undefined {
    const { layer4, fragment, options, extensions, short, cut, lie } = packet
    const isOdd = [fragment, options, extensions, short, cut, lie].some((odd) => odd !== undefined)
    if (isOdd || (layer4.kind !== 'tcp' && layer4.kind !== 'udp') || hook.from === 'tunnel') return undefined
    if (layer4.kind === 'udp' && layer4.unsummed === true) return undefined
    const layout = layoutOf(frame)
    if (layout === undefined) return undefined
    const canCut = this.#hasPieces && (hook.from === 'pod' || hook.from === 'uplink')
    const isCut =
      canCut &&
      layer4.payload > pieceBytes &&
      layer4.payload <= 8 * pieceBytes &&
      (layer4.kind === 'udp' || (layer4.flags & (flag.syn | flag.rst)) === 0)
    // Bare ones that a card fills up have their sums.
    if (!isCut && this.#offloads === 'off' && frame.length < shortest) return undefined
    const at = layout.start + (layer4.kind === 'tcp' ? 16 : 6)
    frame.writeUInt16BE(unmadeSum(frame, layout), at)
    const kind = layer4.kind === 'udp' ? 'udp' : layout.six ? 'tcp6' : 'tcp4'
    const headers = layout.start + (layer4.kind === 'tcp' ? 20 : 8)
    return { start: layout.start, at, ...(isCut ? { pieces: { kind, bytes: pieceBytes, headers } } : {}) }
  }

  #gather(): void {
    for (const one of this.#node.taken()) if (!isOfTheLink(one.taken.frame)) this.#arrived.push(one)
  }

  /** Something has come of it: it was counted, arrived, or is the stack's. */
  #isProcessed(hook: Hook, before: Counts, packets: number): boolean {
    this.#gather()
    if (this.#arrived.length >= packets) return true
    const { reasons: counted, stack } = this.#node.counts
    const sum = (list: readonly number[]): number => list.reduce((a, b) => a + b, 0)
    // What comes out of the tunnel the stack has seen once, wrapped.
    return (
      sum(counted) - sum(before.reasons) >= packets ||
      stack - before.stack >= packets + (hook.from === 'tunnel' ? 1 : 0)
    )
  }

  /** Says whether the time ran out. */
  async #until(isThere: () => boolean): Promise<boolean> {
    const end = performance.now() + deadlineMs
    while (!isThere()) {
      if (performance.now() > end) return true
      await turn()
    }
    return false
  }

  async #compare(hook: Hook, came: Buffer, outcomes: readonly Outcome[], before: Counts): Promise<string | undefined> {
    const wanted = new Map<number, number>()
    const want = (reason: number): void => {
      if (reason !== reasons.forwarded) wanted.set(reason, (wanted.get(reason) ?? 0) + 1)
    }
    const expected: Expected[] = []
    // Wrapped, the stack sees it once; what goes on may have come past it.
    let stack = hook.from === 'tunnel' ? 1 : 0
    const mayPass = hook.from === 'tunnel' && outcomes.every(({ end }) => end === 'pod') ? 1 : 0
    for (const [i, outcome] of outcomes.entries()) {
      want(reasons[outcome.reason])
      const { back } = outcome
      if (back !== undefined && hook.from === 'host') stack++
      else if (back !== undefined)
        expected.push(...this.#expected(hook, came, { ...outcome, end: 'refusal', packet: back }, want))
      if (outcome.end === 'stack' && hook.from !== 'host') {
        stack++
        continue
      }
      for (const one of this.#expected(hook, came, outcome, want))
        expected.push({ ...one, frame: outcomes.length > 1 ? withData(one.frame, i * pieceBytes) : one.frame })
    }
    const what = await this.#arrive(expected)
    if (what !== undefined) return `${what}, the model says ${tell(outcomes)}`
    const late = await this.#until(() => {
      const now = this.#node.counts
      return now.stack - before.stack >= stack - mayPass && [...wanted].every(([r, n]) => gained(now, before, r) >= n)
    })
    const after = this.#node.counts
    const counted = after.reasons.flatMap((_, r) =>
      r !== reasons.forwarded && gained(after, before, r) !== (wanted.get(r) ?? 0) ? [r] : [],
    )
    const toStack = after.stack - before.stack
    if (mayPass > 0 && toStack < stack) this.past++
    if (late || counted.length > 0 || toStack > stack || toStack < stack - mayPass)
      return `counted ${counted.map((r) => `${gained(after, before, r)} of reason ${r}`).join()}, ${toStack} to the stack, the model says ${tell(outcomes)} and ${stack} to the stack`
    this.#gather()
    const rest = this.#arrived.splice(0).filter(({ taken }) => !isStacks(taken.frame))
    return rest.length === 0
      ? undefined
      : `at ${rest[0]?.place} came what nobody sent: ${rest[0] === undefined ? '' : hex(rest[0].taken.frame)}, the model says ${tell(outcomes)}`
  }

  /** Waits for so many frames at each place as are expected there; each must be one of them. */
  async #arrive(all: readonly Expected[]): Promise<string | undefined> {
    for (const place of new Set(all.map((one) => one.place))) {
      const wanted = all.filter((one) => one.place === place)
      const late = await this.#until(() => {
        this.#gather()
        return this.#heard(place, wanted).length >= wanted.length
      })
      if (late) return `${this.#heard(place, wanted).length} of ${wanted.length} frames came to ${place}`
      const got = this.#heard(place, wanted).slice(0, wanted.length)
      for (const one of got) {
        this.#arrived.splice(this.#arrived.indexOf(one), 1)
        const differ: string[] = []
        const at = wanted.findIndex((w) => {
          const what = arrivedDiffers(one.taken, w)
          if (what !== undefined) differ.push(what)
          return what === undefined
        })
        if (at < 0) return differ[0]
        wanted.splice(at, 1)
        this.received++
      }
    }
    return undefined
  }

  /** What has arrived there, but for what the node's own stack says of itself. */
  #heard(place: string, wanted: readonly Expected[]): Arrived[] {
    return this.#arrived.filter(
      (a) =>
        a.place === place && (!isStacks(a.taken.frame) || wanted.some((w) => arrivedDiffers(a.taken, w) === undefined)),
    )
  }

  #expected(hook: Hook, came: Buffer, outcome: Outcome, want: (reason: number) => void): Expected[] {
    const { end, packet, wrapped } = outcome
    const mac = (at: number): Buffer => came.subarray(at, at + 6)
    switch (end) {
      case 'drop':
        return []
      case 'stack': {
        // From the node to its pod it goes on as it is.
        const place = hook.from === 'host' ? this.#node.placeOf(hook.pod) : undefined
        if (place === undefined) return []
        return [{ place, frame: packet === undefined ? complete(came) : made(packet, mac(0), mac(6)) }]
      }
      case 'pod': {
        const pod = this.model.cluster.pods.get(outcome.pod ?? '')
        if (pod === undefined || packet === undefined) return []
        return [{ place: this.#node.placeOf(outcome.pod ?? '') ?? '', frame: made(packet, podMac(pod), gateway) }]
      }
      case 'out': {
        const next = packet === undefined ? undefined : this.#node.world.nextHop(packet.destination)
        if (packet === undefined || next === undefined) return []
        return [{ place: 'eth0', frame: made(packet, parseMac(next), parseMac(this.#node.world.uplinkMac)) }]
      }
      case 'tunnel': {
        if (packet === undefined || wrapped === undefined) return []
        const number = this.#numberOf(wrapped.as)
        const frame = made(packet, mac(0), hook.from === 'stack' ? gateway : mac(6))
        return [{ place: 'eth0', frame, wrapped: { number, to: ipv4Number(wrapped.node) } }]
      }
      case 'refusal': {
        if (packet === undefined) return []
        if (hook.from === 'tunnel') {
          // Back into the tunnel, like anything that the node says.
          const back = this.model.judge({ from: 'stack' }, packet, this.#now)
          want(reasons[back.reason])
          return this.#expected({ from: 'stack' }, came, back, want)
        }
        const place = hook.from === 'pod' ? this.#node.placeOf(hook.pod) : 'eth0'
        return [{ place: place ?? '', frame: made(packet, mac(6), mac(0)) }]
      }
      default:
        return end satisfies never
    }
  }

  #numberOf(as: Identity): number {
    const pod = typeof as === 'object' ? this.model.cluster.pods.get(as.pod) : undefined
    return pod === undefined ? identities.remoteNode : this.#node.maps.identityOf(pod)
  }
}

const gateway = parseMac(gatewayMac)
/** The first node's, as bytes. */
const ownAddresses = ['ac1e000b', 'fd000172003000000000000000000011']

/** Says the node's own stack something to somebody? Of what it says the model knows nothing. */
function isStacks(frame: Buffer): boolean {
  const layout = layoutOf(frame)
  if (layout === undefined) return true
  const { six, protocol, start } = layout
  const source = frame.subarray(etherBytes + (six ? 8 : 12), etherBytes + (six ? 24 : 16)).toString('hex')
  if (!ownAddresses.includes(source)) return false
  if (protocol === protocols.tcp) return ((frame[start + 13] ?? 0) & flag.rst) !== 0
  return protocol === protocols.icmp ? frame[start] !== 8 : protocol === protocols.icmp6 && (frame[start] ?? 0) < 128
}

/** Between a frame that arrived, and one that should. */
function arrivedDiffers(taken: Taken, { frame, wrapped }: Expected): string | undefined {
  const read = wrapped === undefined ? finished(taken) : unwrapped(taken)
  if (read === undefined || typeof read === 'string') return read ?? `it came bare: ${hex(taken.frame)}`
  if (wrapped !== undefined && 'number' in read && (read.number !== wrapped.number || read.to !== wrapped.to))
    return `wrapped as ${read.number} to ${read.to}, the model says ${wrapped.number} to ${wrapped.to}`
  const bytes = 'number' in read ? read.frame : read
  const wrong = wrongSum(bytes)
  return wrong === undefined ? frameDiffers(bytes, frame, wrapped !== undefined) : `${wrong}: ${hex(bytes)}`
}

/** Enough of a frame to see what it is. */
const hex = (frame: Buffer, end = frame.length): string =>
  `${frame.toString('hex', 0, Math.min(end, 160))}${end > 160 ? '…' : ''}`

const gained = (now: Counts, before: Counts, reason: number): number =>
  (now.reasons[reason] ?? 0) - (before.reasons[reason] ?? 0)

const tell = (outcomes: readonly Outcome[]): string =>
  outcomes.map(({ end, reason }) => (reason === 'forwarded' ? end : `${end} (${reason})`)).join()

function made(packet: Packet, to: Uint8Array, from: Uint8Array): Buffer {
  const out = Buffer.alloc(4096)
  return out.subarray(0, writeFrame(out, packet, to, from))
}

function complete(frame: Buffer): Buffer {
  const whole = Buffer.from(frame)
  makeSums(whole)
  return whole
}

/** As a device cuts it up: each with its own number, and the end only with the last. */
function pieces(packet: Packet): Packet[] {
  const { layer4 } = packet
  if (layer4.kind !== 'tcp' && layer4.kind !== 'udp') return [packet]
  const all: Packet[] = []
  for (let at = 0; at < layer4.payload; at += pieceBytes) {
    const payload = Math.min(pieceBytes, layer4.payload - at)
    const isLast = at + payload === layer4.payload
    if (layer4.kind === 'udp') all.push({ ...packet, layer4: { ...layer4, payload } })
    else {
      const flags = isLast ? layer4.flags : layer4.flags & ~(flag.fin | flag.push)
      all.push({ ...packet, layer4: { ...layer4, payload, flags, sequence: (layer4.sequence + at) >>> 0 } })
    }
  }
  return all
}

/** The piece that begins `at` bytes into what was cut up; one without data stays as it is. */
function withData(frame: Buffer, at: number): Buffer {
  const layout = layoutOf(frame)
  if (layout === undefined || (layout.protocol !== protocols.tcp && layout.protocol !== protocols.udp)) return frame
  const out = Buffer.from(frame)
  const from = layout.start + (layout.protocol === protocols.tcp ? 20 : 8)
  fillPayload(out, from, layout.end - from, at)
  makeSums(out)
  return out
}

/** Neighbours, and who asks for them: not of the scenario. */
function isOfTheLink(frame: Buffer): boolean {
  const layout = layoutOf(frame)
  if (frame.readUInt16BE(12) !== 0x86dd) return frame.readUInt16BE(12) !== 0x0800
  const type = layout?.protocol === protocols.icmp6 ? (frame[layout.start] ?? 0) : 0
  return (type >= 133 && type <= 137) || (type >= 130 && type <= 132) || type === 143
}

/**
 * Between what arrived and what should have. A frame may be filled up; pieces have numbers of their device's (RFC 6864); a
 * refusal quotes a datagram whose sum a device had still to make. In a tunnel MAC addresses mean nothing.
 */
function frameDiffers(got: Buffer, expected: Buffer, isWrapped: boolean): string | undefined {
  const layout = layoutOf(got)
  if (layout === undefined) return 'it is no IP packet'
  const wanted = Buffer.from(expected)
  adopt(wanted, got, etherBytes)
  const isError =
    layout.protocol === protocols.icmp
      ? got[layout.start] === 3
      : layout.protocol === protocols.icmp6 && got[layout.start] === 1
  const quoted = layout.start + 8
  if (isError && quoted + 28 <= wanted.length) {
    adopt(wanted, got, quoted)
    const inner = layoutOf(wanted, quoted)
    if (inner?.protocol === protocols.udp && inner.start + 8 <= wanted.length)
      got.copy(wanted, inner.start + 6, inner.start + 6, inner.start + 8)
  }
  if (isError) makeSums(wanted)
  const from = isWrapped ? etherBytes : 0
  if (layout.end !== wanted.length) return `${layout.end} bytes came, the model says ${wanted.length}`
  if (got.compare(wanted, from, wanted.length, from, layout.end) === 0) return undefined
  return `there came ${hex(got, layout.end)}, the model says ${hex(wanted)}`
}

/** The number of an IPv4 packet that is no fragment means nothing. */
function adopt(wanted: Buffer, got: Buffer, at: number): void {
  if ((wanted[at] ?? 0) >> 4 !== 4 || (wanted.readUInt16BE(at + 6) & 0x3fff) !== 0) return
  got.copy(wanted, at + 4, at + 4, at + 6)
  got.copy(wanted, at + 10, at + 10, at + 12)
}
