import type { BackendNeeds, BackendPort } from './backends.ts'
import type { Attachment, Route as EngineRoute, Rule } from './engine.ts'
import type { GatewayResult } from './gateways.ts'
import { servedHostnames } from './hostnames.ts'
import { ingressGateway } from './ingress.ts'
import { type ListenerResult, namespaceOf } from './listeners.ts'
import { gatewayGroup, type ParentRef, type Route } from './objects.ts'
import { grpcRule, httpRule } from './rules.ts'
import { Translation } from './translation.ts'
import { isFalse, isTrue, type Verdict } from './verdict.ts'

/** What a route is to one of the Gateways it names. */
export interface ParentResult {
  readonly parentRef: ParentRef
  /** `namespace/name` of the Gateway. */
  readonly gateway: string
  readonly verdicts: readonly Verdict[]
  /** Names of the listeners that have it, and where. */
  readonly attached: readonly { readonly listener: string; readonly hostnames: readonly string[] }[]
}

export interface RouteResult {
  readonly route: Route
  /** Only Gateways of ours: of others we say nothing. In the order of the references. */
  readonly parents: readonly ParentResult[]
  /** `namespace/name` of every Gateway it names, ours or not, there or not. */
  readonly gateways: ReadonlySet<string>
  /** `namespace/name` of every Service it names, there or not. */
  readonly services: ReadonlySet<string>
  readonly ports: ReadonlyMap<string, BackendPort>
  /** Those that can be done. */
  readonly rules: readonly Rule[]
  /** Undefined where no listener that can be served has it. */
  readonly engine: EngineRoute | undefined
}

export interface RouteNeeds extends BackendNeeds {
  /** Of ours, by `namespace/name`. */
  readonly gateway: (key: string) => GatewayResult | undefined
  /** Whether a namespace's labels are those that a listener asks for. */
  readonly selects: (gateway: GatewayResult, listener: ListenerResult, namespace: string) => boolean
}

/** Unique among routes of all kinds: `kind/namespace/name`. */
export const routeId = ({ kind, metadata }: Pick<Route, 'kind' | 'metadata'>): string =>
  `${kind}/${metadata.namespace}/${metadata.name}`

export const listenerId = (gateway: string, listener: string): string => `${gateway}/${listener}`

export function examineRoute(route: Route, needs: RouteNeeds): RouteResult {
  const { namespace } = route.metadata
  const into = new Translation({ kind: route.kind, namespace }, needs)
  const { rules, refusals, unresolved } = translateRules(route, into, needs)
  const refs = route.spec.parentRefs ?? []
  const parents: ParentResult[] = []
  const gateways = new Set<string>()
  for (const parentRef of refs) {
    const { group = gatewayGroup, kind = 'Gateway', name } = parentRef
    if (group !== gatewayGroup || kind !== 'Gateway') continue
    const key = route.kind === 'Ingress' ? ingressGateway : `${namespaceOf(parentRef, namespace)}/${name}`
    gateways.add(key)
    const gateway = needs.gateway(key)
    if (gateway === undefined) continue
    const attachment = attach(route, parentRef, gateway, needs)
    const works = rules.length > 0 || refusals.length === 0
    parents.push({
      parentRef,
      gateway: key,
      verdicts: verdictsOf(attachment.accepted, refusals, works, unresolved),
      attached: works ? attachment.attached : [],
    })
  }
  return {
    route,
    parents,
    gateways,
    services: into.services,
    ports: into.ports,
    rules,
    engine: engineRoute(route, parents, rules, needs),
  }
}

/** The route as it is without these listeners, by id: another kind of route has them (conflicts.ts). */
export function withoutListeners(result: RouteResult, lost: ReadonlySet<string>, needs: RouteNeeds): RouteResult {
  if (lost.size === 0) return result
  const parents = result.parents.map((parent): ParentResult => {
    const attached = parent.attached.filter(({ listener }) => !lost.has(listenerId(parent.gateway, listener)))
    if (attached.length > 0 || parent.attached.length === 0) return { ...parent, attached }
    const message = 'an older route of another kind has these hostnames on the same listeners'
    const others = parent.verdicts.filter(({ type }) => type === 'ResolvedRefs')
    return { ...parent, attached, verdicts: [isFalse('Accepted', 'Conflicted', message), ...others] }
  })
  return { ...result, parents, engine: engineRoute(result.route, parents, result.rules, needs) }
}

interface Refusal {
  readonly rule: string
  readonly reason: string
  readonly message: string
}

