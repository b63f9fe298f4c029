import { type Cidr, parseCidr } from '#base/net/address.ts'
import type { AttachType } from '#kernel/bpf/program.ts'
import type { ObjectName } from './compile.ts'
import { addressSize, encodeAddress } from './maps/address.ts'

/** Where a program goes. */
export type Place = 'endpoint' | 'uplink' | 'overlay' | 'xdp' | 'egress' | 'cgroup'

/** A program, and where it is attached. */
export interface ProgramSpec {
  readonly object: ObjectName
  /** The function in the object. */
  readonly name: string
  readonly place: Place
  readonly hook: AttachType
}

const sock = (name: AttachType): ProgramSpec => ({ object: 'sock', name, place: 'cgroup', hook: name })

/** Every program and its hook, in the order in which they are attached: Services before anything can ask for them. */
export const programs: readonly ProgramSpec[] = [
  ...(['connect4', 'connect6', 'sendmsg4', 'sendmsg6'] as const).map(sock),
  ...(['recvmsg4', 'recvmsg6', 'getpeername4', 'getpeername6'] as const).map(sock),
  ...(['post_bind4', 'post_bind6'] as const).map(sock),
  // Only while a process of the node serves somebody outside.
  { object: 'to_netdev', name: 'to_netdev', place: 'egress', hook: 'tcxEgress' },
  // Only where it is asked for; the mode is chosen then.
  { object: 'xdp_entry', name: 'xdp_entry', place: 'xdp', hook: 'xdpNative' },
  { object: 'from_netdev', name: 'from_netdev', place: 'uplink', hook: 'tcxIngress' },
  { object: 'overlay', name: 'to_overlay', place: 'overlay', hook: 'tcxEgress' },
  { object: 'overlay', name: 'from_overlay', place: 'overlay', hook: 'tcxIngress' },
  { object: 'to_container', name: 'to_container', place: 'endpoint', hook: 'tcxEgress' },
  { object: 'from_container', name: 'from_container', place: 'endpoint', hook: 'tcxIngress' },
]

/** Programs that hang nowhere: the agent runs them. */
export const tools: readonly Pick<ProgramSpec, 'object' | 'name'>[] = [
  { object: 'sweep', name: 'sweep' },
  { object: 'sweep_translations', name: 'sweep_translations' },
  { object: 'sweep', name: 'take_flows' },
  { object: 'sweep_translations', name: 'take_translations' },
]

/** The kernel counts ticks from five minutes before the counter's lower half runs over (INITIAL_JIFFIES). */
const firstTick = (tickNanoseconds: number): number => 2 ** 32 - 300 * Math.round(1e9 / tickNanoseconds)

/** Of flows_v1. */
export const flowsMax = 131_072
/** Of translations_v1, which has two entries for each. */
const pairsMax = 131_072

const u64 = (value: bigint): Buffer => {
  const out = Buffer.alloc(8)
  out.writeBigUInt64LE(value)
  return out
}

const u32 = (value: number): Buffer => {
  const out = Buffer.alloc(4)
  out.writeUInt32LE(value)
  return out
}

/** bpf/config.h, as the node knows it. */
export interface DatapathConfig {
  readonly serviceCidrs: readonly string[]
  /** Of all pods of the cluster. */
  readonly podCidrs?: readonly string[]
  /** Established flows that one pod may hold; absent: half of what there is room for. */
  readonly flowShare?: number
  /** Unanswered flows that wait among the established ones; absent: an eighth of what there is room for. */
  readonly unansweredMax?: number
  /** Between two ticks of the kernel; absent: programs ask for the time, which is slower. */
  readonly tickNanoseconds?: number
  /** False: connections and drops are told to nobody. Default true. */
  readonly records?: boolean
  /** Device by which packets go to other nodes' pods, wrapped; absent: they go as they are. */
  readonly tunnelIndex?: number
  readonly gatewayMac: string
  readonly uplinkMac: string
  /** The uplink, where it is one end of a veth pair whose other end is another namespace's. */
  readonly cableIndex?: number
  /** Cookie of the node's network namespace: its sockets do not listen on node ports. */
  readonly nodeCookie?: bigint
  /** This node's own on its uplink, one of each family at most: what pods are known by outside. */
  readonly nodeAddresses?: readonly string[]
}

/** The MAC address of every pod's gateway. Locally administered; the other five bytes say who. */
export const gatewayMac = '02:57:65:66:74:01'
/** What pods' default routes go to. */
export const gateway4 = '169.254.1.1'
export const gateway6 = 'fe80::1'

/** rtm_protocol of our routes, so that they are found again: 'W'. */
export const routeProtocol = 0x57

/** The globals of config.h as bytes, for one object: an object has those that its program reads. */
export function encodeConfig(config: DatapathConfig): ReadonlyMap<string, Buffer> {
  const cidrs = config.serviceCidrs.map(parseNetwork)
  const pods = (config.podCidrs ?? []).map(parseNetwork)
  return new Map([
    ['cfg_service_network4', encodeNetwork(cidrs.find((c) => c.family === 4))],
    ['cfg_service_network6', encodeNetwork(cidrs.find((c) => c.family === 6))],
    ['cfg_pod_network4', encodeNetwork(pods.find((c) => c.family === 4))],
    ['cfg_pod_network6', encodeNetwork(pods.find((c) => c.family === 6))],
    ['cfg_node_cookie', u64(config.nodeCookie ?? 0n)],
    ['cfg_node_address4', encodeOwn(config.nodeAddresses?.find((a) => !a.includes(':')))],
    ['cfg_node_address6', encodeOwn(config.nodeAddresses?.find((a) => a.includes(':')))],
    ['cfg_tick_ns', u32(config.tickNanoseconds ?? 0)],
    ['cfg_first_tick', u32(config.tickNanoseconds === undefined ? 0 : firstTick(config.tickNanoseconds))],
    ['cfg_records', u32(config.records === false ? 0 : 1)],
    ['cfg_tunnel', u32(config.tunnelIndex === undefined ? 0 : 1)],
    ['cfg_tunnel_ifindex', u32(config.tunnelIndex ?? 0)],
    ['cfg_unanswered_max', u32(config.unansweredMax ?? flowsMax / 8)],
    ['cfg_flow_share', u32(config.flowShare ?? flowsMax / 2)],
    ['cfg_pair_share', u32(pairsMax / 2)],
    ['cfg_gateway_mac', Buffer.from(config.gatewayMac.replaceAll(':', ''), 'hex')],
    ['cfg_cable_ifindex', u32(config.cableIndex ?? 0)],
    ['cfg_uplink_mac', Buffer.from(config.uplinkMac.replaceAll(':', ''), 'hex')],
  ])
}

const encodeOwn = (address: string | undefined): Buffer =>
  address === undefined ? Buffer.alloc(addressSize) : encodeAddress(address)

function parseNetwork(text: string): Cidr {
  const cidr = parseCidr(text)
  if (cidr === undefined) throw new RangeError(`${JSON.stringify(text)} is not a network: use 10.96.0.0/16`)
  return cidr
}

/** struct network: base and mask. All zero for none. */
function encodeNetwork(cidr: Cidr | undefined): Buffer {
  if (cidr === undefined) return Buffer.alloc(32)
  const bits = cidr.family === 4 ? 96 + cidr.prefix : cidr.prefix
  const mask = ((1n << 128n) - 1n) ^ ((1n << BigInt(128 - bits)) - 1n)
  return Buffer.concat([
    encodeAddress({ family: cidr.family, value: cidr.base }),
    Buffer.from(mask.toString(16).padStart(32, '0'), 'hex'),
  ])
}
