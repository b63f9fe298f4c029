import { serviceNameLabel } from '#api/discovery/labels.ts'
import type { EndpointSlice } from '#api/gen/discovery-v1.ts'
import { endpointSlices, endpoints, services } from '#api/gen/resources.ts'
import { keyOf } from '#client/key.ts'
import { awaitChange } from '#reconcile/controller.ts'
import { createLoop, type LoopContext } from '#reconcile/loop.ts'
import type { Part } from '#reconcile/manager.ts'
import { OwnWrites } from '#reconcile/own-writes.ts'
import { applyAction } from '../endpoint-slice/apply.ts'
import { managedByLabel } from '../endpoint-slice/pack.ts'
import { isMirrored, managedBy, planMirror } from './plan.ts'

/**
 * Makes EndpointSlices of Endpoints that somebody keeps by hand for a Service without a selector: what reads slices,
 * the network among it, would not see them otherwise.
 */
export function endpointSliceMirrorController(context: LoopContext): Part {
  const { client, informers, clock } = context
  return createLoop(context, {
    reads: [services, endpoints, endpointSlices],
    workers: 5,
    begin({ controller, signal }) {
      const serviceInformer = informers.of(services)
      const endpointsInformer = informers.of(endpoints)
      const sliceInformer = informers.of(endpointSlices)
      const slicesOf = sliceInformer.index('mirrored', mirroredKey)
      const writes = new OwnWrites(clock)

      controller.watch(endpointsInformer, signal)
      controller.watch(serviceInformer, signal)
      controller.watch(sliceInformer, signal, mirroredKey)

      return async (key, look) => {
        await writes.whenSeen(key, look.signal)
        const present = endpointsInformer.get(key)
        const isOurs = present !== undefined && isMirrored(present, serviceInformer.get(key))
        const slices = slicesOf.get(key).filter(({ metadata }) => metadata.deletionTimestamp === undefined)
        for (const action of planMirror(isOurs ? present : undefined, slices)) {
          await applyAction(
            {
              client,
              signal: look.signal,
              wrote: (slice) => writes.wrote(key, sliceInformer, slice),
              deleted: (slice) => writes.deleted(key, sliceInformer, slice),
            },
            action,
          )
        }
        if (present === undefined) writes.forget(key)
        return awaitChange
      }
    },
  })
}

/** The key of the Endpoints of a slice that is ours. */
function mirroredKey({ metadata }: EndpointSlice): readonly string[] {
  const name = metadata.labels?.[serviceNameLabel]
  if (name === undefined || metadata.labels?.[managedByLabel] !== managedBy) return []
  return [keyOf({ metadata: { namespace: metadata.namespace, name } })]
}
