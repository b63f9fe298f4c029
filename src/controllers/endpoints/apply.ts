import type { Endpoints } from '#api/gen/core-v1.ts'
import { endpoints } from '#api/gen/resources.ts'
import { isStatus } from '#api/meta/status.ts'
import type { Client } from '#client/client.ts'
import { parseKey } from '#client/key.ts'
import { isNamespaceTerminating } from '#reconcile/errors.ts'
import type { Action } from './plan.ts'

/** Does the write; undefined when the namespace is going and nothing can be made in it. */
export async function applyAction(client: Client, action: Action, signal: AbortSignal): Promise<Endpoints | undefined> {
  switch (action.do) {
    case 'create':
      try {
        return await client.create(endpoints, action.endpoints, { signal })
      } catch (error) {
        if (isNamespaceTerminating(error)) return undefined
        throw error
      }
    case 'update':
      return client.update(endpoints, action.endpoints, { signal })
    default:
      return action satisfies never
  }
}

/** The Endpoints of a Service that is gone. */
export async function removeEndpoints(client: Client, key: string, signal: AbortSignal): Promise<void> {
  try {
    await client.delete(endpoints, parseKey(key), { signal })
  } catch (error) {
    if (!isStatus(error, 'NotFound')) throw error
  }
}
