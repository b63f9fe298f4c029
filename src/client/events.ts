import type { Event } from '#api/gen/core-v1.ts'
import { events } from '#api/gen/resources.ts'
import type { KubeObject } from '#api/meta/resource.ts'
import { isStatus, StatusError } from '#api/meta/status.ts'
import { Backoff } from '#base/async/backoff.ts'
import { delay } from '#base/async/delay.ts'
import { Queue } from '#base/async/queue.ts'
import { type Clock, systemClock } from '#base/clock.ts'
import { type Log, silentLog } from '#base/log/log.ts'
import type { Client, Draft } from './client.ts'

/** What an event is about, and what `kubectl describe` shows. */
export interface EventNote {
  readonly type: 'Normal' | 'Warning'
  /** One word in capitals: `FailedScheduling`. */
  readonly reason: string
  readonly message: string
  /** A part of the object: `spec.containers{web}`. */
  readonly fieldPath?: string
}

export interface EventRecorderOptions {
  readonly client: Client
  /** Upstream's name of the part: `default-scheduler`, `deployment-controller`, `kubelet`. */
  readonly component: string
  /** The node, for what runs on one. */
  readonly host?: string
  readonly clock?: Clock
  readonly log?: Log
}

/** Notes waiting to be written; a part that says more than this faster than the server takes it says it in vain. */
const waitingMax = 1_000
/** Groups of like events that are remembered. */
const rememberedMax = 4_096
/** From this many different messages of one reason in `similarWithinMs` on, they are one event. */
const similarMax = 10
const similarWithinMs = 600_000
/** Per object: this many at once, then one every 5 minutes. */
const burstMax = 25
const refillMs = 300_000
const attemptsMax = 12

interface Group {
  /** Different messages seen, for telling similar from identical. */
  messages: Set<string>
  since: number
}
interface Written {
  readonly name: string
  count: number
}
interface Bucket {
  tokens: number
  at: number
}

/**
 * Writes core/v1 Events. `record` never waits and never throws: notes go on a bounded queue that `run` empties.
 * Identical events become a count on one; more than 10 similar ones within 10 minutes are combined; an object that is
 * talked about too much is cut off (upstream's numbers).
 */
export class EventRecorder {
  readonly #options: EventRecorderOptions
  readonly #clock: Clock
  readonly #log: Log
  readonly #queue = new Queue<Event>(waitingMax)
  readonly #groups = new Map<string, Group>()
  readonly #written = new Map<string, Written>()
  readonly #buckets = new Map<string, Bucket>()
  #dropped = 0
  #serial = 0

  constructor(options: EventRecorderOptions) {
    this.#options = options
    this.#clock = options.clock ?? systemClock
    this.#log = options.log ?? silentLog
  }

  /** Notes that were not written: too many, or the server would not have them. */
  get dropped(): number {
    return this.#dropped
  }

  record(about: KubeObject, note: EventNote): void {
    const event = this.#event(about, note)
    if (!this.#allowed(event) || !this.#queue.push(event)) this.#dropped++
  }

  /** Writes what is recorded until `signal` aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const stop = () => this.#queue.close()
    if (signal.aborted) return
    signal.addEventListener('abort', stop, { once: true })
    for await (const event of this.#queue) {
      if (signal.aborted) return
      await this.#write(event, signal)
    }
  }

  #event({ apiVersion, kind, metadata }: KubeObject, note: EventNote): Event {
    const at = `${new Date(this.#clock.now()).toISOString().slice(0, 19)}Z`
    const { component, host } = this.#options
    // Unique among the events of the object: wall time in nanoseconds as upstream, with a serial number for the last digits.
    const suffix = (BigInt(this.#clock.now()) * 1_000_000n + BigInt(this.#serial++ % 1_000_000)).toString(16)
    const { name, uid, resourceVersion, namespace } = metadata
    return {
      apiVersion: 'v1',
      kind: 'Event',
      metadata: { name: `${name}.${suffix}`, namespace: namespace || 'default' } as Event['metadata'],
      involvedObject: {
        kind,
        apiVersion,
        name,
        uid,
        resourceVersion,
        ...(namespace ? { namespace } : {}),
        ...(note.fieldPath === undefined ? {} : { fieldPath: note.fieldPath }),
      },
      reason: note.reason,
      message: note.message.length > 1024 ? `${note.message.slice(0, 1021)}...` : note.message,
      type: note.type,
      source: { component, ...(host === undefined ? {} : { host }) },
      reportingComponent: component,
      reportingInstance: host ?? '',
      firstTimestamp: at,
      lastTimestamp: at,
      count: 1,
    }
  }

  /** Upstream's spam filter: a bucket per object. */
  #allowed(event: Event): boolean {
    const key = objectId(event)
    const now = this.#clock.monotonic()
    const bucket = remember(this.#buckets, key, () => ({ tokens: burstMax, at: now }))
    bucket.tokens = Math.min(burstMax, bucket.tokens + (now - bucket.at) / refillMs)
    bucket.at = now
    if (bucket.tokens < 1) return false
    bucket.tokens--
    return true
  }

