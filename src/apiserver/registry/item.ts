import type { KubeObject } from '#api/meta/resource.ts'

/**
 * One object as it is kept in memory: its JSON ready to be sent, and the parsed form, made when first asked for.
 * The store's bytes do not have the resourceVersion, which is known only after the write; it stands first in the metadata
 * here: `{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"7","name":…`.
 */
export class Item {
  readonly namespace: string
  readonly name: string
  readonly revision: number
  readonly bytes: Buffer
  /** Where the metadata's first member begins in `bytes`. */
  readonly #metadataAt: number
  #object: KubeObject | undefined

  private constructor(namespace: string, name: string, revision: number, bytes: Buffer, metadataAt: number) {
    this.namespace = namespace
    this.name = name
    this.revision = revision
    this.bytes = bytes
    this.#metadataAt = metadataAt
  }

  /** From the store's bytes. */
  static stored(namespace: string, name: string, revision: number, value: Uint8Array): Item {
    const stored = asBuffer(value)
    const metadataAt = stored.indexOf(metadataMark) + metadataMark.length
    const bytes = splice(stored, metadataAt, metadataAt, revision)
    return new Item(namespace, name, revision, bytes, metadataAt)
  }

  /** The same object under another revision: what a DELETED event shows. */
  at(revision: number): Item {
    const restAt = this.#metadataAt + versionMember(this.revision).length
    const bytes = splice(this.bytes, this.#metadataAt, restAt, revision)
    return new Item(this.namespace, this.name, revision, bytes, this.#metadataAt)
  }

  /** Read-only. */
  get object(): KubeObject {
    this.#object ??= JSON.parse(this.bytes.toString()) as KubeObject
    return this.#object
  }

  /** The caller's own. */
  copy(): KubeObject {
    return JSON.parse(this.bytes.toString()) as KubeObject
  }
}

/** The bytes to store. The object's resourceVersion is left out. */
export function encodeStored(object: KubeObject): Buffer {
  const { kind, apiVersion, metadata, ...rest } = object
  const { resourceVersion: _, ...kept } = metadata
  return Buffer.from(JSON.stringify({ kind, apiVersion, metadata: kept, ...rest }))
}

const metadataMark = Buffer.from('"metadata":{')
const versionMember = (revision: number): string => `"resourceVersion":"${revision}",`

function splice(source: Buffer, from: number, to: number, revision: number): Buffer {
  const member = versionMember(revision)
  const bytes = Buffer.allocUnsafeSlow(from + member.length + source.length - to)
  source.copy(bytes, 0, 0, from)
  bytes.write(member, from, 'latin1')
  source.copy(bytes, from + member.length, to)
  return bytes
}

const asBuffer = (value: Uint8Array): Buffer =>
  Buffer.isBuffer(value) ? value : Buffer.from(value.buffer, value.byteOffset, value.byteLength)
