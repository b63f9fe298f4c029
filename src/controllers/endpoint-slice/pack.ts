import type { Endpoint, EndpointPort, EndpointSlice } from '#api/gen/discovery-v1.ts'
import { sameLabels } from '#api/meta/labels.ts'
import { controllerReference, isControlledBy } from '#api/meta/owner.ts'
import type { KubeObject, Resource } from '#api/meta/resource.ts'
import type { Draft } from '#client/client.ts'
import type { Family } from './service-pods.ts'

/** Endpoints into slices, by as few writes as can be: every write of a slice goes to every node. */

export const managedByLabel = 'endpointslice.kubernetes.io/managed-by'

const endpointsPerSliceMax = 100

export type Action =
  | { readonly do: 'create'; readonly slice: Draft<EndpointSlice> }
  | { readonly do: 'update'; readonly slice: EndpointSlice }
  | { readonly do: 'delete'; readonly slice: EndpointSlice }

/** Endpoints that have the same ports. */
export interface Group {
  readonly ports: readonly EndpointPort[]
  /** Endpoints by identity. */
  readonly endpoints: Map<string, Endpoint>
}

/** What slices are made with. */
export interface Making {
  readonly owner: KubeObject
  readonly ownerResource: Resource
  readonly labels: Readonly<Record<string, string>>
  /** The annotations of a slice that is written, given those it has. */
  annotate(present: Readonly<Record<string, string>>): Record<string, string>
  /** Whether there is to be a slice even when there are no endpoints. */
  readonly placeholder: boolean
}

/** The writes that bring the slices of one family to the groups, which are keyed by `portsKey`. */
export function planGroups(
  making: Making,
  family: Family,
  groups: ReadonlyMap<string, Group>,
  slices: readonly EndpointSlice[],
): Action[] {
  const present = new Map<string, EndpointSlice[]>()
  const doomed: EndpointSlice[] = []
  for (const slice of slices) {
    const key = portsKey(slice.ports ?? [])
    if (!isControlledBy(slice, making.owner) || !groups.has(key)) doomed.push(slice)
    else present.set(key, [...(present.get(key) ?? []), slice])
  }
  const packed: Packed[] = []
  for (const [key, group] of groups) {
    const { kept, emptied } = pack(group, present.get(key) ?? [])
    packed.push(...kept)
    doomed.push(...emptied)
  }
  // Clients tell "no endpoints" from "not looked at yet" by there being a slice.
  if (packed.length === 0 && making.placeholder) packed.push(placeholder(doomed))
  return writes(making, family, packed, doomed)
}

/** New before changed before old: an endpoint that moves between slices is in both for a moment, never in none. */
export function inSafeOrder(actions: readonly Action[]): Action[] {
  const order = { create: 0, update: 1, delete: 2 }
  return actions.toSorted((a, b) => order[a.do] - order[b.do])
}

/** Adds to the group of these ports. */
export function addToGroup(groups: Map<string, Group>, ports: readonly EndpointPort[], endpoint: Endpoint): void {
  const key = portsKey(ports)
  let group = groups.get(key)
  if (group === undefined) {
    group = { ports, endpoints: new Map() }
    groups.set(key, group)
  }
  group.endpoints.set(identity(endpoint), endpoint)
}

const portsKey = (ports: readonly EndpointPort[]): string =>
  ports
    .map(({ name = '', port, protocol = 'TCP', appProtocol = '' }) => `${name}|${port}|${protocol}|${appProtocol}`)
    .toSorted()
    .join(',')

const identity = ({ addresses, targetRef }: Endpoint): string => `${targetRef?.uid ?? ''}/${addresses.join()}`

const hintText = ({ hints }: Endpoint): string =>
  [hints?.forZones, hints?.forNodes].map((list) => (list ?? []).map(({ name }) => name).join()).join(';')

const sameEndpoint = (a: Endpoint, b: Endpoint): boolean =>
  a.conditions.ready === b.conditions.ready &&
  a.conditions.serving === b.conditions.serving &&
  a.conditions.terminating === b.conditions.terminating &&
  a.hostname === b.hostname &&
  a.nodeName === b.nodeName &&
  a.zone === b.zone &&
  hintText(a) === hintText(b)

