import type { Resource } from '#api/meta/resource.ts'

const verbs = ['create', 'delete', 'deletecollection', 'get', 'list', 'patch', 'update', 'watch']

/** What a server that serves these resources answers at `path`; undefined for other paths. */
export function discoveryDocument(path: string, resources: readonly Resource[]): unknown {
  const groups = new Map<string, Set<string>>()
  for (const { group, version } of resources) groups.set(group, (groups.get(group) ?? new Set()).add(version))
  if (path === '/api') return { kind: 'APIVersions', versions: [...(groups.get('') ?? [])] }
  if (path === '/apis')
    return {
      kind: 'APIGroupList',
      groups: [...groups]
        .filter(([name]) => name !== '')
        .map(([name, versions]) => {
          const all = [...versions].map((version) => ({ groupVersion: `${name}/${version}`, version }))
          return { name, versions: all, preferredVersion: all[0] }
        }),
    }
  const match = /^\/api(?:s\/([^/]+))?\/([^/]+)$/.exec(path)
  if (!match) return undefined
  const [, group = '', version] = match
  const inside = resources.filter((r) => r.group === group && r.version === version)
  if (inside.length === 0) return undefined
  return {
    kind: 'APIResourceList',
    groupVersion: group === '' ? version : `${group}/${version}`,
    resources: inside.map(({ resource: name, kind, namespaced }) => ({
      name,
      kind,
      namespaced,
      singularName: '',
      verbs,
    })),
  }
}
