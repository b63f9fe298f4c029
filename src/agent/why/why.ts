import { formatAddress, parseAddress } from '#base/net/address.ts'
import type { Datapath, Service } from '#datapath/datapath.ts'
import type { Backend } from '#datapath/frontend.ts'
import type { Hook, Judgement } from '#datapath/probe.ts'
import type { Names, Party } from '../flows/record.ts'
import type { Route } from '../local/local.ts'
import type { RuleName } from '../policy/policy.ts'
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
  /** Isolated by these, and none of them has an element that allows it. */
  | { readonly kind: 'policies'; readonly policies: readonly { readonly namespace: string; readonly name: string }[] }

/** One hook's word. */
export interface Step {
  readonly node: string
  /** `connect` is the socket's: a Service's address is exchanged there. */
  readonly hook: Hook | 'connect'
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
    set(number: number): readonly { readonly namespace: string; readonly name: string }[]
  }
  /** The uplink's number. */
  readonly uplinkIndex: number
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
    return { steps: explain(options, asked, hook) }
  }

/**
 * Pure but for `judge` and the maps that it reads. `to_container` is what the node's own processes send: none of our programs
 * has a say where that is to another node, and the steps are none.
 */
export function explain(options: WhyOptions, asked: AskedPacket, hook: Hook): Step[] {
  // Sockets of pods and of the node ask for Services before there is a packet; others' packets are exchanged one by one.
  const service = serviceAt(options, asked, hook === 'from_netdev')
  if (hook === 'from_netdev') return [judge(options, asked, hook, service)]
  const isNode = hook === 'to_container'
  if (service === undefined || service.toStack === true) {
    if (!isNode) return [judge(options, asked, hook, service)]
    if (service !== undefined) return [connectStep(options, asked, service)]
    return options.datapath.addresses().has(asked.destination) ? [judge(options, asked, hook, undefined)] : []
  }
  const step = connectStep(options, asked, service)
  const [backend] = service.backends
  if (backend === undefined) return [step]
  const next = { ...asked, destination: backend.address, port: backend.port }
  return [step, ...explain(options, next, hook)]
}

/** The row of the Service that is asked for there, for those inside or for those `isOutside`. */
function serviceAt({ datapath }: WhyOptions, asked: AskedPacket, isOutside: boolean): Service | undefined {
  const { destination, port, protocol } = asked
  // A node port is asked for at any address of a node; what comes by the uplink, at this node's.
  const isNode = datapath
    .knownAddresses()
    .some(({ address, kind }) => address === destination && (kind === 'own' || (kind === 'node' && !isOutside)))
  const addresses = [destination, ...(isNode ? [destination.includes(':') ? '::' : '0.0.0.0'] : [])]
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

function connectStep(options: WhyOptions, asked: AskedPacket, service: Service): Step {
  const { names, nodeName } = options
  const { source, destination, port } = asked
  const [backend] = service.backends
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
  const { nodeName, datapath, names, uplinkIndex } = options
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
  return {
    node: nodeName,
    hook,
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
