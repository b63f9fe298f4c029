import type { Namespace, ServiceAccount } from '#api/gen/core-v1.ts'

/** The account that pods of a namespace run as when they name none. */
export const defaultAccount = 'default'

export type Action = { readonly do: 'create-account'; readonly namespace: string } | { readonly do: 'nothing' }

/** Every namespace that lives has its default account. Pure. */
export function planServiceAccount(namespace: Namespace | undefined, account: ServiceAccount | undefined): Action {
  if (namespace === undefined || namespace.metadata.deletionTimestamp !== undefined) return { do: 'nothing' }
  if (account !== undefined) return { do: 'nothing' }
  return { do: 'create-account', namespace: namespace.metadata.name }
}
