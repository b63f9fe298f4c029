import { gatewayMac } from '#datapath/object.ts'
import { parseMac } from '#kernel/netlink/netlink.ts'
import { contains } from '../address.ts'
import { sum, writeFrame } from '../frame.ts'
import type { Hook, Identity, Outcome } from '../journey.ts'
import type { NodeModel } from '../node.ts'
import type { Packet } from '../packet.ts'
import { reasonName, reasons } from '../reasons.ts'
import { podCidrs } from '../scenario.ts'
import { ipv4Number, podMac } from './cluster-maps.ts'
import type { Answer, KernelNode } from './kernel-node.ts'

const verdicts = { drop: 2, stack: 0, pod: 7, out: 7, tunnel: 7, refusal: 7 } as const
const verdictNames = new Map<number, string>([
  [2, 'drop'],
  [0, 'stack'],
  [7, 'redirect'],
])
const gateway = parseMac(gatewayMac)
const fixedIdentities = { host: 1, world: 2, 'remote node': 3, 'unknown pod': 4 } as const

/** Room for the packet as it should have come out. */
const expected = Buffer.alloc(4096)

/** What the kernel did otherwise than the model; undefined: nothing. `length` is that of the packet that went in. */
export function differences(
  kernel: KernelNode,
  model: NodeModel,
  hook: Hook,
  outcome: Outcome,
  answer: Answer,
  length: number,
): string | undefined {
  // What the stack sends into the tunnel goes on as it was going.
  const verdict = hook.from === 'stack' && outcome.end === 'tunnel' ? 0 : verdicts[outcome.end]
  if (answer.verdict !== verdict)
    return `verdict ${verdictNames.get(answer.verdict) ?? answer.verdict} (${reasonName(answer.reason)}), the model says ${outcome.end} (${outcome.reason})`
  // What it leaves to the stack as it came, such a program does not tell of.
  const isSilent = (hook.from === 'uplink' || hook.from === 'tunnel') && outcome.end === 'stack'
  if (isSilent || (verdict === 0 && hook.from === 'stack'))
    return wrapDiffers(kernel, model, outcome, answer) ?? packetDiffers(kernel, model, hook, outcome, length)
  if (answer.reason !== reasons[outcome.reason])
    return `reason ${reasonName(answer.reason) ?? answer.reason}, the model says ${outcome.reason}`
  return (
    wrapDiffers(kernel, model, outcome, answer) ??
    rulesDiffer(kernel, outcome, answer) ??
    identityDiffers('source', outcome.source, answer.source, kernel, model) ??
    identityDiffers('destination', outcome.destination, answer.destination, kernel, model) ??
    (outcome.backend === undefined || kernel.isChosen(outcome.backend)
      ? undefined
      : `backend number ${answer.choice}, the model says ${outcome.backend.address}:${outcome.backend.port}`) ??
    packetDiffers(kernel, model, hook, outcome, length)
  )
}

/**
 * XDP does what tc would do with the packet, or nothing: what it sends on the model sends out, and what it could have sent on
 * (whole headers, a checksum that is made, a next hop that answers) it does.
 */
export function earlyDifference(
  kernel: KernelNode,
  model: NodeModel,
  packet: Packet,
  outcome: Outcome,
  did: ReturnType<KernelNode['runEarly']>,
): string | undefined {
  const { bench } = kernel
  if (did === 'sent on') {
    const to = outcome.packet
    if (outcome.end !== 'out' || to === undefined)
      return `XDP sends it on, the model says ${outcome.end} (${outcome.reason})`
    const size = writeFrame(
      expected,
      to,
      parseMac(kernel.world.nextHop(to.destination) ?? '00:00:00:00:00:00'),
      parseMac(kernel.world.uplinkMac),
    )
    return outDiffers(kernel, size)
  }
  if (did !== 'left') return `XDP: the packet is ${did}`
  const { layer4, fragment, options, extensions, lie, cut, short } = packet
  const isPlain =
    [fragment, options, extensions, lie, cut, short].every((odd) => odd === undefined) &&
    ((layer4.kind === 'udp' && layer4.unsummed === true) ||
      ((layer4.kind === 'tcp' || layer4.kind === 'udp') && !looksUnfinished(bench.packet, packet)))
  if (outcome.end !== 'out' || outcome.packet === undefined || !isPlain) return undefined
  if (kernel.world.nextHop(outcome.packet.destination) === undefined || model.cluster.nodes.size === 0) return undefined
  return 'XDP leaves to others what it could send on'
}