/** Every rule by itself: one that cannot be done is left out, and what else the route says goes on. */
function translateRules(route: Route, into: Translation, needs: BackendNeeds) {
  const rules: Rule[] = []
  const refusals: Refusal[] = []
  let unresolved: Verdict | undefined
  const one = (index: number, name: string | undefined, translate: (id: string, own: Translation) => Rule): void => {
    const own = new Translation({ kind: route.kind, namespace: route.metadata.namespace }, needs)
    const rule = translate(`${routeId(route)}/${index}`, own)
    for (const service of own.services) into.services.add(service)
    unresolved ??= own.unresolved
    if (own.refusal !== undefined) {
      refusals.push({ rule: name ?? `spec.rules[${index}]`, ...own.refusal })
      return
    }
    for (const [id, port] of own.ports) into.ports.set(id, port)
    rules.push(rule)
  }
  if (route.kind === 'GRPCRoute') {
    for (const [i, rule] of (route.spec.rules ?? []).entries()) one(i, rule.name, (id, own) => grpcRule(id, rule, own))
  } else {
    for (const [i, rule] of (route.spec.rules ?? []).entries()) one(i, rule.name, (id, own) => httpRule(id, rule, own))
  }
  return { rules, refusals, unresolved }
}

function verdictsOf(
  accepted: Verdict,
  refusals: readonly Refusal[],
  works: boolean,
  unresolved: Verdict | undefined,
): Verdict[] {
  const [first] = refusals
  const words = refusals.map(({ rule, message }) => `${rule}: ${message}`).join('; ')
  const isAccepted = accepted.status === 'True'
  return [
    isAccepted && !works && first !== undefined ? isFalse('Accepted', first.reason, words) : accepted,
    unresolved ?? isTrue('ResolvedRefs', 'ResolvedRefs'),
    ...(isAccepted && works && first !== undefined
      ? // The prefix is the specification's (RouteConditionPartiallyInvalid).
        [isTrue('PartiallyInvalid', 'UnsupportedValue', `Dropped Rule(s): ${words}`)]
      : []),
  ]
}

const kindOf = ({ kind }: Route): string => (kind === 'Ingress' ? 'HTTPRoute' : kind)

/** Which listeners of the Gateway take the route, or the first reason why none does. */
function attach(
  route: Route,
  { sectionName, port }: ParentRef,
  gateway: GatewayResult,
  needs: RouteNeeds,
): { readonly accepted: Verdict; readonly attached: ParentResult['attached'] } {
  const none = (reason: string, message: string) => ({ accepted: isFalse('Accepted', reason, message), attached: [] })
  const named = gateway.listeners.filter(
    ({ listener }) =>
      (sectionName === undefined || listener.name === sectionName) && (port === undefined || listener.port === port),
  )
  if (named.length === 0) return none('NoMatchingParent', 'no listener has this section name and port')
  const allowing = named.filter(
    (listener) =>
      listener.accepted &&
      listener.kinds.some(({ kind }) => kind === kindOf(route)) &&
      needs.selects(gateway, listener, route.metadata.namespace),
  )
  if (allowing.length === 0)
    return none('NotAllowedByListeners', `no listener takes a ${route.kind} of namespace ${route.metadata.namespace}`)
  const attached = allowing.flatMap(({ listener }) => {
    const hostnames = servedHostnames(listener.hostname, route.spec.hostnames)
    return hostnames.length === 0 ? [] : [{ listener: listener.name, hostnames }]
  })
  if (attached.length === 0)
    return none('NoMatchingListenerHostname', 'no listener has a hostname in common with spec.hostnames')
  return { accepted: isTrue('Accepted', 'Accepted'), attached }
}

function engineRoute(
  route: Route,
  parents: readonly ParentResult[],
  rules: readonly Rule[],
  needs: RouteNeeds,
): EngineRoute | undefined {
  const byListener = new Map<string, Set<string>>()
  for (const { gateway, attached } of parents) {
    const result = needs.gateway(gateway)
    if (result?.accepted.status !== 'True') continue
    for (const { listener, hostnames } of attached) {
      if (result.listeners.find((l) => l.listener.name === listener)?.servable !== true) continue
      const id = listenerId(gateway, listener)
      const present = byListener.get(id) ?? new Set<string>()
      for (const hostname of hostnames) present.add(hostname)
      byListener.set(id, present)
    }
  }
  if (byListener.size === 0 || rules.length === 0) return undefined
  const { creationTimestamp, namespace, name } = route.metadata
  return {
    id: routeId(route),
    kind: route.kind === 'GRPCRoute' ? 'GRPC' : 'HTTP',
    age: `${creationTimestamp} ${namespace}/${name}`,
    attachments: [...byListener].map(([listener, hostnames]): Attachment => ({ listener, hostnames: [...hostnames] })),
    rules,
  }
}
