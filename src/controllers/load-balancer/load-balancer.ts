import type { Service } from '#api/gen/core-v1.ts'
import { services } from '#api/gen/resources.ts'
import { isStatus } from '#api/meta/status.ts'
import { keyOf } from '#client/key.ts'
import { awaitChange, requeueAfter } from '#reconcile/controller.ts'
import { createLoop, type LoopContext } from '#reconcile/loop.ts'
import type { Part } from '#reconcile/manager.ts'
import { OwnWrites } from '#reconcile/own-writes.ts'
import { addressesOf, planAddresses } from './plan.ts'
import { parsePool } from './pool.ts'

/** Assignments depend on each other: what was written for one Service is awaited before the next is planned. */
const assignments = 'assignments'
/** A Service that goes frees its address, which wakes those that wait; this is for what we do not see. */
const waitingRetryMs = 60_000

/**
 * Gives Services of type LoadBalancer their addresses, from pools. Keys are Services; one worker, because two could choose
 * the same address. Throws a RangeError for a pool that is none.
 */
export const loadBalancerController =
  (poolTexts: readonly string[]) =>
  (context: LoopContext): Part => {
    const { client, informers, clock } = context
    const pools = poolTexts.map(parsePool)
    return createLoop(context, {
      reads: [services],
      workers: 1,
      begin({ controller, events, signal }) {
        const all = informers.of(services)
        const owners = all.index('load-balancer-address', addressesOf)
        const writes = new OwnWrites(clock)
        const waiting = new Set<string>()
        controller.watch(all, signal)
        all.onChange((next, old) => {
          // An address may have become free for those that wait.
          const before = old === undefined ? [] : addressesOf(old)
          const after = next === undefined ? [] : addressesOf(next)
          if (before.some((a) => !after.includes(a))) for (const key of waiting) controller.enqueue(key)
        }, signal)
        /** Of two that both say they have it, the older one has it. */
        const ownerOf = (address: string): string | undefined => {
          const [first] = owners.get(address).toSorted(byAge)
          return first === undefined ? undefined : keyOf(first)
        }
        return async (key, look) => {
          await writes.whenSeen(assignments, look.signal)
          waiting.delete(key)
          const service = all.get(key)
          if (service === undefined) return awaitChange
          const action = planAddresses(service, ownerOf, pools)
          if (action.do === 'nothing') return awaitChange
          const refusal = action.do === 'refuse' ? action.message : exhausted(action.missing, poolTexts)
          if (refusal !== undefined) {
            waiting.add(key)
            events.record(service, { type: 'Warning', reason: 'AddressNotAssigned', message: refusal })
          }
          if (action.addresses.join() !== addressesOf(service).join()) {
            const ingress = action.addresses.map((ip) => ({ ip, ipMode: 'VIP' }))
            const patch = {
              metadata: { uid: service.metadata.uid },
              status: { loadBalancer: { ingress: ingress.length === 0 ? null : ingress } },
            }
            try {
              const options = { subresource: 'status', signal: look.signal }
              writes.wrote(assignments, all, await client.patch(services, service.metadata, 'merge', patch, options))
              look.log.info({ addresses: action.addresses }, 'addresses of a load balancer assigned')
              if (action.addresses.length > 0)
                events.record(service, {
                  type: 'Normal',
                  reason: 'AddressAssigned',
                  message: `Assigned ${action.addresses.join(', ')}`,
                })
            } catch (error) {
              if (!isStatus(error, 'NotFound')) throw error
            }
          }
          return refusal === undefined ? awaitChange : requeueAfter(waitingRetryMs)
        }
      },
    })
  }

const byAge = (a: Service, b: Service): number => {
  const [x, y] = [a, b].map((s) => `${s.metadata.creationTimestamp ?? ''} ${keyOf(s)}`) as [string, string]
  return x < y ? -1 : 1
}

function exhausted(missing: readonly string[], pools: readonly string[]): string | undefined {
  if (missing.length === 0) return undefined
  const where = pools.length === 0 ? 'this cluster has no pool (--load-balancer-pool)' : `pools ${pools.join(', ')}`
  return `no ${missing.join(' and no ')} address is free: ${where}`
}
