import { formatAddress, parseAddress } from '#base/net/address.ts'
import type { Datapath, Service } from '#datapath/datapath.ts'
import type { Backend } from '#datapath/frontend.ts'
import { setNotReady } from '#datapath/maps/policy.ts'
import type { Hook, Judgement } from '#datapath/probe.ts'
import type { Names, Party } from '../flows/record.ts'
import type { Route } from '../local/local.ts'
import type { RuleName } from '../policy/policy.ts'
import { isLoopback } from '../services/host-ports.ts'
import {
  type AskedPacket,
  type AskedProtocol,
  type Ends,
  endsOf,
  firstFrame,
  protocolNumbers,
  sourcePort,
} from './packet.ts'

/** A policy, and the element of it that speaks. */
export type Because =
  | { readonly kind: 'not-isolated' }
  /** Isolated, and yet no policy is asked: a pod always reaches itself, and its own node always reaches it. */
  | { readonly kind: 'always' }
  | { readonly kind: 'rule'; readonly rule: RuleName }
  /** Isolated by these, each with the selector that takes the pod, and none of them has an element that allows it. */
  | { readonly kind: 'policies'; readonly policies: readonly RuleName[] }
  /** Nothing is allowed: what isolates it could not be written, or is not written yet. */
  | { readonly kind: 'closed' }

/** One hook's word. */
export interface Step {
  readonly node: string
  /** `connect` is the socket's: a Service's address is exchanged there. `from_overlay`: what comes by the tunnel. */
  readonly hook: Hook | 'connect' | 'from_overlay'
  readonly source: { readonly address: string; readonly party: Party; readonly identity: number }
  readonly destination: {
    readonly address: string
    readonly port: number
    readonly party: Party
    readonly identity: number
  }
  readonly verdict: Judgement['verdict'] | 'translated' | 'refused'
  /** The drop's, in the words of metrics and flows; empty where there is none. */
  readonly reason: string
  readonly egress?: Because
  readonly ingress?: Because
  /** Whose address and port were asked for. */
  readonly service?: { readonly namespace: string; readonly name: string }
  /** Where a Service leads to; what comes after is about one of these. */
  readonly backends?: readonly Backend[]
  /** A Gateway's: its engine on the node answers. */
  readonly isGateway?: true
  /** Between whom the packet goes on, where that is not between whom it came. */
  readonly goesOn?: Ends
}

export interface WhyOptions {
  readonly nodeName: string
  readonly datapath: Datapath
  readonly names: Names
  readonly rules: {
    rule(number: number): RuleName | undefined
    set(number: number): readonly RuleName[]
  }
  /** The uplink's number. */
  readonly uplinkIndex: number
  /** What comes from other nodes comes by the tunnel. */
  readonly isTunnelled?: boolean
  readonly judge: (hook: Hook, frame: Uint8Array, ifindex: number) => Judgement
}

/** `/v1/why`: what this node would do to the first packet of such a connection, hook by hook. Nothing is changed by asking. */
export const whyRoute =
  (options: WhyOptions): Route =>
  async (query) => {
    const asked = parseQuestion(query)
    const hook = query.get('hook') ?? 'from_container'
    if (hook !== 'from_container' && hook !== 'from_netdev' && hook !== 'to_container')
      throw new RangeError(`hook "${hook}": use from_container, to_container or from_netdev`)
    return { paths: explain(options, asked, hook) }
  }

/** Backends of one Service that are asked about: those of a Service are mostly alike. */
const pathsMax = 16

/**
 * The ways that such a packet can take here, each hook by hook: one, or where a Service is asked for one for each of its
 * backends, up to `pathsMax`. Pure but for `judge` and the maps that it reads. `to_container` is what the node's own processes
 * send: none of our programs has a say where that is to another node, and the way has no steps.
 */
