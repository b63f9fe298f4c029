import { endpoints, pods, services } from '#api/gen/resources.ts'
import { isAbort } from '#base/async/scope.ts'
import { keyOf } from '#client/key.ts'
import { awaitChange } from '#reconcile/controller.ts'
import { createLoop, type LoopContext } from '#reconcile/loop.ts'
import type { Part } from '#reconcile/manager.ts'
import { OwnWrites } from '#reconcile/own-writes.ts'
import { isOurs, matters, selectedBy, servicesOf, TriggerTimes } from '../endpoint-slice/service-pods.ts'
import { applyAction, removeEndpoints } from './apply.ts'
import { managedBy, managedByLabel, planEndpoints } from './plan.ts'

/**
 * Keeps a Service's Endpoints object, the older form of its EndpointSlices, for those who still read it: one object per
 * Service, its first address family only, at most 1000 addresses.
 */
export function endpointsController(context: LoopContext): Part {
  const { client, informers, clock } = context
  return createLoop(context, {
    reads: [services, pods, endpoints],
    workers: 5,
    begin({ controller, events, signal }) {
      const serviceInformer = informers.of(services)
      const podInformer = informers.of(pods)
      const endpointsInformer = informers.of(endpoints)
      const writes = new OwnWrites(clock)
      const triggerTimes = new TriggerTimes()

      controller.watch(serviceInformer, signal)
      endpointsInformer.onChange((next, old) => {
        const present = next ?? old
        if (present === undefined) return
        const isLeftOver =
          next?.metadata.labels?.[managedByLabel] === managedBy && serviceInformer.get(keyOf(next)) === undefined
        if (next === undefined || isLeftOver) controller.enqueue(keyOf(present))
      }, signal)
      podInformer.onChange((next, old) => {
        if (!matters(next, old)) return
        for (const pod of [old, next])
          if (pod !== undefined) for (const key of servicesOf(serviceInformer, pod)) controller.enqueue(key)
      }, signal)

      return async (key, look) => {
        await writes.whenSeen(key, look.signal)
        const service = serviceInformer.get(key)
        if (service === undefined) {
          writes.forget(key)
          triggerTimes.forget(key)
          if (endpointsInformer.get(key) !== undefined) await removeEndpoints(client, key, look.signal)
          return awaitChange
        }
        if (!isOurs(service)) return awaitChange
        const behind = podInformer
          .list(service.metadata.namespace)
          .filter((pod) => selectedBy(service, pod.metadata.labels))
        const present = endpointsInformer.get(key)
        const triggerTime = triggerTimes.changed(service, behind)
        const action = planEndpoints({ service, pods: behind, present, triggerTime })
        if (action === undefined) return awaitChange
        try {
          const answer = await applyAction(client, action, look.signal)
          if (answer !== undefined) writes.wrote(key, endpointsInformer, answer)
        } catch (error) {
          if (error instanceof Error && !isAbort(error)) {
            const [reason, what] =
              action.do === 'create'
                ? ['FailedToCreateEndpoint', 'create endpoint for service']
                : ['FailedToUpdateEndpoint', 'update endpoint']
            const message = `Failed to ${what} ${key}: ${error.message}`
            events.record(service, { type: 'Warning', reason, message })
          }
          throw error
        }
        return awaitChange
      }
    },
  })
}
