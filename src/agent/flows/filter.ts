import { parseSelector } from '#api/meta/selector.ts'
import { cidrContains, parseAddress, parseCidr } from '#base/net/address.ts'
import { reasons } from '#datapath/maps/counters.ts'
import { protocolName, reasonCode, verdictOf } from './present.ts'
import type { Flow, Party } from './record.ts'

/** What of the flows is wanted, in `hubble observe`'s words: values of one field are alternatives, fields must all hold. */
export interface FlowQuery {
  /** `namespace/` and the beginning of a name, or `namespace/`, or the beginning of a name in `default`. */
  readonly pod?: readonly string[]
  readonly fromPod?: readonly string[]
  readonly toPod?: readonly string[]
  readonly namespace?: readonly string[]
  readonly fromNamespace?: readonly string[]
  readonly toNamespace?: readonly string[]
  readonly label?: readonly string[]
  readonly fromLabel?: readonly string[]
  readonly toLabel?: readonly string[]
  readonly ip?: readonly string[]
  readonly fromIp?: readonly string[]
  readonly toIp?: readonly string[]
  readonly port?: readonly string[]
  readonly fromPort?: readonly string[]
  readonly toPort?: readonly string[]
  readonly identity?: readonly string[]
  readonly service?: readonly string[]
  readonly protocol?: readonly string[]
  readonly verdict?: readonly string[]
  readonly dropReasonDesc?: readonly string[]
  readonly trafficDirection?: readonly string[]
  readonly nodeName?: readonly string[]
}

type Test = (flow: Flow) => boolean
type Side = 'source' | 'destination'

const either = (test: (flow: Flow, side: Side) => boolean): Test => {
  return (flow) => test(flow, 'source') || test(flow, 'destination')
}
const on =
  (side: Side) =>
  (test: (flow: Flow, side: Side) => boolean): Test =>
  (flow) =>
    test(flow, side)

/** `namespace/name`, `namespace/`, or `name` in `default`. */
function splitName(wanted: string, what: string): readonly [string, string] {
  const [first = '', second, ...more] = wanted.split('/')
  if (first === '' || more.length > 0)
    throw new RangeError(`${what} "${wanted}": use NAME, NAMESPACE/NAME or NAMESPACE/`)
  return second === undefined ? ['default', first] : [first, second]
}

const isPod = (wanted: string) => {
  const [namespace, name] = splitName(wanted, 'pod')
  return (flow: Flow, side: Side): boolean => {
    const party: Party = flow[side]
    return party.namespace === namespace && party.pod !== undefined && party.pod.startsWith(name)
  }
}
const inNamespace = (wanted: string) => {
  if (!/^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/.test(wanted)) throw new RangeError(`"${wanted}" is no name of a namespace`)
  return (flow: Flow, side: Side): boolean => flow[side].namespace === wanted
}
const hasLabels = (wanted: string) => {
  const selector = parseSelector(wanted)
  return (flow: Flow, side: Side): boolean =>
    flow[side].namespace !== undefined && selector.matches(flow[side].labels ?? {})
}
const hasAddress = (wanted: string) => {
  const cidr = parseCidr(wanted.includes('/') ? wanted : `${wanted}/${wanted.includes(':') ? 128 : 32}`)
  if (cidr === undefined)
    throw new RangeError(`"${wanted}" is neither an address nor a network: use 10.0.0.1 or 10.0.0.0/8`)
  return (flow: Flow, side: Side): boolean => {
    const address = parseAddress(flow.event[side])
    return address !== undefined && address.family === cidr.family && cidrContains(cidr, address)
  }
}
const hasPort = (wanted: string) => {
  const port = numberFrom(wanted, 'port', 65_535)
  return (flow: Flow, side: Side): boolean =>
    (side === 'source' ? flow.event.sourcePort : flow.event.destinationPort) === port
}

