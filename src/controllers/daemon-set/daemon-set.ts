import type { DaemonSet } from '#api/gen/apps-v1.ts'
import type { Node, Pod } from '#api/gen/core-v1.ts'
import { controllerRevisions, daemonSets, nodes, pods } from '#api/gen/resources.ts'
import { isEmptySelector } from '#api/meta/labels.ts'
import { controllerOf } from '#api/meta/owner.ts'
import { selectorFrom } from '#api/meta/selector.ts'
import { keyOf } from '#client/key.ts'
import { awaitChange, requeueAfter } from '#reconcile/controller.ts'
import { createLoop, type LoopContext } from '#reconcile/loop.ts'
import type { Part } from '#reconcile/manager.ts'
import { OwnWrites } from '#reconcile/own-writes.ts'
import { applyClaim, candidatesFor, controllerIndex, planClaim, uidIndex } from '../workload/claim.ts'
import { nextAvailableIn } from '../workload/pod-state.ts'
import { applyHistory, applyPods, type Effects, removeRevisions, writeStatus } from './apply.ts'
import { Failures } from './failures.ts'
import { hashOf, planHistory, surplusRevisions } from './history.ts'
import { eligibilityFor } from './nodes.ts'
import { planPods, planStatus, type View } from './plan.ts'

/**
 * Keeps one pod of a DaemonSet on every node that it is for (nodes.ts). Its pods name their node in their affinity and
 * are bound by the scheduler like any other. A new template is rolled out node by node within maxUnavailable or with
 * maxSurge (plan.ts); the templates it has had are kept as ControllerRevisions (history.ts). A pod that failed is
 * replaced after a pause that doubles from one second to a quarter of an hour (failures.ts).
 */
export function daemonSetController(context: LoopContext): Part {
  const { client, informers, clock } = context
  return createLoop(context, {
    reads: [daemonSets, pods, nodes, controllerRevisions],
    workers: 2,
    begin({ controller, events, signal }) {
      const setInformer = informers.of(daemonSets)
      const podInformer = informers.of(pods)
      const nodeInformer = informers.of(nodes)
      const revisionInformer = informers.of(controllerRevisions)
      const podsByController = controllerIndex(podInformer)
      const revisionsByController = controllerIndex(revisionInformer)
      const setsByUid = uidIndex(setInformer)
      const writes = new OwnWrites(clock)
      const failures = new Failures()

      controller.watch(setInformer, signal)
      controller.watch(podInformer, signal, keysOfOwned)
      controller.watch(revisionInformer, signal, keysOfOwned)
      nodeInformer.onChange((next, old) => {
        for (const set of setInformer.list()) if (isNews(set, next, old)) controller.enqueue(keyOf(set))
      }, signal)

      function keysOfOwned(object: Pod | Parameters<typeof hashOf>[0]): string[] {
        const owner = controllerOf(object)
        if (owner !== undefined) return owner.kind === 'DaemonSet' ? setsByUid.get(owner.uid).map(keyOf) : []
        const { labels, namespace } = object.metadata
        if (labels === undefined) return []
        return setInformer
          .list(namespace)
          .filter((set) => selectorFrom(set.spec.selector).matches(labels))
          .map(keyOf)
      }

      return async (key, look) => {
        await writes.whenSeen(key, look.signal)
        const set = setInformer.get(key)
        if (set === undefined) {
          writes.forget(key)
          return awaitChange
        }
        if (isEmptySelector(set.spec.selector)) {
          const message = 'This daemon set is selecting all pods. A non-empty selector is required.'
          events.record(set, { type: 'Warning', reason: 'SelectingAll', message })
          return awaitChange
        }
        // Its pods and revisions go with it, in whatever order: nothing to be said of them any more.
        if (set.metadata.deletionTimestamp !== undefined) return awaitChange

        const effects: Effects = {
          client,
          set,
          signal: look.signal,
          wroteRevision: (revision) => writes.wrote(key, revisionInformer, revision),
          deletedRevision: (revision) => writes.deleted(key, revisionInformer, revision),
          wroteSet: (answer) => writes.wrote(key, setInformer, answer),
        }
        const owner = { resource: daemonSets, object: set }
        const selector = selectorFrom(set.spec.selector)
        const revisions = await applyClaim(
          client,
          owner,
          controllerRevisions,
          planClaim(set, selector, candidatesFor(revisionsByController, set)),
          { signal: look.signal, wrote: effects.wroteRevision },
        )
        const owned = await applyClaim(
          client,
          owner,
          pods,
          planClaim(set, selector, candidatesFor(podsByController, set)),
          { signal: look.signal, wrote: (pod) => writes.wrote(key, podInformer, pod) },
        )
        const history = planHistory(set, revisions)
        const hash = hashOf(await applyHistory(effects, history))
        const now = clock.now()
        const failureId = (nodeName: string): string =>
          `${set.metadata.uid}/${set.status?.observedGeneration ?? 0}/${nodeName}`
        const view: View = {
          set,
          nodes: nodeInformer.list(),
          pods: owned,
          hash,
          hashes: new Set([...history.hashes, hash]),
          now,
          holdFailed: (nodeName) => failures.hold(failureId(nodeName), now),
        }
        const plan = planPods(view)
        for (const { because, nodeName } of plan.remove)
          if (because === 'failed') failures.replaced(failureId(nodeName), now)
        const failure = await applyPods(
          {
            client,
            events,
            owner,
            signal: look.signal,
            created: (pod) => writes.wrote(key, podInformer, pod),
            deleted: (pod) => writes.deleted(key, podInformer, pod),
          },
          plan,
          hash,
        )
        if (failure === undefined) await removeRevisions(effects, surplusRevisions(set, history.old, owned))
        await writeStatus(effects, planStatus(view))
        if (failure !== undefined) throw failure
        const againIn = [plan.againIn, nextAvailableIn(owned, set.spec.minReadySeconds ?? 0, clock.now())]
        const soonest = Math.min(...againIn.filter((ms) => ms !== undefined))
        return Number.isFinite(soonest) ? requeueAfter(soonest) : awaitChange
      }
    },
  })
}

/** Whether a node came, went, or changed in a way that this set judges differently. */
function isNews(set: DaemonSet, next: Node | undefined, old: Node | undefined): boolean {
  if (next === undefined || old === undefined) return true
  if (next.metadata.labels === old.metadata.labels && next.spec === old.spec) return false
  const judge = eligibilityFor(set)
  const [a, b] = [judge(next), judge(old)]
  return a.shouldRun !== b.shouldRun || a.mayStay !== b.mayStay
}
