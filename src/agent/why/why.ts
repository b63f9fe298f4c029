import type { Datapath } from '#datapath/datapath.ts'
import type { Backend } from '#datapath/frontend.ts'
import type { Hook, Judgement } from '#datapath/probe.ts'
import type { Names, Party } from '../flows/record.ts'
import type { Route } from '../local/local.ts'
import type { RuleName } from '../policy/policy.ts'
import { type AskedPacket, type AskedProtocol, firstFrame, protocolNumbers } from './packet.ts'

/** A policy, and the element of it that speaks. */
export type Because =
  | { readonly kind: 'not-isolated' }
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
  /** Where a Service leads to; the step after it is about one of these. */
  readonly service?: { readonly namespace: string; readonly name: string }
  readonly backends?: readonly Backend[]
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

/** Pure but for `judge` and the maps that it reads. */
export function explain(options: WhyOptions, asked: AskedPacket, hook: Hook): Step[] {
  // Sockets of pods and of the node ask for Services before there is a packet.
  const translated = hook === 'from_netdev' ? undefined : translate(options, asked)
  if (translated === undefined) return [judge(options, asked, hook)]
  const { step, backend } = translated
  if (backend === undefined) return [step]
  return [step, judge(options, { ...asked, destination: backend.address, port: backend.port }, hook)]
}

function translate(
  { datapath, names, nodeName }: WhyOptions,
  asked: AskedPacket,
): { readonly step: Step; readonly backend: Backend | undefined } | undefined {
  const { source, destination, port, protocol } = asked
  // A node port is asked for at any address of a node.
  const isNode = datapath
    .knownAddresses()
    .some(({ address, kind }) => address === destination && (kind === 'own' || kind === 'node'))
  const addresses = [destination, ...(isNode ? [destination.includes(':') ? '::' : '0.0.0.0'] : [])]
  const service = datapath
    .services()
    .find(
      ({ frontend: f, isOutsideOnly }) =>
        addresses.includes(f.address) && f.port === port && f.protocol === protocol && !isOutsideOnly,
    )
  if (service === undefined || service.toStack === true) return undefined
  const named = names.service(destination, port, protocolNumbers[protocol])
  const [backend] = service.backends
  const now = Number.MAX_SAFE_INTEGER
  return {
    backend,
    step: {
      node: nodeName,
      hook: 'connect',
      source: { address: source, party: names.party(source, 0, now), identity: 0 },
      destination: { address: destination, port, party: {}, identity: 0 },
      verdict: backend === undefined ? 'refused' : 'translated',
      reason: backend === undefined ? 'Service backend not found' : '',
      ...(named === undefined ? {} : { service: named }),
      backends: service.backends,
    },
  }
}

function judge(options: WhyOptions, asked: AskedPacket, hook: Hook): Step {
  const { nodeName, datapath, names, uplinkIndex } = options
  const { source, destination, port } = asked
  const local = datapath.addresses()
  const pod = hook === 'from_container' ? source : destination
  const ifindex = hook === 'from_netdev' ? uplinkIndex : local.get(pod)
  if (ifindex === undefined) throw new RangeError(`${pod} is no pod of ${nodeName}`)
  const found = options.judge(hook, firstFrame(asked), ifindex)
  const now = Number.MAX_SAFE_INTEGER
  const sets = datapath.endpointPolicies()
  const egressSet = hook === 'from_container' ? (sets.get(source)?.egressSet ?? 0) : 0
  const ingressSet = sets.get(destination)?.ingressSet ?? 0
  return {
    node: nodeName,
    hook,
    source: { address: source, party: names.party(source, found.sourceIdentity, now), identity: found.sourceIdentity },
    destination: {
      address: destination,
      port,
      party: names.party(destination, found.destinationIdentity, now),
      identity: found.destinationIdentity,
    },
    verdict: found.verdict,
    reason: found.verdict === 'dropped' ? found.reason : '',
    ...because(options, found, egressSet, ingressSet, {
      egress: hook === 'from_container',
      ingress: local.has(destination),
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
    const rule = rules.rule(number)
    // The node itself is always let in.
    return rule === undefined ? { kind: 'not-isolated' } : { kind: 'rule', rule }
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
  return {
    source: query.get('source') ?? '',
    destination: query.get('destination') ?? '',
    port,
    protocol: protocol as AskedProtocol,
  }
}
