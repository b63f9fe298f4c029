import type { KubeObject } from '#api/meta/resource.ts'

/**
 * One object as it is kept in memory: its JSON ready to be sent, and the parsed form, made when first asked for.
 * The store's bytes do not have the resourceVersion, which is known only after the write; it stands first in the metadata
 * here: `{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"7","name":…`.
 *
 * The JSON is held as a string with one character for each byte of its UTF-8: that is the form that costs the garbage
 * collector least (a Buffer is three objects and memory outside the heap), and it is as quick to write to a socket.
 */
export class Item {
  readonly namespace: string
  readonly name: string
  readonly revision: number
  /** One character per byte. */
  readonly text: string
  /** Where the metadata's first member begins in `text`. */
  readonly #metadataAt: number
  #object: KubeObject | undefined

  private constructor(namespace: string, name: string, revision: number, text: string, metadataAt: number) {
    this.namespace = namespace
    this.name = name
    this.revision = revision
    this.text = text
    this.#metadataAt = metadataAt
  }

  /** From the store's bytes. */
  static stored(namespace: string, name: string, revision: number, value: Uint8Array): Item {
    const stored = asBuffer(value)
    const metadataAt = stored.indexOf(metadataMark) + metadataMark.length
    return new Item(namespace, name, revision, splice(stored, metadataAt, metadataAt, revision), metadataAt)
  }

  /** The same object under another revision: what a DELETED event shows. */
  at(revision: number): Item {
    const restAt = this.#metadataAt + versionMember(this.revision).length
    const text = splice(this.bytes, this.#metadataAt, restAt, revision)
    return new Item(this.namespace, this.name, revision, text, this.#metadataAt)
  }

  /** A new Buffer each time. */
  get bytes(): Buffer {
    return Buffer.from(this.text, 'latin1')
  }

  /** The JSON of the metadata, cut out: no parsing, and nothing is kept. One character per byte. */
  get metadataText(): string {
    return this.text.slice(this.#metadataAt - 1, endOfObject(this.text, this.#metadataAt) + 1)
  }

  /** Read-only. */
  get object(): KubeObject {
    this.#object ??= this.copy()
    return this.#object
  }

  /** The caller's own. */
  copy(): KubeObject {
    return JSON.parse(decodeText(this.text)) as KubeObject
  }
}

/** The bytes to store. The object's resourceVersion is left out. */
export function encodeStored(object: KubeObject): Buffer {
  const { kind, apiVersion, metadata, ...rest } = object
  const { resourceVersion: _, ...kept } = metadata
  return Buffer.from(JSON.stringify({ kind, apiVersion, metadata: kept, ...rest }))
}

const metadataMark = Buffer.from('"metadata":{')
/** Revision 0: an object that was not written (dry run) has no resourceVersion. */
const versionMember = (revision: number): string => (revision === 0 ? '' : `"resourceVersion":"${revision}",`)

/** Reused for every splice: pieces put together as strings would each keep what they were cut from. */
let scratch = Buffer.allocUnsafeSlow(64 * 1024)

function splice(source: Buffer, from: number, to: number, revision: number): string {
  const member = versionMember(revision)
  const length = from + member.length + source.length - to
  if (length > scratch.length) scratch = Buffer.allocUnsafeSlow(2 * length)
  source.copy(scratch, 0, 0, from)
  scratch.write(member, from, 'latin1')
  source.copy(scratch, from + member.length, to)
  return scratch.toString('latin1', 0, length)
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: what is meant is "nothing but ASCII"
const asciiOnly = /^[\x00-\x7f]*$/

/** From a character per byte to what the bytes say. */
const decodeText = (text: string): string =>
  asciiOnly.test(text) ? text : Buffer.from(text, 'latin1').toString('utf8')

/** Where the object ends whose inside begins at `from`. The text is JSON of our own making. */
function endOfObject(text: string, from: number): number {
  let depth = 1
  for (let at = from; at < text.length; at++) {
    switch (text.charCodeAt(at)) {
      case 0x22:
        do at = text.indexOf('"', at + 1)
        while (isEscaped(text, at))
        break
      case 0x7b:
        depth++
        break
      case 0x7d:
        if (--depth === 0) return at
    }
  }
  throw new Error('Cannot find the end of an object in stored JSON')
}

/** Whether an odd number of backslashes stands before. */
function isEscaped(text: string, at: number): boolean {
  let slashes = 0
  while (text.charCodeAt(at - 1 - slashes) === 0x5c) slashes++
  return slashes % 2 === 1
}

const asBuffer = (value: Uint8Array): Buffer =>
  Buffer.isBuffer(value) ? value : Buffer.from(value.buffer, value.byteOffset, value.byteLength)
