import type { Service } from '#api/gen/core-v1.ts'
import type { Subject } from '#api/gen/rbac-v1.ts'
import { roleBindings, roles, services } from '#api/gen/resources.ts'
import { isStatus } from '#api/meta/status.ts'
import type { Client } from '#client/client.ts'
import type { Gateway } from '#gateway/objects.ts'
import { serviceNameOf } from '#gateway/service.ts'
import { isNamespaceTerminating } from '#reconcile/errors.ts'
import { bindingFor, certificatesName, type RoleAction } from './certificates.ts'
import type { ServiceAction } from './service.ts'

/** Does the write; the Service as it is then, or undefined where there is none. */
export async function applyService(
  client: Client,
  gateway: Gateway,
  action: ServiceAction,
  signal: AbortSignal,
): Promise<Service | undefined> {
  const key = { namespace: gateway.metadata.namespace, name: serviceNameOf(gateway.metadata.name) }
  switch (action.do) {
    case 'create':
      try {
        return await client.create(services, action.service, { signal })
      } catch (error) {
        if (isNamespaceTerminating(error)) return undefined
        throw error
      }
    case 'patch':
      return client.patch(services, key, 'merge', action.patch, { signal })
    case 'delete':
      await ignoring('NotFound', client.delete(services, key, { signal }))
      return undefined
    default:
      return action satisfies never
  }
}

/** The Role first, then who has it; taken away in reverse. */
export async function applyRole(
  client: Client,
  namespace: string,
  action: RoleAction,
  readers: readonly Subject[],
  signal: AbortSignal,
): Promise<void> {
  const key = { namespace, name: certificatesName }
  try {
    switch (action.do) {
      case 'create':
        await client.create(roles, action.role, { signal })
        await ignoring('AlreadyExists', client.create(roleBindings, bindingFor(namespace, readers), { signal }))
        return
      case 'update':
        await client.update(roles, action.role, { signal })
        return
      case 'delete':
        await ignoring('NotFound', client.delete(roleBindings, key, { signal }))
        await ignoring('NotFound', client.delete(roles, key, { signal }))
        return
      default:
        return action satisfies never
    }
  } catch (error) {
    if (!isNamespaceTerminating(error)) throw error
  }
}

async function ignoring(reason: string, work: Promise<unknown>): Promise<void> {
  try {
    await work
  } catch (error) {
    if (!isStatus(error, reason)) throw error
  }
}
