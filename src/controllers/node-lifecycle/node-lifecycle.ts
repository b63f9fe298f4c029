import type { Lease } from '#api/gen/coordination-v1.ts'
import type { Node } from '#api/gen/core-v1.ts'
import { leases, nodes, pods } from '#api/gen/resources.ts'
import { findCondition } from '#api/meta/conditions.ts'
import { isStatus } from '#api/meta/status.ts'
import { nodeOfPod } from '#client/informer.ts'
import { awaitChange, requeueAfter } from '#reconcile/controller.ts'
import { createLoop, type LoopContext } from '#reconcile/loop.ts'
import type { Part } from '#reconcile/manager.ts'
import { OwnWrites } from '#reconcile/own-writes.ts'
import { markPodsNotReady, writeConditions, writeTaints } from './apply.ts'
import {
  defaultGraces,
  type Eviction,
  evictionRates,
  type Graces,
  lostAt,
  planLost,
  planTaints,
  type Readiness,
  readinessOf,
  zoneOf,
} from './plan.ts'
import { ZoneRates } from './zone-rates.ts'

/** Where kubelets keep their leases. */
const leaseNamespace = 'kube-node-lease'
/** While a node is not ready it is looked at this often (upstream's monitor period): how fast it may be given up changes with the others. */
const unreadyRetryMs = 5_000

interface Sign {
  /** What would change with a sign of life; compared, never read: the node's clock is its own. */
  readonly of: string
  /** Ours, monotonic. */
  readonly at: number
}

/**
 * Watches over nodes: one that gives no sign of life (a renewed lease or a new status) for its grace is lost; its
 * conditions become Unknown, it is tainted, and its pods are no longer ready. Keys are names of nodes.
 * Signs of life are timed by our own clock from when we saw them, so a clock that jumps, or our own restart, loses nobody.
 */
export const nodeLifecycleController =
  (graces: Graces = defaultGraces) =>
  (context: LoopContext): Part => {
    const { client, informers, clock } = context
    const nodeLeases = informers.of(leases, { namespace: leaseNamespace })
    return createLoop(context, {
      reads: [nodes, pods],
      copies: [nodeLeases],
      workers: 2,
      begin({ controller, events, signal }) {
        const all = informers.of(nodes)
        const allPods = informers.of(pods)
        const podsByNode = allPods.index('node', nodeOfPod)
        const signs = new Map<string, Sign>()
        const said = new Map<string, Readiness>()
        const rates = new ZoneRates(clock)
        const writes = new OwnWrites(clock)
        controller.watch(all, signal)
        controller.watch(nodeLeases, signal, ({ metadata }) => [metadata.name])
        // A pod that becomes ready on a node that is lost (a late write of its kubelet) is looked at like the others.
        controller.watch(allPods, signal, ({ spec }) => {
          const node = spec.nodeName === undefined ? undefined : all.get(spec.nodeName)
          return node !== undefined && readinessOf(node) !== 'True' ? [node.metadata.name] : []
        })

        /** Notes a sign of life; says when the last one was, on our monotonic clock. */
        function heard(node: Node, lease: Lease | undefined): number | undefined {
          const ready = findCondition(node.status.conditions, 'Ready')
          // This one we wrote ourselves.
          const beat = ready?.reason === 'NodeStatusNeverUpdated' ? '' : (ready?.lastHeartbeatTime ?? '')
          const renewed = lease?.spec.renewTime ?? ''
          if (beat === '' && renewed === '') return undefined
          const of = `${node.metadata.uid}|${renewed}|${beat}`
          const known = signs.get(node.metadata.name)
          if (known?.of === of) return known.at
          const at = clock.monotonic()
          signs.set(node.metadata.name, { of, at })
          return at
        }

        function evictionOf(node: Node): Eviction {
          const zone = zoneOf(node)
          if (readinessOf(node) === 'True') {
            rates.recovered(zone, node.metadata.name)
            return 'evict'
          }
          const { cutOff, byZone } = evictionRates(all.list())
          if (cutOff) return 'lift'
          return rates.allows(zone, node.metadata.name, byZone.get(zone) ?? 0) ? 'evict' : 'hold'
        }

        return async (key, look) => {
          await writes.whenSeen(key, look.signal)
          let node = all.get(key)
          if (node === undefined) {
            signs.delete(key)
            said.delete(key)
            writes.forget(key)
            return awaitChange
          }
          const heardAt = heard(node, nodeLeases.get(`${leaseNamespace}/${key}`))
          // From our monotonic clock to wall time, which the node's age is in.
          const offset = clock.now() - clock.monotonic()
          const lost = lostAt(node, heardAt === undefined ? undefined : heardAt + offset, graces)
          const isLost = clock.now() >= lost
          try {
            const conditions = isLost ? planLost(node, clock.now()) : undefined
            if (conditions !== undefined) {
              node = await writeConditions(client, node, conditions, look.signal)
              writes.wrote(key, all, node)
              look.log.warn({}, 'the node gives no sign of life')
            }
            const before = said.get(key)
            const readiness = readinessOf(node)
            said.set(key, readiness)
            if (before === 'True' && readiness !== 'True')
              events.record(node, {
                type: 'Normal',
                reason: 'NodeNotReady',
                message: `Node ${key} status is now: NodeNotReady`,
              })
            const taints = planTaints(node, evictionOf(node), clock.now())
            if (taints !== undefined) {
              node = await writeTaints(client, node, taints, look.signal)
              writes.wrote(key, all, node)
            }
            // A node that says itself that it is not ready still reports its pods; only of a lost one nobody else does.
            if (readiness === 'Unknown')
              await markPodsNotReady({ client, events, clock }, podsByNode.get(key), look.signal)
            if (readiness !== 'True')
              return requeueAfter(isLost ? unreadyRetryMs : Math.min(unreadyRetryMs, lost - clock.now()))
          } catch (error) {
            if (isStatus(error, 'NotFound')) return awaitChange
            throw error
          }
          return requeueAfter(Math.max(1, lost - clock.now()))
        }
      },
    })
  }
