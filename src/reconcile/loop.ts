import type { Resource } from '#api/meta/resource.ts'
import { Scope } from '#base/async/scope.ts'
import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log/log.ts'
import type { Client } from '#client/client.ts'
import { EventRecorder } from '#client/events.ts'
import { type Copy, type Informers, syncedWithin } from '#client/informer.ts'
import { Controller, type Reconcile } from './controller.ts'
import type { Part } from './manager.ts'
import type { ReconcileMetrics } from './metrics.ts'

/** What every control loop is given: its own identity's client, the shared copies, and time. */
export interface LoopContext {
  /** Upstream's name: `deployment-controller`. Also the component of its events. */
  readonly name: string
  /** Everything the loop writes, and reads live, goes out under its own identity. */
  readonly client: Client
  /** Copies shared by all loops of the process. A loop checks its own right to read before it uses one. */
  readonly informers: Informers
  readonly clock: Clock
  readonly log: Log
  readonly metrics?: ReconcileMetrics
}

/** What a loop's set-up is given each time it starts. */
export interface LoopStart {
  readonly controller: Controller
  readonly events: EventRecorder
  readonly signal: AbortSignal
  /** Runs something else for as long as the loop runs; its failure stops the loop. */
  start(task: (signal: AbortSignal) => Promise<void>): void
}

export interface LoopOptions {
  /** What it reads from the shared copies: its own right to list each is asked for first, then the copies are awaited. */
  readonly reads: readonly Resource[]
  /** The same for copies with a selector or of one namespace. */
  readonly copies?: readonly Copy[]
  /** Keys worked on at once. Upstream has 5 for most. */
  readonly workers?: number
  /** Called at each start, when the copies are complete: watch informers here, and return what to do with a key. */
  begin(start: LoopStart): Reconcile
}

/** How long the first read may take; after that the part fails, says why, and is started again. */
const syncMs = 60_000

/** A control loop as a part: checks rights, waits for copies, watches, reconciles, writes events; all of it ends together. */
export function createLoop(context: LoopContext, options: LoopOptions): Part {
  const { name, client, informers, clock } = context
  return {
    name,
    async run(signal, started) {
      const copies: Copy[] = [...options.reads.map((resource) => informers.of(resource)), ...(options.copies ?? [])]
      for (const { resource, query } of copies) await client.list(resource, { ...query, limit: 1, signal })
      for (const copy of copies) await syncedWithin(copy, syncMs, signal, clock)
      const scope = new Scope(signal)
      try {
        begin(context, options, scope)
      } catch (error) {
        scope.start(() => Promise.reject(error))
      }
      started()
      // Throws what stopped it: itself, not wrapped, because the manager looks at what it is.
      await scope.done()
    },
  }
}

/** Everything that runs as long as the loop does, in `scope`. */
function begin(context: LoopContext, options: LoopOptions, scope: Scope): void {
  const { name, client, clock, log } = context
  const events = new EventRecorder({ client, component: name, clock, log: log.child({ controller: name }) })
  let reconcile: Reconcile | undefined
  const controller = new Controller({
    name,
    clock,
    log,
    ...(context.metrics === undefined ? {} : { metrics: context.metrics.queue(name) }),
    ...(options.workers === undefined ? {} : { workers: options.workers }),
    reconcile: (key, given) => {
      if (reconcile === undefined) throw new Error(`Cannot work on ${key}: ${name} has not begun`)
      return reconcile(key, given)
    },
  })
  reconcile = options.begin({ controller, events, signal: scope.signal, start: (task) => scope.start(task) })
  scope.start((signal) => events.run(signal))
  scope.start((signal) => controller.run(signal))
}
