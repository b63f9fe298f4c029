import { nodes } from '#api/gen/resources.ts'
import { isStatus } from '#api/meta/status.ts'
import { awaitChange, requeueAfter } from '#reconcile/controller.ts'
import { createLoop, type LoopContext } from '#reconcile/loop.ts'
import type { Part } from '#reconcile/manager.ts'
import { OwnWrites } from '#reconcile/own-writes.ts'
import { type NodeRange, planPodCidrs } from './plan.ts'

/** Assignments depend on each other, so what was written for one node is awaited before the next is planned. */
const assignments = 'assignments'
/** A range that is full may get room when a node goes, which also wakes us; this is for what we do not see. */
const exhaustedRetryMs = 60_000

/** Gives each node its pod networks, once. Keys are names of nodes; one worker, because two could choose the same. */
export const nodeIpamController =
  (ranges: readonly NodeRange[]) =>
  (context: LoopContext): Part => {
    const { client, informers, clock } = context
    return createLoop(context, {
      reads: [nodes],
      workers: 1,
      begin({ controller, events, signal }) {
        const all = informers.of(nodes)
        const writes = new OwnWrites(clock)
        const waiting = new Set<string>()
        controller.watch(all, signal)
        all.onChange((next) => {
          // A node has gone: its networks are free for those that wait.
          if (next === undefined) for (const key of waiting) controller.enqueue(key)
        }, signal)
        return async (key, look) => {
          await writes.whenSeen(assignments, look.signal)
          const node = all.get(key)
          const action = planPodCidrs(node, all.list(), ranges)
          waiting.delete(key)
          if (node === undefined || action.do === 'nothing') return awaitChange
          if (action.do === 'exhausted') {
            waiting.add(key)
            const message = `Node ${key} status is now: CIDRNotAvailable`
            events.record(node, { type: 'Normal', reason: 'CIDRNotAvailable', message })
            look.log.warn({ range: action.range }, 'no pod network is left for the node')
            return requeueAfter(exhaustedRetryMs)
          }
          const [podCIDR] = action.podCidrs
          const patch = { metadata: { uid: node.metadata.uid }, spec: { podCIDR, podCIDRs: action.podCidrs } }
          try {
            const written = await client.patch(nodes, node.metadata, 'merge', patch, { signal: look.signal })
            writes.wrote(assignments, all, written)
            look.log.info({ podCidrs: action.podCidrs }, 'pod networks assigned')
          } catch (error) {
            if (!isStatus(error, 'NotFound')) throw error
          }
          return awaitChange
        }
      },
    })
  }
