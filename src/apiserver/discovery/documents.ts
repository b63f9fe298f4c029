import { createHash } from 'node:crypto'
import type { KindDefinition, Subresource } from '#api/kind.ts'
import { formatApiVersion } from '#api/meta/gvk.ts'
import { compareGroups, compareVersions } from './versions.ts'

/** What is served, by group and version in the order of preference. */
export interface ServedGroup {
  readonly name: string
  readonly versions: readonly { readonly version: string; readonly kinds: readonly KindDefinition[] }[]
}

export function groupsOf(kinds: readonly KindDefinition[]): ServedGroup[] {
  const groups = new Map<string, Map<string, KindDefinition[]>>()
  for (const kind of kinds) {
    const { group, version } = kind.resource
    const versions = groups.get(group) ?? new Map<string, KindDefinition[]>()
    groups.set(group, versions.set(version, [...(versions.get(version) ?? []), kind]))
  }
  return [...groups]
    .toSorted(([a], [b]) => compareGroups(a, b))
    .map(([name, versions]) => ({
      name,
      versions: [...versions]
        .toSorted(([a], [b]) => compareVersions(a, b))
        .map(([version, list]) => ({
          version,
          kinds: list.toSorted((a, b) => (a.resource.resource < b.resource.resource ? -1 : 1)),
        })),
    }))
}

/** `/api` without aggregation. `address` is where clients reach us: `172.30.0.1:6443`. */
export const apiVersions = (address: string): object => ({
  kind: 'APIVersions',
  versions: ['v1'],
  serverAddressByClientCIDRs: [{ clientCIDR: '0.0.0.0/0', serverAddress: address }],
})

export const apiGroupList = (groups: readonly ServedGroup[]): object => ({
  kind: 'APIGroupList',
  apiVersion: 'v1',
  groups: groups.filter((g) => g.name !== '').map(groupEntry),
})

export const apiGroup = (group: ServedGroup): object => ({ kind: 'APIGroup', apiVersion: 'v1', ...groupEntry(group) })

function groupEntry({ name, versions }: ServedGroup): object {
  const entries = versions.map(({ version }) => ({ groupVersion: formatApiVersion({ group: name, version }), version }))
  return { name, versions: entries, preferredVersion: entries[0] }
}

export function apiResourceList(group: string, version: string, kinds: readonly KindDefinition[]): object {
  return {
    kind: 'APIResourceList',
    ...(group === '' ? {} : { apiVersion: 'v1' }),
    groupVersion: formatApiVersion({ group, version }),
    resources: kinds.flatMap((kind) => [
      {
        name: kind.resource.resource,
        singularName: kind.singular,
        namespaced: kind.resource.namespaced,
        kind: kind.resource.kind,
        verbs: kind.verbs,
        ...(kind.shortNames.length > 0 ? { shortNames: kind.shortNames } : {}),
        ...(kind.categories.length > 0 ? { categories: kind.categories } : {}),
        ...(kind.verbs.includes('get') ? { storageVersionHash: storageVersionHash(kind) } : {}),
      },
      ...kind.subresources.map((sub) => legacySubresource(kind, sub)),
    ]),
  }
}

function legacySubresource(kind: KindDefinition, sub: Subresource): object {
  return {
    name: `${kind.resource.resource}/${sub.name}`,
    singularName: '',
    namespaced: kind.resource.namespaced,
    ...(sub.kind === undefined ? {} : { group: sub.group ?? kind.resource.group, version: sub.version ?? 'v1' }),
    kind: sub.kind ?? kind.resource.kind,
    verbs: sub.verbs,
  }
}

/** Upstream's formula: the first eight bytes of SHA-256 over group/version/kind, in base64. */
function storageVersionHash({ resource }: KindDefinition): string {
  const text = `${resource.group}/${resource.version}/${resource.kind}`
  return createHash('sha256').update(text).digest().subarray(0, 8).toString('base64')
}

/** The aggregated form (apidiscovery.k8s.io), of the core group for `/api` and of the others for `/apis`. */
export function aggregated(groups: readonly ServedGroup[], version: 'v2' | 'v2beta1'): object {
  return {
    kind: 'APIGroupDiscoveryList',
    apiVersion: `apidiscovery.k8s.io/${version}`,
    metadata: {},
    items: groups.map((group) => ({
      metadata: group.name === '' ? {} : { name: group.name },
      versions: group.versions.map((v) => ({
        version: v.version,
        resources: v.kinds.map(aggregatedResource),
        freshness: 'Current',
      })),
    })),
  }
}

function aggregatedResource(kind: KindDefinition): object {
  const { group, version, resource, kind: name, namespaced } = kind.resource
  return {
    resource,
    responseKind: { group, version, kind: name },
    scope: namespaced ? 'Namespaced' : 'Cluster',
    singularResource: kind.singular,
    verbs: kind.verbs,
    ...(kind.shortNames.length > 0 ? { shortNames: kind.shortNames } : {}),
    ...(kind.categories.length > 0 ? { categories: kind.categories } : {}),
    ...(kind.subresources.length > 0
      ? {
          subresources: kind.subresources.map((sub) => ({
            subresource: sub.name,
            responseKind: {
              group: sub.kind === undefined ? group : (sub.group ?? group),
              version: sub.kind === undefined ? version : (sub.version ?? 'v1'),
              kind: sub.kind ?? name,
            },
            verbs: sub.verbs,
          })),
        }
      : {}),
  }
}
