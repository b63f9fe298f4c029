import type { Service } from '#datapath/datapath.ts'
import type { Frontend } from '#datapath/frontend.ts'
import { PeerTable } from '#datapath/maps/peer-table.ts'
import { sameService } from '#datapath/maps/services.ts'

/** What turns the Services that the kernel has into those that it shall have. */
export interface ServicePlan {
  readonly upserts: readonly Service[]
  readonly removals: readonly Frontend[]
}

/** `present` and `wanted` of the same scope: all Services, or one. Backends are compared in order. Pure. */
export function planServices(present: readonly Service[], wanted: readonly Service[]): ServicePlan {
  // A node that has none yet has the most to write.
  if (present.length === 0) return { upserts: wanted, removals: [] }
  const have = tableOf(present)
  const want = tableOf(wanted)
  const upserts: Service[] = []
  const removals: Frontend[] = []
  for (const service of wanted) {
    const { frontend } = service
    // Named twice, the last one is meant.
    if (want.get(frontend) === service && !isSame(have.get(frontend), service)) upserts.push(service)
  }
  for (const { frontend } of have.values()) if (want.get(frontend) === undefined) removals.push(frontend)
  return { upserts, removals }
}

function tableOf(services: readonly Service[]): PeerTable<Service> {
  const table = new PeerTable<Service>()
  for (const service of services) table.set(service.frontend, service)
  return table
}

const isSame = (a: Service | undefined, b: Service): boolean => a !== undefined && sameService(a, b)