export function explain(options: WhyOptions, asked: AskedPacket, hook: Hook): Step[][] {
  // Sockets of pods and of the node ask for Services before there is a packet; others' packets are exchanged one by one.
  const service = serviceAt(options, asked, hook)
  if (hook === 'from_netdev') return drawn(options, asked, service)
  const isNode = hook === 'to_container'
  if (service === undefined || service.toStack === true) {
    if (!isNode) return [[judge(options, asked, hook, service)]]
    if (service !== undefined) return [[connectStep(options, asked, service, undefined)]]
    return [options.datapath.addresses().has(asked.destination) ? [judge(options, asked, hook, undefined)] : []]
  }
  if (service.backends.length === 0) return [[connectStep(options, asked, service, undefined)]]
  return service.backends.slice(0, pathsMax).flatMap((backend) => {
    const step = connectStep(options, asked, service, backend)
    const next = { ...asked, destination: backend.address, port: backend.port }
    return explain(options, next, hook).map((path) => [step, ...path])
  })
}

/** Draws a backend as often as it takes to have seen them all; one that is missed then has had a chance of 1 in 3,000. */
function drawn(options: WhyOptions, asked: AskedPacket, service: Service | undefined): Step[][] {
  const first = judge(options, asked, 'from_netdev', service)
  const count = Math.min(service?.outside?.backends.length ?? 0, pathsMax)
  const found = new Map([[placeOf(first), first]])
  for (let i = 1; i < 8 * count && first.goesOn !== undefined && found.size < count; i++) {
    const step = judge(options, asked, 'from_netdev', service)
    found.set(placeOf(step), step)
  }
  return [...found].toSorted(([a], [b]) => (a < b ? -1 : 1)).map(([, step]) => [step])
}

const placeOf = ({ goesOn }: Step): string => (goesOn === undefined ? '' : `${goesOn.destination} ${goesOn.port}`)

/** The row of the Service that is asked for there, for those inside or for those outside. */
function serviceAt({ datapath }: WhyOptions, asked: AskedPacket, hook: Hook): Service | undefined {
  const { destination, port, protocol } = asked
  const isOutside = hook === 'from_netdev'
  // A node port is asked for at any address of a node, by its own processes at its loopback too; what comes by the uplink, at this node's.
  const isNode =
    (hook === 'to_container' && isLoopback(destination)) ||
    datapath
      .knownAddresses()
      .some(({ address, kind }) => address === destination && (kind === 'own' || (kind === 'node' && !isOutside)))
  const addresses = [destination, ...(isNode ? [destination.includes(':') ? '::' : '0.0.0.0'] : [])]
  // A pod's loopback is its own.
  if (hook === 'from_container' && isLoopback(destination)) return undefined
  return datapath
    .services()
    .find(
      ({ frontend: f, isOutsideOnly, outside, toStack }) =>
        addresses.includes(f.address) &&
        f.port === port &&
        f.protocol === protocol &&
        (isOutside ? outside !== undefined || toStack === true : !isOutsideOnly),
    )
}

function nameOf({ names }: WhyOptions, { frontend, number }: Service): Pick<Step, 'service'> {
  const { address, port, protocol } = frontend
  const named =
    names.service(address, port, protocolNumbers[protocol]) ??
    (number === undefined ? undefined : names.serviceNumbered(number))
  return named === undefined ? {} : { service: named }
}

function connectStep(options: WhyOptions, asked: AskedPacket, service: Service, backend: Backend | undefined): Step {
  const { names, nodeName } = options
  const { source, destination, port } = asked
  const common = {
    node: nodeName,
    hook: 'connect',
    source: { address: source, party: names.party(source, 0, Number.MAX_SAFE_INTEGER), identity: 0 },
    destination: { address: destination, port, party: {}, identity: 0 },
    ...nameOf(options, service),
  } as const
  if (service.toStack === true) return { ...common, verdict: 'stack', reason: '', isGateway: true }
  return {
    ...common,
    verdict: backend === undefined ? 'refused' : 'translated',
    reason: backend === undefined ? 'Service backend not found' : '',
    backends: service.backends,
    ...(backend === undefined
      ? {}
      : { goesOn: { source, sourcePort, destination: backend.address, port: backend.port } }),
  }
}

