import type { TokenRequest } from '#api/gen/authentication-v1.ts'
import type { Pod } from '#api/gen/core-v1.ts'
import { serviceAccounts } from '#api/gen/resources.ts'
import { parseTime } from '#api/meta/time.ts'
import type { Clock } from '#base/clock.ts'
import type { Client, Draft } from '#client/client.ts'
import type { TokenSource } from './plugin.ts'

interface Kept {
  readonly token: string
  readonly expiresAt: number
  readonly refreshAt: number
}

/** A pod has a few tokens; a node has some hundred pods. What is least recently made goes first. */
const keptMax = 4096

/**
 * Asks the API server for tokens bound to a pod. One that has 20 % of its life left, or is a day old, is not given out
 * again.
 */
export function createTokenSource(client: Client, clock: Clock): TokenSource {
  const kept = new Map<string, Kept>()
  return {
    async request(pod: Pod, { audience, expirationSeconds }, signal) {
      const { namespace, name, uid } = pod.metadata
      const account = pod.spec.serviceAccountName || 'default'
      const key = JSON.stringify([uid, account, audience, expirationSeconds])
      const known = kept.get(key)
      if (known !== undefined && clock.now() < known.refreshAt) return known
      const body: Draft<TokenRequest> = {
        apiVersion: 'authentication.k8s.io/v1',
        kind: 'TokenRequest',
        metadata: {},
        spec: {
          audiences: audience === undefined || audience === '' ? [] : [audience],
          expirationSeconds,
          boundObjectRef: { apiVersion: 'v1', kind: 'Pod', name, uid },
        },
      }
      const answer = await client.createSubresource<TokenRequest>(
        serviceAccounts,
        { namespace, name: account },
        'token',
        body,
        { signal },
      )
      const now = clock.now()
      const expiresAt = parseTime(answer.status.expirationTimestamp) ?? now + expirationSeconds * 1000
      const fresh = {
        token: answer.status.token ?? '',
        expiresAt,
        // As upstream: when a fifth of its life is left, and at the latest after a day.
        refreshAt: Math.min(now + (expiresAt - now) * 0.8, now + 24 * 3_600_000),
      }
      kept.delete(key)
      kept.set(key, fresh)
      const [oldest] = kept.keys()
      if (kept.size > keptMax && oldest !== undefined) kept.delete(oldest)
      return fresh
    },
  }
}
