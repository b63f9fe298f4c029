import type { APIGroupList, APIResource } from '#api/gen/meta-v1.ts'
import { formatApiVersion } from '#api/meta/gvk.ts'
import type { Resource } from '#api/meta/resource.ts'
import type { Client } from './client.ts'

/** A resource as the server lists it, with what may be done to it. */
export interface ServedResource extends Resource {
  readonly verbs: ReadonlySet<string>
}

export interface Discovered {
  /** One version of each resource: the one its group prefers. Without subresources. */
  readonly resources: readonly ServedResource[]
  /** Group versions that could not be asked, with the reason: what is in them is not known. */
  readonly failures: ReadonlyMap<string, unknown>
}

/**
 * Asks the server what it serves, by the plain documents that every server has. Throws when the lists of groups
 * themselves cannot be had; a single group that fails is in `failures`.
 */
export async function discover(client: Client, signal: AbortSignal): Promise<Discovered> {
  const [core, groups] = await Promise.all([
    client.raw('GET', '/api', undefined, signal) as Promise<{ versions?: string[] }>,
    client.raw('GET', '/apis', undefined, signal) as Promise<APIGroupList>,
  ])
  const failures = new Map<string, unknown>()
  const ask = async (group: string, version: string): Promise<ServedResource[]> => {
    const groupVersion = formatApiVersion({ group, version })
    const path = group === '' ? `/api/${version}` : `/apis/${groupVersion}`
    try {
      const list = (await client.raw('GET', path, undefined, signal)) as { resources?: APIResource[] }
      return (list.resources ?? []).filter((r) => !r.name.includes('/')).map((r) => served(group, version, r))
    } catch (error) {
      if (signal.aborted) throw error
      failures.set(groupVersion, error)
      return []
    }
  }
  const versions = [
    ...(core.versions ?? []).map((version) => ({ group: '', version })),
    ...groups.groups.flatMap(({ name, versions: of, preferredVersion }) => {
      // The preferred version first: a resource that is only in another one is still found there.
      const rest = of.filter((v) => v.version !== preferredVersion.version)
      return [preferredVersion, ...rest].map(({ version }) => ({ group: name, version }))
    }),
  ]
  const lists = await Promise.all(versions.map(({ group, version }) => ask(group, version)))
  const found = new Map<string, ServedResource>()
  for (const resource of lists.flat()) {
    const name = `${resource.group}/${resource.resource}`
    if (!found.has(name)) found.set(name, resource)
  }
  return { resources: [...found.values()], failures }
}

const served = (group: string, version: string, r: APIResource): ServedResource => ({
  group: r.group ?? group,
  version: r.version ?? version,
  resource: r.name,
  kind: r.kind,
  namespaced: r.namespaced,
  verbs: new Set(r.verbs),
})
