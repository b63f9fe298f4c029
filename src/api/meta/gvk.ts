export interface GroupVersion {
  readonly group: string
  readonly version: string
}

/** `apps/v1` -> {group: 'apps', version: 'v1'}; `v1` is the core group. Undefined for anything else. */
export function parseApiVersion(apiVersion: string): GroupVersion | undefined {
  const slash = apiVersion.indexOf('/')
  if (slash < 0) return apiVersion === '' ? undefined : { group: '', version: apiVersion }
  if (apiVersion.indexOf('/', slash + 1) >= 0) return undefined
  return { group: apiVersion.slice(0, slash), version: apiVersion.slice(slash + 1) }
}

export function formatApiVersion({ group, version }: GroupVersion): string {
  return group === '' ? version : `${group}/${version}`
}

/** Group of an apiVersion, `''` for core or nothing readable. */
export function groupOf(apiVersion: string): string {
  return parseApiVersion(apiVersion)?.group ?? ''
}
