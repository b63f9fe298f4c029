import { compareText } from '#base/order.ts'
import { intersect } from './hostnames.ts'
import { listenerId, type RouteResult, routeId } from './routes.ts'

interface Candidate {
  readonly id: string
  readonly isGrpc: boolean
  readonly age: string
  readonly hostnames: readonly string[]
}

/**
 * HTTPRoutes and GRPCRoutes that want one hostname of one listener: the older has it, of equal age the first by name, and
 * the other is not accepted there (gateway-api v1.6.1, GRPCRouteSpec.hostnames). Returns, by route, the listeners that it has
 * lost. `routes` are all that name the Gateway, as they would be if they were alone.
 */
export function lostListeners(gateway: string, routes: Iterable<RouteResult>): Map<string, ReadonlySet<string>> {
  const byListener = new Map<string, Candidate[]>()
  for (const { route, parents } of routes) {
    const { creationTimestamp, namespace, name } = route.metadata
    const [id, isGrpc] = [routeId(route), route.kind === 'GRPCRoute']
    const age = `${creationTimestamp} ${namespace}/${name}`
    for (const parent of parents) {
      if (parent.gateway !== gateway) continue
      for (const { listener, hostnames } of parent.attached) {
        const candidates = byListener.get(listener) ?? []
        candidates.push({ id, isGrpc, age, hostnames })
        byListener.set(listener, candidates)
      }
    }
  }
  const lost = new Map<string, Set<string>>()
  for (const [listener, candidates] of byListener) {
    const kinds = new Set(candidates.map(({ isGrpc }) => isGrpc))
    if (kinds.size < 2) continue
    const kept = { http: [] as Candidate[], grpc: [] as Candidate[] }
    for (const candidate of candidates.toSorted(byAge)) {
      const [own, others] = candidate.isGrpc ? [kept.grpc, kept.http] : [kept.http, kept.grpc]
      if (others.some((other) => overlap(other.hostnames, candidate.hostnames))) {
        const ids = lost.get(candidate.id) ?? new Set<string>()
        lost.set(candidate.id, ids.add(listenerId(gateway, listener)))
      } else own.push(candidate)
    }
  }
  return lost
}

/** Of equal age and name the kind decides, so that everybody comes to the same. */
const byAge = (a: Candidate, b: Candidate): number => compareText(a.age, b.age) || compareText(a.id, b.id)

const overlap = (a: readonly string[], b: readonly string[]): boolean =>
  a.some((one) => b.some((other) => intersect(one, other) !== undefined))