  /** Combines what is too varied, and says under which id the event is counted. */
  #combine(event: Event): { readonly id: string; readonly event: Event } {
    const groupId = `${objectId(event)}|${event.type}|${event.reason}`
    const now = this.#clock.monotonic()
    const group = remember(this.#groups, groupId, () => ({ messages: new Set<string>(), since: now }))
    if (now - group.since > similarWithinMs) {
      group.messages.clear()
      group.since = now
    }
    const message = event.message ?? ''
    if (group.messages.size < similarMax) group.messages.add(message)
    if (group.messages.has(message)) return { id: `${groupId}|${message}`, event }
    return { id: groupId, event: { ...event, message: `(combined from similar events): ${message}` } }
  }

  async #write(original: Event, signal: AbortSignal): Promise<void> {
    const { id, event } = this.#combine(original)
    const backoff = new Backoff({ firstMs: 500, maxMs: 10_000, jitter: 0.5 })
    for (let attempt = 1; ; attempt++) {
      try {
        await this.#send(id, event, signal)
        return
      } catch (error) {
        if (signal.aborted) return
        // A refusal stays one (the namespace is going, we lack the right); trouble on the way may pass.
        const refused = error instanceof StatusError && error.code < 500 && error.code !== 429
        if (refused || attempt >= attemptsMax) {
          this.#dropped++
          const level = isStatus(error, 'NotFound') || isTerminating(error) ? 'debug' : 'warn'
          this.#log[level]({ err: error, reason: event.reason, about: event.involvedObject }, 'cannot write an event')
          return
        }
        try {
          await delay(backoff.next(), signal, this.#clock)
        } catch {
          return
        }
      }
    }
  }

  async #send(id: string, event: Event, signal: AbortSignal): Promise<void> {
    const { client } = this.#options
    const known = this.#written.get(id)
    if (known !== undefined) {
      const key = { namespace: event.metadata.namespace, name: known.name }
      const { message = '', lastTimestamp = '' } = event
      try {
        await client.patch(events, key, 'merge', { count: known.count + 1, lastTimestamp, message }, { signal })
        known.count++
        return
      } catch (error) {
        // Events expire: then it is a new one again.
        if (!isStatus(error, 'NotFound')) throw error
        this.#written.delete(id)
      }
    }
    await client.create(events, event as Draft<Event>, { signal })
    remember(this.#written, id, () => ({ name: event.metadata.name, count: 1 }))
  }
}

const objectId = ({ involvedObject: o, source }: Event): string =>
  [source.component, source.host, o.kind, o.namespace, o.name, o.uid, o.fieldPath].join('|')

const isTerminating = (error: unknown): boolean =>
  error instanceof StatusError && (error.status.details?.causes ?? []).some((c) => c.reason === 'NamespaceTerminating')

/** A map that forgets what was used longest ago. */
function remember<V>(map: Map<string, V>, key: string, make: () => V): V {
  const value = map.get(key) ?? make()
  map.delete(key)
  map.set(key, value)
  if (map.size > rememberedMax) {
    const [oldest] = map.keys()
    if (oldest !== undefined) map.delete(oldest)
  }
  return value
}
