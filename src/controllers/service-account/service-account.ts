import { namespaces, serviceAccounts } from '#api/gen/resources.ts'
import { isStatus } from '#api/meta/status.ts'
import { awaitChange } from '#reconcile/controller.ts'
import { isNamespaceTerminating } from '#reconcile/errors.ts'
import { createLoop, type LoopContext } from '#reconcile/loop.ts'
import type { Part } from '#reconcile/manager.ts'
import { defaultAccount, planServiceAccount } from './plan.ts'

/** Keeps the account `default` in every namespace. Keys are names of namespaces. */
export function serviceAccountController(context: LoopContext): Part {
  const { client, informers } = context
  return createLoop(context, {
    reads: [namespaces, serviceAccounts],
    begin({ controller, signal }) {
      const allNamespaces = informers.of(namespaces)
      const accounts = informers.of(serviceAccounts)
      controller.watch(allNamespaces, signal)
      controller.watch(accounts, signal, ({ metadata }) =>
        metadata.name === defaultAccount ? [metadata.namespace] : [],
      )
      return async (key, look) => {
        const action = planServiceAccount(allNamespaces.get(key), accounts.get(`${key}/${defaultAccount}`))
        if (action.do === 'nothing') return awaitChange
        try {
          const metadata = { name: defaultAccount, namespace: action.namespace }
          await client.create(serviceAccounts, { metadata }, { signal: look.signal })
        } catch (error) {
          // Somebody was faster, or the namespace has begun to go: either way there is nothing left to do.
          const settled = isStatus(error, 'AlreadyExists') || isStatus(error, 'NotFound')
          if (!settled && !isNamespaceTerminating(error)) throw error
        }
        return awaitChange
      }
    },
  })
}
