import type { ConfigMap, Namespace } from '#api/gen/core-v1.ts'

/** Where a pod finds the authority that signed the API server's certificate. */
export const rootCaName = 'kube-root-ca.crt'
const rootCaFile = 'ca.crt'

export type Action =
  | { readonly do: 'nothing' }
  | { readonly do: 'create' | 'repair'; readonly namespace: string; readonly data: Readonly<Record<string, string>> }

/** Every namespace that lives has the map, with exactly the authority in it. Pure. */
export function planRootCa(namespace: Namespace | undefined, map: ConfigMap | undefined, rootCa: string): Action {
  if (namespace === undefined || namespace.metadata.deletionTimestamp !== undefined) return { do: 'nothing' }
  const data = { [rootCaFile]: rootCa }
  if (map === undefined) return { do: 'create', namespace: namespace.metadata.name, data }
  const entries = Object.entries(map.data ?? {})
  if (entries.length === 1 && map.data?.[rootCaFile] === rootCa) return { do: 'nothing' }
  return { do: 'repair', namespace: namespace.metadata.name, data }
}