/** A slice as it is to be: `from` is what it is made of, undefined for a new one. */
interface Packed {
  readonly ports: readonly EndpointPort[]
  readonly endpoints: readonly Endpoint[]
  readonly from: EndpointSlice | undefined
  readonly changed: boolean
}

/**
 * Keeps every endpoint in the slice where it is. New ones fill slices that are written anyway; what is left goes into
 * one untouched slice if it fits there whole, else into new slices.
 */
function pack(group: Group, slices: readonly EndpointSlice[]): { kept: Packed[]; emptied: EndpointSlice[] } {
  const missing = new Map(group.endpoints)
  const open: { from: EndpointSlice | undefined; endpoints: Endpoint[]; changed: boolean }[] = []
  const emptied: EndpointSlice[] = []
  for (const slice of slices) {
    const endpoints: Endpoint[] = []
    let changed = false
    for (const old of slice.endpoints ?? []) {
      const key = identity(old)
      const next = missing.get(key)
      if (next === undefined) {
        changed = true
        continue
      }
      missing.delete(key)
      endpoints.push(next)
      if (!sameEndpoint(old, next)) changed = true
    }
    if (endpoints.length === 0) emptied.push(slice)
    else open.push({ from: slice, endpoints, changed })
  }
  const left = [...missing.values()]
  const fill = (endpoints: Endpoint[]): void => {
    endpoints.push(...left.splice(0, Math.max(0, endpointsPerSliceMax - endpoints.length)))
  }
  for (const slice of open) if (slice.changed) fill(slice.endpoints)
  while (left.length > 0) {
    // The fullest that takes all of it: room stays in one piece.
    const roomy = open
      .filter(({ endpoints }) => endpoints.length + left.length <= endpointsPerSliceMax)
      .toSorted((a, b) => b.endpoints.length - a.endpoints.length)[0]
    if (roomy !== undefined) {
      roomy.changed = true
      fill(roomy.endpoints)
      continue
    }
    const endpoints: Endpoint[] = []
    fill(endpoints)
    // An emptied slice is written over rather than deleted beside a new one.
    open.push({ from: emptied.pop(), endpoints, changed: true })
  }
  return { kept: open.map((slice) => ({ ...slice, ports: group.ports })), emptied }
}

/** A slice without endpoints, made of one that would be deleted if there is one. */
function placeholder(doomed: EndpointSlice[]): Packed {
  const same = doomed.findIndex((s) => (s.endpoints ?? []).length === 0 && (s.ports ?? []).length === 0)
  const [from] = doomed.splice(Math.max(0, same), 1)
  return { ports: [], endpoints: [], from, changed: same < 0 }
}

function writes(
  { owner, ownerResource, labels, annotate }: Making,
  family: Family,
  packed: readonly Packed[],
  doomed: readonly EndpointSlice[],
): Action[] {
  const spare = [...doomed]
  const actions: Action[] = []
  const { name, namespace = '' } = owner.metadata
  for (const { ports, endpoints, from = spare.pop(), changed } of packed) {
    const isOwned = from !== undefined && isControlledBy(from, owner)
    if (from !== undefined && isOwned && !changed && sameLabels(from.metadata.labels ?? {}, labels)) continue
    const annotations = annotate(isOwned ? (from?.metadata.annotations ?? {}) : {})
    const content = { addressType: family, ports: [...ports], endpoints: [...endpoints] }
    if (from !== undefined && isOwned) {
      actions.push({
        do: 'update',
        slice: { ...from, metadata: { ...from.metadata, labels: { ...labels }, annotations }, ...content },
      })
    } else {
      if (from !== undefined) actions.push({ do: 'delete', slice: from })
      const ownerReferences = [controllerReference(ownerResource, owner)]
      const metadata = { generateName: `${name}-`, namespace, labels: { ...labels }, annotations, ownerReferences }
      actions.push({ do: 'create', slice: { metadata, ...content } })
    }
  }
  for (const slice of spare) actions.push({ do: 'delete', slice })
  return actions
}
