import type { Service } from '#datapath/datapath.ts'
import { type Frontend, frontendName } from '#datapath/frontend.ts'
import { sameService } from '#datapath/maps/services.ts'

/** What turns the Services that the kernel has into those that it shall have. */
export interface ServicePlan {
  readonly upserts: readonly Service[]
  readonly removals: readonly Frontend[]
}

/** `present` and `wanted` of the same scope: all Services, or one. Backends are compared in order. Pure. */
export function planServices(present: readonly Service[], wanted: readonly Service[]): ServicePlan {
  const have = new Map(present.map((service) => [frontendName(service.frontend), service]))
  const want = new Map(wanted.map((service) => [frontendName(service.frontend), service]))
  return {
    upserts: [...want].flatMap(([name, service]) => (isSame(have.get(name), service) ? [] : [service])),
    removals: [...have].flatMap(([name, { frontend }]) => (want.has(name) ? [] : [frontend])),
  }
}

const isSame = (a: Service | undefined, b: Service): boolean => a !== undefined && sameService(a, b)