const fields: { readonly [F in keyof FlowQuery]-?: (wanted: string) => Test } = {
  pod: (w) => either(isPod(w)),
  fromPod: (w) => on('source')(isPod(w)),
  toPod: (w) => on('destination')(isPod(w)),
  namespace: (w) => either(inNamespace(w)),
  fromNamespace: (w) => on('source')(inNamespace(w)),
  toNamespace: (w) => on('destination')(inNamespace(w)),
  label: (w) => either(hasLabels(w)),
  fromLabel: (w) => on('source')(hasLabels(w)),
  toLabel: (w) => on('destination')(hasLabels(w)),
  ip: (w) => either(hasAddress(w)),
  fromIp: (w) => on('source')(hasAddress(w)),
  toIp: (w) => on('destination')(hasAddress(w)),
  port: (w) => either(hasPort(w)),
  fromPort: (w) => on('source')(hasPort(w)),
  toPort: (w) => on('destination')(hasPort(w)),
  identity: (w) => {
    const identity = reserved.get(w.toLowerCase()) ?? numberFrom(w, 'identity', 0xffff_ffff)
    return ({ event }) => event.sourceIdentity === identity || event.destinationIdentity === identity
  },
  service: (w) => {
    const [namespace, name] = splitName(w, 'service')
    return ({ service }) => service?.namespace === namespace && service.name.startsWith(name)
  },
  protocol: (w) => {
    const wanted = oneOf('protocol', w.toLowerCase(), ['tcp', 'udp', 'sctp', 'icmp', 'icmpv4', 'icmpv6', 'http'])
    if (wanted === 'http') return ({ http }) => http !== undefined
    return ({ event }) => {
      const name = protocolName(event.protocol).toLowerCase()
      return wanted === 'icmp' ? name.startsWith('icmp') : name === wanted
    }
  },
  verdict: (w) => {
    const wanted = w.toUpperCase()
    if (wanted !== 'FORWARDED' && wanted !== 'DROPPED')
      throw new RangeError(`verdict "${w}" is never given: use FORWARDED or DROPPED`)
    return (flow) => verdictOf(flow) === wanted
  },
  dropReasonDesc: (w) => {
    const wanted = oneOf('reason', reasonCode(w), lossReasons.map(reasonCode))
    return (flow) => verdictOf(flow) === 'DROPPED' && reasonCode(flow.event.reason) === wanted
  },
  trafficDirection: (w) => {
    const wanted = oneOf('direction', w.toUpperCase(), ['INGRESS', 'EGRESS'])
    return ({ event }) => event.direction === wanted
  },
  nodeName:
    (w) =>
    ({ node }) =>
      node === w,
}

/** Reserved identities (bpf/abi/identity.h), as people write them; `reserved:` before them is Hubble's. */
const reserved: ReadonlyMap<string, number> = new Map(
  ['host', 'world', 'remote-node', 'unknown'].flatMap((name, i) => [
    [name, i + 1] as const,
    [`reserved:${name}`, i + 1] as const,
  ]),
)

/** Reasons for a drop; the first says that there was none. */
const lossReasons = reasons.slice(1)

function oneOf(what: string, given: string, known: readonly string[]): string {
  if (known.includes(given)) return given
  throw new RangeError(`${what} "${given}" is never seen: use one of ${known.join(', ')}`)
}

export const queryFields = Object.keys(fields) as (keyof FlowQuery)[]

/** One test out of a query. Throws a RangeError that names the value and what is possible. */
export function compileQuery(query: FlowQuery): Test {
  const tests = queryFields.flatMap((field) => {
    const values = query[field]
    if (values === undefined || values.length === 0) return []
    const alternatives = values.map((value) => fields[field](value))
    return [(flow: Flow): boolean => alternatives.some((test) => test(flow))]
  })
  return (flow) => tests.every((test) => test(flow))
}

function numberFrom(text: string, what: string, max: number): number {
  const number = /^\d+$/.test(text) ? Number(text) : Number.NaN
  if (!(number <= max)) throw new RangeError(`${what} "${text}" is no number from 0 to ${max}`)
  return number
}
