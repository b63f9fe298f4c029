import type { Endpoint } from './cluster.ts'
import type { Chooser } from './journey.ts'
import type { Tuple } from './packet.ts'
import type { Found } from './services.ts'

/** Session affinity (core/v1, ClientIP): by Service and client address, until the client has not connected for a while. */
export class Affinities {
  readonly #known = new Map<string, { readonly backend: string; readonly seen: number }>()

  /** The backend that the client had where it still is one, otherwise any. */
  choose(found: Found & { readonly kind: 'found' }, question: Tuple, now: number, choose: Chooser): Endpoint {
    const { service, candidates } = found
    const { affinitySeconds } = service
    if (affinitySeconds === undefined) return choose.backend(candidates, question)
    const key = `${service.namespace}/${service.name} ${question.source}`
    const known = this.#known.get(key)
    const same =
      known !== undefined && now - known.seen <= affinitySeconds * 1_000
        ? candidates.filter((c) => c.address === known.backend)
        : []
    const backend = choose.backend(same.length > 0 ? same : candidates, question)
    this.#known.set(key, { backend: backend.address, seen: now })
    return backend
  }
}
