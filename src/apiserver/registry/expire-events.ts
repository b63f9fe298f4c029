import { events } from '#api/gen/resources.ts'
import { parseTime } from '#api/meta/time.ts'
import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log/log.ts'
import type { Registry } from './registry.ts'

/** Upstream's `--event-ttl`. */
const eventTtlMs = 3_600_000
const lookEveryMs = 60_000

/** Removes events an hour after they were last seen. Returns how to stop. */
export function expireEvents(registry: Registry, clock: Clock, log: Log): () => void {
  let stopped = false
  let cancel = (): void => {}
  const look = async (): Promise<void> => {
    if (!registry.serves(events)) return
    const oldest = clock.now() - eventTtlMs
    for (const event of [...registry.list(events)]) {
      const { lastTimestamp, eventTime, series, metadata } = event
      const seen = parseTime(series?.lastObservedTime) ?? parseTime(lastTimestamp) ?? parseTime(eventTime)
      if ((seen ?? parseTime(metadata.creationTimestamp) ?? oldest) > oldest) continue
      await registry.delete(events, metadata.namespace ?? '', metadata.name)
    }
  }
  const schedule = (): void => {
    cancel = clock.schedule(lookEveryMs, () => {
      look()
        .catch((error: unknown) => log.warn({ err: error }, 'cannot remove old events'))
        .finally(() => {
          if (!stopped) schedule()
        })
    })
  }
  schedule()
  return () => {
    stopped = true
    cancel()
  }
}
