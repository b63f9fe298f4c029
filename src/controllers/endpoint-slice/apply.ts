import type { EndpointSlice } from '#api/gen/discovery-v1.ts'
import { endpointSlices } from '#api/gen/resources.ts'
import { isStatus } from '#api/meta/status.ts'
import type { Client } from '#client/client.ts'
import { isNamespaceTerminating } from '#reconcile/errors.ts'
import type { Action } from './pack.ts'

export interface Effects {
  readonly client: Client
  readonly signal: AbortSignal
  wrote(answer: EndpointSlice): void
  deleted(slice: EndpointSlice): void
}

/** Does one write. Who was first with a deletion does not matter, nor what cannot be made in a namespace that is going. */
export async function applyAction({ client, signal, wrote, deleted }: Effects, action: Action): Promise<void> {
  switch (action.do) {
    case 'create':
      try {
        wrote(await client.create(endpointSlices, action.slice, { signal }))
      } catch (error) {
        if (!isNamespaceTerminating(error)) throw error
      }
      return
    case 'update':
      wrote(await client.update(endpointSlices, action.slice, { signal }))
      return
    case 'delete':
      try {
        const { uid } = action.slice.metadata
        await client.delete(endpointSlices, action.slice.metadata, { preconditions: { uid }, signal })
        deleted(action.slice)
      } catch (error) {
        if (!isStatus(error, 'NotFound')) throw error
      }
      return
    default:
      action satisfies never
  }
}
