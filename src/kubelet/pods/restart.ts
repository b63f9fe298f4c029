import type { Container, PodSpec } from '#api/gen/core-v1.ts'
import type { ContainerRecord } from '../runtime/runtime.ts'
import type { RestartBackoff } from './facts.ts'

/** Upstream's numbers: the first restart at once, then 10 s doubling to 5 min; ten minutes of running forgive it all. */
const firstMs = 10_000
const maxMs = 300_000
const forgivenAfterMs = 2 * maxMs

/** Whether a container that has ended is to run again, by the policy that governs it. */
export function runsAgain(spec: Container, pod: PodSpec, exitCode: number, kind: 'init' | 'sidecar' | 'app'): boolean {
  const rule = spec.restartPolicyRules?.find(({ exitCodes }) => {
    if (exitCodes === undefined) return false
    const listed = (exitCodes.values ?? []).includes(exitCode)
    return exitCodes.operator === 'In' ? listed : !listed
  })
  if (rule?.action === 'Restart') return true
  const policy = spec.restartPolicy ?? pod.restartPolicy ?? 'Always'
  // An init container that has done its work has done it, whatever the pod's policy.
  if (kind === 'init') return exitCode !== 0 && policy !== 'Never'
  return policy === 'Always' || (policy === 'OnFailure' && exitCode !== 0)
}

/** When the ended container may run again; ms. */
export function restartableAt(record: ContainerRecord, backoff: RestartBackoff | undefined): number {
  if (backoff === undefined || isForgiven(record, backoff)) return record.finishedAt
  return record.finishedAt + backoff.waitMs
}

/** The back-off after starting the container once more. */
export function raise(record: ContainerRecord, backoff: RestartBackoff | undefined): RestartBackoff {
  if (backoff === undefined || isForgiven(record, backoff)) return { waitMs: firstMs, at: record.finishedAt }
  return { waitMs: Math.min(maxMs, backoff.waitMs * 2), at: record.finishedAt }
}

const isForgiven = (record: ContainerRecord, backoff: RestartBackoff): boolean =>
  record.finishedAt - backoff.at > forgivenAfterMs

/** What an agent that has just come up takes for the back-off of a container that was restarted before its time. */
export function adoptedBackoff(record: ContainerRecord): RestartBackoff | undefined {
  if (record.attempt === 0) return undefined
  return { waitMs: Math.min(maxMs, firstMs * 2 ** Math.min(10, record.attempt - 1)), at: record.createdAt }
}
