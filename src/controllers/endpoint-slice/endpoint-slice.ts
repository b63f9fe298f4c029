import { serviceNameLabel } from '#api/discovery/labels.ts'
import type { Node, Pod } from '#api/gen/core-v1.ts'
import type { EndpointSlice } from '#api/gen/discovery-v1.ts'
import { endpointSlices, nodes, pods, services } from '#api/gen/resources.ts'
import { isAbort } from '#base/async/scope.ts'
import { nodeOfPod } from '#client/informer.ts'
import { keyOf } from '#client/key.ts'
import { awaitChange } from '#reconcile/controller.ts'
import { createLoop, type LoopContext } from '#reconcile/loop.ts'
import type { Part } from '#reconcile/manager.ts'
import { OwnWrites } from '#reconcile/own-writes.ts'
import { applyAction } from './apply.ts'
import { managedByLabel } from './pack.ts'
import { managedBy, planSlices } from './plan.ts'
import { isOurs, matters, selectedBy, servicesOf, TriggerTimes } from './service-pods.ts'

const zoneLabel = 'topology.kubernetes.io/zone'

/**
 * Keeps a Service's EndpointSlices at what its pods are: one set of slices for each address family and set of ports, at
 * most 100 endpoints each, changed in as few writes as can be (plan.ts). There is no delay of its own: the look at a
 * Service begins in the turn in which a pod's change is heard of; what comes while one is under way is done in the next.
 */
export function endpointSliceController(context: LoopContext): Part {
  const { client, informers, clock } = context
  return createLoop(context, {
    reads: [services, pods, nodes, endpointSlices],
    workers: 5,
    begin({ controller, events, signal }) {
      const serviceInformer = informers.of(services)
      const podInformer = informers.of(pods)
      const nodeInformer = informers.of(nodes)
      const sliceInformer = informers.of(endpointSlices)
      const slicesByService = sliceInformer.index('service', serviceOfSlice)
      const podsByNode = podInformer.index('node', nodeOfPod)
      const writes = new OwnWrites(clock)
      const triggerTimes = new TriggerTimes()

      controller.watch(serviceInformer, signal)
      // What others do to our slices is undone.
      controller.watch(sliceInformer, signal, serviceOfSlice)
      podInformer.onChange((next, old) => {
        if (!matters(next, old)) return
        for (const pod of [old, next])
          if (pod !== undefined) for (const key of servicesOf(serviceInformer, pod)) controller.enqueue(key)
      }, signal)
      nodeInformer.onChange((next, old) => {
        if (next !== undefined && old !== undefined && zoneOf(next) === zoneOf(old)) return
        const name = (next ?? old)?.metadata.name ?? ''
        for (const pod of podsByNode.get(name))
          for (const key of servicesOf(serviceInformer, pod)) controller.enqueue(key)
      }, signal)

      const selected = (service: Parameters<typeof selectedBy>[0] & { metadata: { namespace: string } }): Pod[] =>
        podInformer.list(service.metadata.namespace).filter((pod) => selectedBy(service, pod.metadata.labels))

      const nodeZone = (name: string): { zone: string | undefined } | undefined => {
        const node = nodeInformer.get(name)
        return node === undefined ? undefined : { zone: zoneOf(node) }
      }

      return async (key, look) => {
        await writes.whenSeen(key, look.signal)
        const service = serviceInformer.get(key)
        if (service === undefined) {
          // The garbage collector takes its slices.
          writes.forget(key)
          triggerTimes.forget(key)
          return awaitChange
        }
        if (!isOurs(service) || service.metadata.deletionTimestamp !== undefined) return awaitChange
        const behind = selected(service)
        const actions = planSlices({
          service,
          pods: behind,
          nodeZone,
          // One that a finalizer holds is as good as gone: what it has must be in another.
          slices: slicesByService.get(key).filter(({ metadata }) => metadata.deletionTimestamp === undefined),
          triggerTime: triggerTimes.changed(service, behind),
        })
        try {
          for (const action of actions)
            await applyAction(
              {
                client,
                signal: look.signal,
                wrote: (slice) => writes.wrote(key, sliceInformer, slice),
                deleted: (slice) => writes.deleted(key, sliceInformer, slice),
              },
              action,
            )
        } catch (error) {
          if (error instanceof Error && !isAbort(error)) {
            const message = `Error updating Endpoint Slices for Service ${key}: ${error.message}`
            events.record(service, { type: 'Warning', reason: 'FailedToUpdateEndpointSlices', message })
          }
          throw error
        }
        return awaitChange
      }
    },
  })
}

/** The key of the Service of a slice that is ours. */
function serviceOfSlice({ metadata }: EndpointSlice): readonly string[] {
  const name = metadata.labels?.[serviceNameLabel]
  if (name === undefined || metadata.labels?.[managedByLabel] !== managedBy) return []
  return [keyOf({ metadata: { namespace: metadata.namespace, name } })]
}

const zoneOf = ({ metadata }: Node): string | undefined => metadata.labels?.[zoneLabel]
