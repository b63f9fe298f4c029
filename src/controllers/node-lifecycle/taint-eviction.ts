import type { Pod } from '#api/gen/core-v1.ts'
import { nodes, pods } from '#api/gen/resources.ts'
import { withCondition } from '#api/meta/conditions.ts'
import { isStatus } from '#api/meta/status.ts'
import { formatTime } from '#api/meta/time.ts'
import type { Client } from '#client/client.ts'
import { nodeOfPod } from '#client/informer.ts'
import { keyOf } from '#client/key.ts'
import { awaitChange, requeueAfter } from '#reconcile/controller.ts'
import { createLoop, type LoopContext } from '#reconcile/loop.ts'
import type { Part } from '#reconcile/manager.ts'
import { planEviction } from './evict-plan.ts'

/** Deletes pods from nodes with NoExecute taints when their tolerations have run out. Keys are keys of pods. */
export function taintEvictionController(context: LoopContext): Part {
  const { client, informers, clock } = context
  return createLoop(context, {
    reads: [nodes, pods],
    workers: 8,
    begin({ controller, events, signal }) {
      const allNodes = informers.of(nodes)
      const allPods = informers.of(pods)
      const podsByNode = allPods.index('node', nodeOfPod)
      const isTainted = (name: string | undefined) =>
        name !== undefined && (allNodes.get(name)?.spec.taints ?? []).some((t) => t.effect === 'NoExecute')
      // Pods on nodes without such taints are no work at all.
      controller.watch(allPods, signal, (pod) => (isTainted(pod.spec.nodeName) ? [keyOf(pod)] : []))
      controller.watch(allNodes, signal, (node) =>
        (node.spec.taints ?? []).some((t) => t.effect === 'NoExecute')
          ? podsByNode.get(node.metadata.name).map(keyOf)
          : [],
      )
      return async (key, look) => {
        const pod = allPods.get(key)
        if (pod?.spec.nodeName === undefined) return awaitChange
        const verdict = planEviction(pod, allNodes.get(pod.spec.nodeName))
        if (verdict.do === 'stay') return awaitChange
        const afterMs = verdict.atMs - clock.now()
        if (afterMs > 0) return requeueAfter(afterMs)
        try {
          await evict(client, pod, formatTime(clock.now()), look.signal)
        } catch (error) {
          if (isStatus(error, 'NotFound')) return awaitChange
          throw error
        }
        const message = `Marking for deletion Pod ${key}`
        events.record(pod, { type: 'Normal', reason: 'TaintManagerEviction', message })
        look.log.info({ node: pod.spec.nodeName }, 'pod deleted for a taint of its node')
        return awaitChange
      }
    },
  })
}

/** Says why, then deletes this very pod. */
async function evict(client: Client, pod: Pod, now: string, signal: AbortSignal): Promise<void> {
  const condition = {
    type: 'DisruptionTarget',
    status: 'True',
    reason: 'DeletionByTaintManager',
    message: 'Taint manager: deleting due to NoExecute taint',
  }
  const conditions = withCondition(pod.status.conditions, condition, now)
  const { resourceVersion, uid } = pod.metadata
  const patch = { metadata: { resourceVersion }, status: { conditions } }
  await client.patch(pods, pod.metadata, 'merge', patch, { subresource: 'status', signal })
  await client.delete(pods, pod.metadata, { preconditions: { uid }, signal })
}
