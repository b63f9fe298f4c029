import { isDeepStrictEqual } from 'node:util'
import type { Node } from '#api/gen/core-v1.ts'
import { isConditionTrue } from '#api/meta/conditions.ts'
import { type Acknowledgement, acknowledgement, parseAcknowledgement } from '#gateway/acknowledge.ts'
import { supportedFeatures } from '#gateway/features.ts'
import { acceptedClass, controllerName, type GatewayResult } from '#gateway/gateways.ts'
import type { ListenerResult } from '#gateway/listeners.ts'
import type {
  Gateway,
  GatewayClass,
  GatewayStatus,
  ListenerStatus,
  ParentRef,
  Route,
  RouteParentStatus,
  RouteStatus,
} from '#gateway/objects.ts'
import { listenerId, type RouteResult } from '#gateway/routes.ts'
import { conditionsOf, isFalse, isTrue, type Verdict } from '#gateway/verdict.ts'

/** A node that traffic can come to, and what it says of its engine. */
export interface NodeAcknowledgement {
  readonly node: string
  readonly said: Acknowledgement | undefined
}

/** What a version of a Node says is read once: it is asked for every route. */
const read = new WeakMap<Node, NodeAcknowledgement>()

/** Nodes that count: a node that is lost or going serves nobody, and must not hold up the others. */
export function acknowledgementsOf(nodes: Iterable<Node>): NodeAcknowledgement[] {
  const found: NodeAcknowledgement[] = []
  for (const node of nodes) {
    const { metadata, status } = node
    if (metadata.deletionTimestamp !== undefined || !isConditionTrue(status.conditions, 'Ready')) continue
    const said = read.get(node) ?? {
      node: metadata.name,
      said: parseAcknowledgement(metadata.annotations?.[acknowledgement]),
    }
    read.set(node, said)
    found.push(said)
  }
  return found
}

export function classStatus(gatewayClass: GatewayClass, nowText: string): GatewayClass['status'] {
  const { metadata, status } = gatewayClass
  return {
    ...status,
    conditions: conditionsOf([acceptedClass(gatewayClass)], metadata.generation ?? 0, status?.conditions, nowText),
    supportedFeatures: supportedFeatures.map((name) => ({ name })),
  }
}

export interface GatewayView {
  /** As it is now; `result` may be of an earlier version that differs in status alone. */
  readonly gateway: Gateway
  readonly result: GatewayResult
  readonly nodes: readonly NodeAcknowledgement[]
  readonly attachedRoutes: (listener: string) => number
}

export function gatewayStatus({ gateway, result, nodes, attachedRoutes }: GatewayView, nowText: string): GatewayStatus {
  const generation = gateway.metadata.generation ?? 0
  const programmed = programmedOf(result, nodes)
  const verdicts = [result.accepted, programmed, result.resolvedRefs]
  const key = `${gateway.metadata.namespace}/${gateway.metadata.name}`
  const { attachedListenerSets: _, ...rest } = gateway.status ?? {}
  return {
    ...rest,
    addresses: result.addresses.map((value) => ({ type: 'IPAddress', value })),
    conditions: conditionsOf(verdicts, generation, gateway.status?.conditions, nowText),
    listeners: result.listeners.map((listener): ListenerStatus => {
      const { name } = listener.listener
      const old = gateway.status?.listeners?.find((l) => l.name === name)
      const own = [...listener.verdicts, listenerProgrammed(listener, listenerId(key, name), programmed, nodes)]
      return {
        name,
        supportedKinds: [...listener.kinds],
        attachedRoutes: attachedRoutes(name),
        conditions: conditionsOf(own, generation, old?.conditions, nowText),
      }
    }),
  }
}

/** Traffic comes through: an address, something to serve, and every node's engine has exactly this. */
function programmedOf(result: GatewayResult, nodes: readonly NodeAcknowledgement[]): Verdict {
  const no = (reason: string, message: string): Verdict => isFalse('Programmed', reason, message)
  const { accepted, wantedAddresses, addresses, gateway, revision } = result
  if (accepted.status === 'False') return no('Invalid', 'the Gateway is not accepted')
  const missing = wantedAddresses.filter((address) => !addresses.includes(address))
  if (missing.length > 0) return no('AddressNotUsable', `spec.addresses: cannot be had: ${missing.join(', ')}`)
  if (!result.listeners.some(({ servable }) => servable)) return no('Invalid', 'no listener can be served')
  if (addresses.length === 0) return no('AddressNotAssigned', 'no address has been assigned yet')
  if (nodes.length === 0) return no('Pending', 'no node is ready to serve it')
  const waiting = nodes.filter(({ said }) => said?.gateways.get(gateway.metadata.uid) !== revision)
  if (waiting.length === 0) return isTrue('Programmed', 'Programmed')
  return no('Pending', `waiting for the engine of ${waiting.map(({ node }) => node).join(', ')}`)
}

function listenerProgrammed(
  { servable, accepted }: ListenerResult,
  id: string,
  gateway: Verdict,
  nodes: readonly NodeAcknowledgement[],
): Verdict {
  if (!servable)
    return isFalse(
      'Programmed',
      'Invalid',
      accepted ? 'the listener has no certificate' : 'the listener is not accepted',
    )
  const faults = nodes.flatMap(({ node, said }) => {
    const words = said?.faults.get(id)
    return words === undefined ? [] : [`${node}: ${words}`]
  })
  if (faults.length > 0) return isFalse('Programmed', 'Invalid', faults.join('; '))
  if (gateway.status === 'True') return isTrue('Programmed', 'Programmed')
  return isFalse('Programmed', 'Pending', gateway.message)
}

/** Our parents in place of what we said before; what other controllers say stays. */
export function routeStatus(
  route: Route,
  result: RouteResult | undefined,
  nodes: readonly NodeAcknowledgement[],
  nowText: string,
): RouteStatus {
  const old = route.status?.parents ?? []
  const generation = route.metadata.generation ?? 0
  const faults = faultsOf(result, nodes)
  const ours = (result?.parents ?? []).map(({ parentRef, verdicts }): RouteParentStatus => {
    const before = old.find((p) => p.controllerName === controllerName && sameRef(p.parentRef, parentRef))
    const all = withFaults(verdicts, faults)
    return { parentRef, controllerName, conditions: conditionsOf(all, generation, before?.conditions, nowText) }
  })
  return { ...route.status, parents: [...old.filter((p) => p.controllerName !== controllerName), ...ours] }
}

/** What engines could not do with rules of the route. */
function faultsOf(result: RouteResult | undefined, nodes: readonly NodeAcknowledgement[]): string[] {
  const rules = result?.engine?.rules ?? []
  return rules.flatMap(({ id }) =>
    nodes.flatMap(({ node, said }) => {
      const words = said?.faults.get(id)
      return words === undefined ? [] : [`${node}: ${id}: ${words}`]
    }),
  )
}

function withFaults(verdicts: readonly Verdict[], faults: readonly string[]): readonly Verdict[] {
  const accepted = verdicts.some(({ type, status }) => type === 'Accepted' && status === 'True')
  if (faults.length === 0 || !accepted || verdicts.some(({ type }) => type === 'PartiallyInvalid')) return verdicts
  return [...verdicts, isTrue('PartiallyInvalid', 'UnsupportedValue', `Dropped Rule(s): ${faults.join('; ')}`)]
}

const sameRef = (a: ParentRef, b: ParentRef): boolean => isDeepStrictEqual(a, b)

/** Whether there is anything to write: the texts of conditions and their order count, times are kept. */
export function sameStatus<S>(a: S | undefined, b: S): boolean {
  return isDeepStrictEqual(a, b)
}