/** By chance a checksum is the sum of the pseudo header, which is what a checksum is that a device has still to make. */
function looksUnfinished(frame: Buffer, { source, layer4 }: Packet): boolean {
  const six = source.includes(':')
  const start = six ? 54 : 34
  const protocol = layer4.kind === 'tcp' ? 6 : 17
  const bytes = six ? frame.readUInt16BE(18) : frame.readUInt16BE(16) - 20
  const check = frame.readUInt16BE(start + (layer4.kind === 'tcp' ? 16 : 6))
  return check === sum(frame, six ? 22 : 26, start, protocol + bytes)
}

function wrapDiffers(
  kernel: KernelNode,
  model: NodeModel,
  { wrapped }: Outcome,
  { wrappedAs, wrappedTo }: Answer,
): string | undefined {
  if (wrapped === undefined) return undefined
  if (wrappedTo !== ipv4Number(wrapped.node)) return `wrapped to ${wrappedTo}, the model says ${wrapped.node}`
  return identityDiffers('wrapped', wrapped.as, wrappedAs, kernel, model)
}

function rulesDiffer(kernel: KernelNode, { rules, reason, marks }: Outcome, { rule }: Answer): string | undefined {
  // A denial names the set that denies; an error about what might have been is no rule's.
  if (reason !== 'forwarded' || marks.includes('error of an allowed connection')) return undefined
  if (rules.length === 0)
    return rule === 0 ? undefined : `rule ${kernel.maps.ruleText(rule) ?? rule}, the model says none`
  const text = kernel.maps.ruleText(rule)
  if (text !== undefined && rules.includes(text)) return undefined
  return `rule ${text ?? rule}, the model says ${rules.join(' or ')}`
}

function identityDiffers(
  side: string,
  identity: Identity | undefined,
  number: number,
  kernel: KernelNode,
  model: NodeModel,
): string | undefined {
  if (identity === undefined) return undefined
  const pod = typeof identity === 'string' ? undefined : model.cluster.pods.get(identity.pod)
  const wanted =
    typeof identity === 'string' ? fixedIdentities[identity] : pod === undefined ? 0 : kernel.maps.identityOf(pod)
  if (wanted === number) return undefined
  return `${side} identity ${number}, the model says ${wanted} (${typeof identity === 'string' ? identity : identity.pod})`
}

function packetDiffers(
  kernel: KernelNode,
  model: NodeModel,
  hook: Hook,
  outcome: Outcome,
  length: number,
): string | undefined {
  const { bench } = kernel
  const { end, packet } = outcome
  if (end === 'drop') return undefined
  if (packet === undefined)
    return bench.outLength === length && bench.packet.compare(bench.out, 0, length, 0, length) === 0
      ? undefined
      : 'the packet for the stack is another than what came'
  return outDiffers(kernel, writeExpected(kernel, model, hook, outcome, packet))
}

/** Between `expected` and what came out. */
function outDiffers({ bench }: KernelNode, size: number): string | undefined {
  if (size !== bench.outLength) return `${bench.outLength} bytes came out, the model says ${size}`
  if (expected.compare(bench.out, 0, size, 0, size) === 0) return undefined
  for (let i = 0; i < size; i++)
    if (expected[i] !== bench.out[i])
      return `byte ${i} of the packet is ${hex(bench.out[i])}, the model says ${hex(expected[i])}: ${bench.out.toString('hex', 0, size)} against ${expected.toString('hex', 0, size)}`
  return undefined
}

/** Into a pod: from its gateway to its MAC address. Out: the kernel writes the addresses later. */
function writeExpected(
  { bench, world }: KernelNode,
  model: NodeModel,
  hook: Hook,
  outcome: Outcome,
  packet: Packet,
): number {
  const came = bench.packet
  // Back to where it came from, the MAC addresses turned round.
  if (outcome.end === 'refusal') return writeFrame(expected, packet, came.subarray(6, 12), came.subarray(0, 6))
  // To a pod of a node on this link, past the queue; everything else gets its addresses on the way.
  const next = outcome.end === 'out' && isPods(packet.destination) ? world.nextHop(packet.destination) : undefined
  if (next !== undefined) return writeFrame(expected, packet, parseMac(next), parseMac(world.uplinkMac))
  // What the stack sends by the tunnel's device never has that of the device at the other end.
  const from = hook.from === 'stack' ? gateway : came.subarray(6, 12)
  if (outcome.end !== 'pod') return writeFrame(expected, packet, came.subarray(0, 6), from)
  const pod = model.cluster.pods.get(outcome.pod ?? '')
  return writeFrame(expected, packet, pod === undefined ? came.subarray(0, 6) : podMac(pod), gateway)
}

const isPods = (address: string): boolean => podCidrs.some((cidr) => contains(cidr, address))
const hex = (byte: number | undefined): string => (byte ?? 0).toString(16).padStart(2, '0')
