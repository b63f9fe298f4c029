import type { Deployment, ReplicaSet } from '#api/gen/apps-v1.ts'
import type { Pod } from '#api/gen/core-v1.ts'
import { deployments, pods, replicaSets } from '#api/gen/resources.ts'
import { isEmptySelector } from '#api/meta/labels.ts'
import { controllerOf } from '#api/meta/owner.ts'
import { selectorFrom } from '#api/meta/selector.ts'
import { keyOf } from '#client/key.ts'
import { awaitChange, requeueAfter } from '#reconcile/controller.ts'
import { createLoop, type LoopContext } from '#reconcile/loop.ts'
import type { Part } from '#reconcile/manager.ts'
import { OwnWrites } from '#reconcile/own-writes.ts'
import { applyClaim, candidatesFor, controllerIndex, planClaim, uidIndex } from '../workload/claim.ts'
import { isTerminal } from '../workload/pod-state.ts'
import { applyPlan } from './apply.ts'
import { planDeployment } from './plan.ts'
import { isRolling } from './rollout.ts'
import { planDeadline } from './status.ts'

/**
 * Moves a Deployment's pods to its template, by way of one ReplicaSet per template. A rollout is a sequence of small
 * steps (plan.ts), each planned from what the sets report. A roll-back is a template seen before: its set is found by
 * the template, gets the newest revision and grows again. Sizes follow rollout.ts, conditions status.ts.
 */
export function deploymentController(context: LoopContext): Part {
  const { client, informers, clock } = context
  return createLoop(context, {
    reads: [deployments, replicaSets, pods],
    workers: 5,
    begin({ controller, events, signal }) {
      const deploymentInformer = informers.of(deployments)
      const setInformer = informers.of(replicaSets)
      const podInformer = informers.of(pods)
      const deploymentsByUid = uidIndex(deploymentInformer)
      const setsByUid = uidIndex(setInformer)
      const setsByController = controllerIndex(setInformer)
      const podsByController = controllerIndex(podInformer)
      const writes = new OwnWrites(clock)

      controller.watch(deploymentInformer, signal)
      controller.watch(setInformer, signal, keysOfSet)
      podInformer.onChange((next, old) => {
        // Only Recreate waits for pods themselves; everything else is in the sets' statuses.
        const ended = next === undefined || (isTerminal(next) && old !== undefined && !isTerminal(old))
        if (ended && old !== undefined) for (const key of recreatedFrom(old)) controller.enqueue(key)
      }, signal)

      /** The Deployment that controls the set, or those that might adopt it. */
      function keysOfSet(set: ReplicaSet): string[] {
        const owner = controllerOf(set)
        if (owner !== undefined) return deploymentsByUid.get(owner.uid).map(keyOf)
        if (set.metadata.labels === undefined) return []
        return deploymentInformer
          .list(set.metadata.namespace)
          .filter((d) => selectorFrom(d.spec.selector).matches(set.metadata.labels))
          .map(keyOf)
      }

      function recreatedFrom(pod: Pod): string[] {
        const owners = setsByUid.get(controllerOf(pod)?.uid ?? '').map(controllerOf)
        return owners
          .flatMap((owner) => deploymentsByUid.get(owner?.uid ?? ''))
          .filter((d) => !isRolling(d))
          .map(keyOf)
      }

      function warnOfEmptySelector(deployment: Deployment): void {
        const message = 'This deployment is selecting all pods. A non-empty selector is required.'
        events.record(deployment, { type: 'Warning', reason: 'SelectingAll', message })
      }

      return async (key, look) => {
        await writes.whenSeen(key, look.signal)
        const deployment = deploymentInformer.get(key)
        if (deployment === undefined) {
          writes.forget(key)
          return awaitChange
        }
        if (isEmptySelector(deployment.spec.selector)) {
          warnOfEmptySelector(deployment)
          return awaitChange
        }
        const claim = planClaim(
          deployment,
          selectorFrom(deployment.spec.selector),
          candidatesFor(setsByController, deployment),
        )
        const owner = { resource: deployments, object: deployment }
        const sets = await applyClaim(client, owner, replicaSets, claim, {
          signal: look.signal,
          wrote: (set) => writes.wrote(key, setInformer, set),
        })
        const owned = isRolling(deployment) ? [] : sets.flatMap((set) => podsByController.get(set.metadata.uid))
        const now = clock.now()
        const plan = planDeployment(deployment, sets, owned, now)
        await applyPlan(
          {
            client,
            events,
            deployment,
            signal: look.signal,
            now,
            wroteSet: (set) => writes.wrote(key, setInformer, set),
            deletedSet: (set) => writes.deleted(key, setInformer, set),
            wroteDeployment: (answer) => writes.wrote(key, deploymentInformer, answer),
          },
          plan,
        )
        const afterMs = planDeadline(deployment, plan.status, clock.now())
        return afterMs === undefined ? awaitChange : requeueAfter(afterMs)
      }
    },
  })
}
