import type { Namespace } from '#api/gen/core-v1.ts'
import { namespaces, pods } from '#api/gen/resources.ts'
import { contentFinalizer } from '#api/meta/finalizers.ts'
import { isStatus } from '#api/meta/status.ts'
import { formatTime } from '#api/meta/time.ts'
import { discover } from '#client/discovery.ts'
import { awaitChange, requeueAfter } from '#reconcile/controller.ts'
import { isAccessDenied } from '#reconcile/errors.ts'
import { createLoop, type LoopContext } from '#reconcile/loop.ts'
import type { Part } from '#reconcile/manager.ts'
import { deleteContent } from './apply.ts'
import { isEmpty, nextLookMs, planConditions } from './plan.ts'

/**
 * Empties namespaces that are being deleted, then lets them go. What is in them is asked of the server anew each time,
 * so custom resources of any kind are found. Keys are names of namespaces.
 */
export function namespaceController(context: LoopContext): Part {
  const { client, informers, clock } = context
  return createLoop(context, {
    reads: [namespaces, pods],
    workers: 10,
    begin({ controller, signal }) {
      const all = informers.of(namespaces)
      controller.watch(all, signal, (namespace) => (isGoing(namespace) ? [namespace.metadata.name] : []))
      // The last pod has ended: what it used may go now, without waiting for the next look.
      informers.of(pods).onChange((next, old) => {
        const name = old?.metadata.namespace
        if (next !== undefined || name === undefined) return
        const namespace = all.get(name)
        if (namespace !== undefined && isGoing(namespace)) controller.enqueue(name)
      }, signal)
      return async (key, look) => {
        let namespace = all.get(key)
        if (namespace === undefined || !isGoing(namespace)) return awaitChange
        const findings = await deleteContent(client, key, await discover(client, look.signal), look.signal)
        const denied = findings.failures.find(({ error }) => isAccessDenied(error))
        if (denied !== undefined) throw denied.error
        try {
          // From the server, not from the copy: the conditions of the last look may not be in it yet.
          namespace = await client.get(namespaces, { name: key }, { signal: look.signal })
          if (!isGoing(namespace)) return awaitChange
          const present = namespace.status.conditions
          const conditions = planConditions(present, findings, formatTime(clock.now()))
          if (conditions !== present) {
            const status = { ...namespace.status, conditions: [...conditions] }
            const options = { subresource: 'status', signal: look.signal }
            namespace = await client.update(namespaces, { ...namespace, status }, options)
          }
          if (!isEmpty(findings)) {
            look.log.debug({ remaining: Object.fromEntries(findings.remaining) }, 'the namespace is not empty yet')
            return requeueAfter(nextLookMs(findings))
          }
          const finalizers = (namespace.spec.finalizers ?? []).filter((f) => f !== contentFinalizer)
          const spec = { ...namespace.spec, finalizers }
          await client.update(namespaces, { ...namespace, spec }, { subresource: 'finalize', signal: look.signal })
          look.log.info({}, 'the namespace is empty')
        } catch (error) {
          if (!isStatus(error, 'NotFound')) throw error
        }
        return awaitChange
      }
    },
  })
}

const isGoing = ({ metadata, spec }: Namespace): boolean =>
  metadata.deletionTimestamp !== undefined && (spec.finalizers ?? []).includes(contentFinalizer)
