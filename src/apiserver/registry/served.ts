import type { KindDefinition } from '#api/kind.ts'
import { customShape, type Shape, shapeOf } from '#api/meta/field-shape.ts'
import { formatApiVersion } from '#api/meta/gvk.ts'
import type { KubeObject } from '#api/meta/resource.ts'
import { type Expected, expectedOf } from '#api/schema/decode.ts'
import type { Collection } from './collection.ts'
import { type Encoding, type IncludeObject, metadataEncoding, objectEncoding, tableEncoding } from './encoding.ts'
import type { Item } from './item.ts'

/** A kind as it is served: its definition, its objects, and how they are shown. Several versions share one collection. */
export class Served {
  readonly definition: KindDefinition
  readonly collection: Collection
  readonly apiVersion: string
  readonly expected: Expected
  readonly asObject: Encoding
  readonly asMetadata: Encoding
  readonly #tables: Readonly<Record<IncludeObject, Encoding>>
  #shape: Shape | undefined

  constructor(definition: KindDefinition, collection: Collection, now: () => number) {
    this.definition = definition
    this.collection = collection
    this.apiVersion = formatApiVersion(definition.resource)
    this.expected = expectedOf(definition)
    this.asObject = objectEncoding(definition)
    this.asMetadata = metadataEncoding(definition)
    this.#tables = {
      None: tableEncoding(definition, 'None', now),
      Metadata: tableEncoding(definition, 'Metadata', now),
      Object: tableEncoding(definition, 'Object', now),
    }
  }

  asTable(include: IncludeObject): Encoding {
    return this.#tables[include]
  }

  /** How managedFields tells the fields of this kind apart. */
  get shape(): Shape {
    const { message, schema } = this.definition
    this.#shape ??= message === undefined ? customShape(schema) : shapeOf(message)
    return this.#shape
  }

  /** An item in the form of this version; the caller's own. */
  copyOf(item: Item): KubeObject {
    return this.fromStored(item.copy())
  }

  /** An item in the form of this version; read-only. */
  read(item: Item): KubeObject {
    return this.definition.stored === undefined ? item.object : this.copyOf(item)
  }

  /** Turns the stored form into this version's; may change its argument. */
  fromStored(object: KubeObject): KubeObject {
    return this.definition.stored === undefined ? object : this.definition.stored.from(object)
  }

  /** Turns this version's form into the stored one; may change its argument. */
  toStored(object: KubeObject): KubeObject {
    return this.definition.stored === undefined ? object : this.definition.stored.to(object)
  }
}

/** The first part of the keys: both event groups name the same one. */
export function segmentOf({ storage, resource }: KindDefinition): string {
  return (storage ?? (resource.group === '' ? resource.resource : `${resource.group}/${resource.resource}`)).replaceAll(
    '/',
    ':',
  )
}
