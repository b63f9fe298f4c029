import { customResourceDefinitions } from '#api/gen/resources.ts'
import { aborted } from '#base/async/delay.ts'
import { awaitChange } from '#reconcile/controller.ts'
import { createLoop, type LoopContext } from '#reconcile/loop.ts'
import type { Part } from '#reconcile/manager.ts'
import { Collection } from './apply.ts'
import { type Consequences, Graph } from './graph.ts'
import { Monitors } from './monitors.ts'

/** Key of an object to look at: its uid. Of one whose dependents are to be let go: the uid behind this. */
const orphanPrefix = 'orphan:'

/**
 * Deletes what nobody owns any more: in the background, in the foreground (owners wait for those that block them) or
 * by letting dependents go. Works on the metadata of every resource there is. Keys are uids.
 */
export function garbageCollector(context: LoopContext): Part {
  const { client, informers, clock } = context
  const log = context.log.child({ controller: context.name })
  return createLoop(context, {
    reads: [customResourceDefinitions],
    workers: 20,
    begin({ controller, events, start }) {
      const graph = new Graph()
      const onConsequences = ({ look, orphan }: Consequences) => {
        for (const uid of look) controller.enqueue(uid)
        for (const uid of orphan) controller.enqueue(`${orphanPrefix}${uid}`)
      }
      const monitors = new Monitors({ client, informers, graph, clock, log, onConsequences, start })
      const collection = new Collection({ client, graph, monitors, events, onConsequences })
      start((signal) => monitors.run(signal))
      return async (key, look) => {
        await Promise.race([monitors.ready, aborted(look.signal)])
        if (key.startsWith(orphanPrefix)) await collection.letGo(key.slice(orphanPrefix.length), look)
        else await collection.look(key, look)
        return awaitChange
      }
    },
  })
}
