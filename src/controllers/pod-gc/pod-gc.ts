import { nodes, pods } from '#api/gen/resources.ts'
import { isStatus } from '#api/meta/status.ts'
import { requeueAfter } from '#reconcile/controller.ts'
import { createLoop, type LoopContext } from '#reconcile/loop.ts'
import type { Part } from '#reconcile/manager.ts'
import { collectPod } from './apply.ts'
import { planPodGc, unknownNodes } from './plan.ts'

export interface PodGcOptions {
  /** Pods that have ended and are kept. Upstream's 12,500. */
  readonly terminatedMax?: number
  /** Milliseconds between looks. */
  readonly everyMs?: number
  /** How long a node must have been missing before its pods are given up. */
  readonly quarantineMs?: number
}

/** One key for everything: what is collected depends on all pods together. */
const everything = 'pods'

/**
 * Deletes pods that nobody will come for: ended ones beyond a number, those of nodes that are gone, those that were
 * deleted before they had a node, and those on nodes declared out of service.
 */
export const podGcController =
  ({ terminatedMax = 12_500, everyMs = 20_000, quarantineMs = 40_000 }: PodGcOptions = {}) =>
  (context: LoopContext): Part => {
    const { client, informers, clock } = context
    return createLoop(context, {
      reads: [nodes, pods],
      begin({ controller }) {
        const allNodes = informers.of(nodes)
        const allPods = informers.of(pods)
        /** Since when each is missing, on our monotonic clock. */
        const missingSince = new Map<string, number>()
        controller.enqueue(everything)

        async function missingNodes(signal: AbortSignal): Promise<Set<string>> {
          const unknown = unknownNodes(allPods.list(), (name) => allNodes.get(name))
          for (const name of missingSince.keys()) if (!unknown.has(name)) missingSince.delete(name)
          const missing = new Set<string>()
          for (const name of unknown) {
            const since = missingSince.get(name) ?? clock.monotonic()
            missingSince.set(name, since)
            if (clock.monotonic() - since < quarantineMs) continue
            // The copy may be behind; what a pod's life hangs on is asked of the server.
            try {
              await client.get(nodes, { name }, { signal })
            } catch (error) {
              if (!isStatus(error, 'NotFound')) throw error
              missing.add(name)
            }
          }
          return missing
        }

        return async (_, look) => {
          const actions = planPodGc({
            pods: allPods.list(),
            node: (name) => allNodes.get(name),
            missingNodes: await missingNodes(look.signal),
            terminatedMax,
          })
          for (const { pod, reason } of actions) {
            await collectPod(client, pod, reason, clock.now(), look.signal)
            look.log.info({ pod: pod.metadata.name, namespace: pod.metadata.namespace, reason }, 'pod collected')
          }
          return requeueAfter(everyMs)
        }
      },
    })
  }