function judge(options: WhyOptions, asked: AskedPacket, hook: Hook, service: Service | undefined): Step {
  const { nodeName, datapath, names, uplinkIndex, isTunnelled = false } = options
  const { source, destination, port, protocol } = asked
  const local = datapath.addresses()
  const pod = hook === 'from_container' ? source : destination
  const ifindex = hook === 'from_netdev' ? uplinkIndex : local.get(pod)
  if (ifindex === undefined) throw new RangeError(`${pod} is no pod of ${nodeName}`)
  const found = options.judge(hook, firstFrame(asked), ifindex)
  // Policies were asked about the packet as it goes on: with a backend's address, which the program has drawn.
  const ends = endsOf(found.packet, protocol)
  const isExchanged =
    ends.source !== source || ends.destination !== destination || (protocol !== 'ICMP' && ends.port !== port)
  const now = Number.MAX_SAFE_INTEGER
  const sets = datapath.endpointPolicies()
  const egressSet = hook === 'from_container' ? (sets.get(source)?.egressSet ?? 0) : 0
  const ingressSet = sets.get(ends.destination)?.ingressSet ?? 0
  const isByTunnel = hook === 'from_netdev' && isTunnelled && isInside(datapath, source)
  return {
    node: nodeName,
    hook: isByTunnel ? 'from_overlay' : hook,
    source: { address: source, party: names.party(source, found.sourceIdentity, now), identity: found.sourceIdentity },
    destination: {
      address: destination,
      port,
      party: names.party(ends.destination, found.destinationIdentity, now),
      identity: found.destinationIdentity,
    },
    verdict: found.verdict,
    reason: found.verdict === 'dropped' ? found.reason : '',
    ...(service === undefined ? {} : nameOf(options, service)),
    ...(service === undefined || service.toStack === true ? {} : { backends: service.outside?.backends ?? [] }),
    ...(service?.toStack === true ? { isGateway: true as const } : {}),
    ...(isExchanged ? { goesOn: ends } : {}),
    ...because(options, found, egressSet, ingressSet, {
      egress: hook === 'from_container',
      ingress: local.has(ends.destination),
    }),
  }
}

/** Nodes speak to each other's pods by the tunnel, and so do pods. */
const isInside = (datapath: Datapath, address: string): boolean =>
  datapath.identities().has(address) && !datapath.addresses().has(address)

/** Which policies had a say, and which element of them spoke. */
function because(
  { rules }: WhyOptions,
  found: Judgement,
  egressSet: number,
  ingressSet: number,
  has: { readonly egress: boolean; readonly ingress: boolean },
): Pick<Step, 'egress' | 'ingress'> {
  const side = (set: number, number: number): Because => {
    if (set === 0) return { kind: 'not-isolated' }
    if (set === setNotReady) return { kind: 'closed' }
    if (found.set === set) return { kind: 'policies', policies: rules.set(set) }
    const rule = number === 0 ? undefined : rules.rule(number)
    return rule === undefined ? { kind: 'always' } : { kind: 'rule', rule }
  }
  // What was lost for another reason was judged by no policy, and what its egress refused by no ingress.
  if (found.verdict === 'dropped' && found.set === 0) return {}
  const egress = has.egress ? side(egressSet, found.egressRule) : undefined
  const ingress = has.ingress && egress?.kind !== 'policies' ? side(ingressSet, found.ingressRule) : undefined
  return { ...(egress === undefined ? {} : { egress }), ...(ingress === undefined ? {} : { ingress }) }
}

function parseQuestion(query: URLSearchParams): AskedPacket {
  const protocol = (query.get('protocol') ?? 'TCP').toUpperCase()
  if (!Object.hasOwn(protocolNumbers, protocol))
    throw new RangeError(`protocol "${protocol}": use TCP, UDP, SCTP or ICMP`)
  const port = Number(query.get('port') ?? 0)
  if (!Number.isInteger(port) || port < 0 || port > 65_535)
    throw new RangeError(`port "${query.get('port')}" is no number from 0 to 65535`)
  // As maps and frames say them: one address has many texts.
  const address = (name: string): string => {
    const text = query.get(name) ?? ''
    const known = parseAddress(text)
    return known === undefined ? text : formatAddress(known)
  }
  return {
    source: address('source'),
    destination: address('destination'),
    port,
    protocol: protocol as AskedProtocol,
  }
}
