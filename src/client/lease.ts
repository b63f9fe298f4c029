import type { Lease } from '#api/gen/coordination-v1.ts'
import type { OwnerReference } from '#api/gen/meta-v1.ts'
import { leases } from '#api/gen/resources.ts'
import { isStatus } from '#api/meta/status.ts'
import { formatMicroTime } from '#api/meta/time.ts'
import { Backoff } from '#base/async/backoff.ts'
import { delay } from '#base/async/delay.ts'
import { type Clock, systemClock } from '#base/clock.ts'
import { type Log, silentLog } from '#base/log/log.ts'
import type { Client, Draft, ObjectKey } from './client.ts'

export interface KeepLeaseOptions {
  readonly client: Client
  readonly key: ObjectKey & { readonly namespace: string }
  /** Whom the lease says is alive: a node's name, a process's identity. */
  readonly holder: string
  readonly durationSeconds: number
  /** Milliseconds between renewals. Upstream's kubelet: 10 s for a lease of 40 s. */
  readonly everyMs: number
  /** Asked at creation: the object the lease lives and dies with (the Node), when it is there. */
  readonly owner?: () => OwnerReference | undefined
  readonly clock?: Clock
  readonly log?: Log
}

/** Says "still here" until `signal` aborts: one small write each time, made again if somebody deleted it. */
export async function keepLease(options: KeepLeaseOptions, signal: AbortSignal): Promise<void> {
  const { everyMs, clock = systemClock, log = silentLog } = options
  const backoff = new Backoff({ firstMs: 200, maxMs: Math.min(everyMs, 7_000), jitter: 0.3 })
  let lease: Lease | undefined
  while (!signal.aborted) {
    let pauseMs = everyMs
    try {
      lease = await renew(options, lease, clock, signal)
      backoff.reset()
    } catch (error) {
      if (signal.aborted) return
      // Somebody else wrote it, or removed it: look again before the next attempt.
      lease = undefined
      pauseMs = backoff.next()
      log.warn({ err: error, lease: options.key.name }, 'cannot renew the lease')
    }
    await delay(pauseMs, signal, clock).catch(() => {})
  }
}

async function renew(
  { client, key, holder, durationSeconds, owner }: KeepLeaseOptions,
  known: Lease | undefined,
  clock: Clock,
  signal: AbortSignal,
): Promise<Lease> {
  const renewTime = formatMicroTime(clock.now())
  const current = known ?? (await find(client, key, signal))
  const reference = owner?.()
  if (current === undefined) {
    const made: Draft<Lease> = {
      metadata: { ...key, ...(reference === undefined ? {} : { ownerReferences: [reference] }) },
      spec: { holderIdentity: holder, leaseDurationSeconds: durationSeconds, renewTime },
    }
    return client.create(leases, made, { signal })
  }
  const metadata =
    reference === undefined || (current.metadata.ownerReferences ?? []).length > 0
      ? current.metadata
      : { ...current.metadata, ownerReferences: [reference] }
  const spec = { ...current.spec, holderIdentity: holder, leaseDurationSeconds: durationSeconds, renewTime }
  return client.update(leases, { ...current, metadata, spec }, { signal })
}

async function find(client: Client, key: ObjectKey, signal: AbortSignal): Promise<Lease | undefined> {
  try {
    return await client.get(leases, key, { signal })
  } catch (error) {
    if (isStatus(error, 'NotFound')) return undefined
    throw error
  }
}
