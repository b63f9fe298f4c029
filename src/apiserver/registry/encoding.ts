import type { Column, KindDefinition } from '#api/kind.ts'
import { formatApiVersion } from '#api/meta/gvk.ts'
import type { KubeObject } from '#api/meta/resource.ts'
import { isCustom } from '../crd/kind.ts'
import type { Item } from './item.ts'

/** How objects are shown to one kind of reader. Equal keys give equal bytes, so what was encoded once is shared. */
export interface Encoding {
  readonly key: string
  readonly contentType: string
  /** Undefined: `one()` gives the item's own bytes, so joined ones may be used for lists. */
  readonly plain: boolean
  one(item: Item): Buffer
  /** The same inside a list: an object, or a row. */
  element(item: Item): Buffer
  /** What stands before the items of a list, and after them. `metadata` is the list's. */
  list(metadata: ListMetadata): { readonly head: string; readonly tail: string }
  /** Kind, apiVersion and a revision only. */
  bookmark(object: BookmarkObject): Buffer
}

export interface ListMetadata {
  readonly resourceVersion: string
  readonly continue?: string
  readonly remainingItemCount?: number
}

export interface BookmarkObject {
  readonly kind: string
  readonly apiVersion: string
  readonly metadata: { readonly resourceVersion: string; readonly annotations?: Readonly<Record<string, string>> }
}

export type IncludeObject = 'None' | 'Metadata' | 'Object'

const json = 'application/json'

/** The object itself, in the form of the requested version. */
export function objectEncoding(definition: KindDefinition): Encoding {
  const apiVersion = formatApiVersion(definition.resource)
  const { kind } = definition.resource
  const { stored } = definition
  const convert = (object: KubeObject): Buffer =>
    Buffer.from(JSON.stringify(stored === undefined ? object : stored.from(object)))
  const one = (item: Item): Buffer => (stored === undefined ? item.bytes : convert(item.copy()))
  const listKind = isCustom(definition) ? definition.listKind : `${kind}List`
  return {
    key: `object ${apiVersion}`,
    contentType: json,
    plain: stored === undefined,
    one,
    element: one,
    list: (metadata) => ({
      head: `{"kind":"${listKind}","apiVersion":"${apiVersion}","metadata":${JSON.stringify(metadata)},"items":[`,
      tail: ']}',
    }),
    bookmark: (object) => Buffer.from(JSON.stringify(object)),
  }
}

/** Kind and metadata only: for collectors and caches that need no more. */
export function metadataEncoding(definition: KindDefinition): Encoding {
  const apiVersion = formatApiVersion(definition.resource)
  return {
    key: `metadata ${apiVersion}`,
    contentType: `${json};as=PartialObjectMetadata;v=v1;g=meta.k8s.io`,
    plain: false,
    one: partialOf,
    element: partialOf,
    list: (metadata) => ({
      head: `{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/v1","metadata":${JSON.stringify(metadata)},"items":[`,
      tail: ']}',
    }),
    bookmark: ({ metadata }) =>
      Buffer.from(JSON.stringify({ kind: 'PartialObjectMetadata', apiVersion: 'meta.k8s.io/v1', metadata })),
  }
}

const partialOf = (item: Item): Buffer =>
  Buffer.from(
    `{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":${item.metadataText}}`,
    'latin1',
  )

/** Rows for people, made here so that a client needs to know nothing of the kind. */
export function tableEncoding(definition: KindDefinition, include: IncludeObject, now: () => number): Encoding {
  const { columns, stored } = definition
  const definitions = JSON.stringify(columns.map(columnDefinition))
  const shown = (object: KubeObject): unknown => {
    if (include === 'None') return null
    return include === 'Object' ? object : partial(object)
  }
  const row = (raw: KubeObject): string => {
    const object = stored === undefined ? raw : stored.from(structuredClone(raw) as KubeObject)
    const at = now()
    return JSON.stringify({ cells: columns.map((column) => column.cell(object, at)), object: shown(object) })
  }
  const head = (metadata: ListMetadata): string =>
    `{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":${JSON.stringify(metadata)},"columnDefinitions":${definitions},"rows":[`
  const table = (text: string, resourceVersion: string): Buffer => Buffer.from(`${head({ resourceVersion })}${text}]}`)
  return {
    key: `table ${include} ${formatApiVersion(definition.resource)}`,
    contentType: `${json};as=Table;v=v1;g=meta.k8s.io`,
    plain: false,
    one: (item) => table(row(item.object), String(item.revision)),
    element: (item) => Buffer.from(row(item.object)),
    list: (metadata) => ({ head: head(metadata), tail: ']}' }),
    bookmark: (object) => {
      const cells = columns.map(() => '')
      const { metadata } = object
      const shownObject = include === 'None' ? null : include === 'Object' ? object : partial({ metadata })
      return table(JSON.stringify({ cells, object: shownObject }), metadata.resourceVersion)
    },
  }
}

const partial = ({ metadata }: { readonly metadata: object }): object => ({
  kind: 'PartialObjectMetadata',
  apiVersion: 'meta.k8s.io/v1',
  metadata,
})

const columnDefinition = ({ name, type, format, description, priority }: Column): object => ({
  name,
  type,
  format: format ?? (name === 'Name' ? 'name' : ''),
  description,
  priority,
})
