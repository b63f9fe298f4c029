import type { ReplicaSet } from '#api/gen/apps-v1.ts'
import type { Pod } from '#api/gen/core-v1.ts'
import { pods, replicaSets } from '#api/gen/resources.ts'
import { controllerOf } from '#api/meta/owner.ts'
import { selectorFrom } from '#api/meta/selector.ts'
import { isStatus } from '#api/meta/status.ts'
import { keyOf } from '#client/key.ts'
import { awaitChange, requeueAfter } from '#reconcile/controller.ts'
import { createLoop, type LoopContext } from '#reconcile/loop.ts'
import type { Part } from '#reconcile/manager.ts'
import { OwnWrites } from '#reconcile/own-writes.ts'
import { applyClaim, candidatesFor, controllerIndex, planClaim, uidIndex } from '../workload/claim.ts'
import { isActive } from '../workload/pod-state.ts'
import { sameStatus } from '../workload/status.ts'
import { applyReplicas, writeStatus } from './apply.ts'
import { planNextLook, planReplicas, planStatus } from './plan.ts'

/**
 * Keeps as many pods as a ReplicaSet wants. It owns the pods that its selector matches: it adopts those that nobody
 * controls and releases its own that no longer match. Pods are made in batches of 1, 2, 4…, and the ones whose loss
 * hurts least are deleted first (rank.ts). Each look at a set waits for the copies to have what the last look wrote.
 */
export function replicaSetController(context: LoopContext): Part {
  const { client, informers, clock } = context
  return createLoop(context, {
    reads: [replicaSets, pods],
    workers: 5,
    begin({ controller, events, signal }) {
      const setInformer = informers.of(replicaSets)
      const podInformer = informers.of(pods)
      const podsByController = controllerIndex(podInformer)
      const setsByController = controllerIndex(setInformer)
      const setsByUid = uidIndex(setInformer)
      const writes = new OwnWrites(clock)

      controller.watch(setInformer, signal)
      controller.watch(podInformer, signal, keysOfPod)

      /** The set that controls the pod, or those that might adopt it. */
      function keysOfPod(pod: Pod): string[] {
        const owner = controllerOf(pod)
        if (owner !== undefined) return owner.kind === 'ReplicaSet' ? setsByUid.get(owner.uid).map(keyOf) : []
        if (pod.metadata.labels === undefined) return []
        const sets = setInformer.list(pod.metadata.namespace)
        return sets.filter((set) => selectorFrom(set.spec.selector).matches(pod.metadata.labels)).map(keyOf)
      }

      /** The pods of all sets that have the same owner. */
      function relatedPods(set: ReplicaSet): readonly Pod[] {
        const owner = controllerOf(set)
        const sets = owner === undefined ? [set] : setsByController.get(owner.uid)
        return sets.flatMap((s) => podsByController.get(s.metadata.uid))
      }

      return async (key, look) => {
        await writes.whenSeen(key, look.signal)
        const set = setInformer.get(key)
        if (set === undefined) {
          writes.forget(key)
          return awaitChange
        }
        const owner = { resource: replicaSets, object: set }
        const candidates = candidatesFor(podsByController, set).filter(
          // A pod that has ended is neither adopted nor released; one that is being deleted is still counted.
          (pod) => controllerOf(pod) !== undefined || isActive(pod),
        )
        const owned = await applyClaim(
          client,
          owner,
          pods,
          planClaim(set, selectorFrom(set.spec.selector), candidates),
          {
            signal: look.signal,
            wrote: (pod) => writes.wrote(key, podInformer, pod),
          },
        )
        const action = planReplicas(set, owned, relatedPods(set), clock.now())
        const failure = await applyReplicas(
          {
            client,
            events,
            owner,
            signal: look.signal,
            created: (pod) => writes.wrote(key, podInformer, pod),
            deleted: (pod) => writes.deleted(key, podInformer, pod),
          },
          action,
        )
        const status = planStatus(set, owned, failure, clock.now())
        if (!sameStatus(set.status, status)) {
          try {
            writes.wrote(key, setInformer, await writeStatus(client, set, status, look.signal))
          } catch (error) {
            if (!isStatus(error, 'NotFound')) throw error
          }
        }
        if (failure !== undefined) throw failure
        const afterMs = planNextLook(set, owned, clock.now())
        return afterMs === undefined ? awaitChange : requeueAfter(afterMs)
      }
    },
  })
}
