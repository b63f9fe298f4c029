import type { Item } from './item.ts'

/** Objects of a chunk: their joined JSON is cached, so a list is sent in few pieces and a change spoils only one. */
const chunkItemsMax = 256

interface Chunk {
  readonly items: Item[]
  /** The items' bytes with commas between, or undefined after a change. */
  joined: Buffer | undefined
}

/** The objects of one namespace (or all cluster-scoped ones), in order of their names, in chunks. */
export class Shelf {
  readonly #chunks: Chunk[] = []
  readonly #byName = new Map<string, Item>()

  get size(): number {
    return this.#byName.size
  }

  get(name: string): Item | undefined {
    return this.#byName.get(name)
  }

  put(item: Item): void {
    this.#byName.set(item.name, item)
    const chunk = this.#chunks[this.#chunkFor(item.name)] ?? this.#addChunk()
    const position = positionOf(chunk.items, item.name)
    chunk.joined = undefined
    if (chunk.items[position]?.name === item.name) {
      chunk.items[position] = item
      return
    }
    chunk.items.splice(position, 0, item)
    if (chunk.items.length <= chunkItemsMax) return
    // Names that only grow fill the last chunk: split it at its end then, not in the middle.
    const last = chunk === this.#chunks.at(-1) && position === chunk.items.length - 1
    const rest = chunk.items.splice(last ? chunkItemsMax : chunkItemsMax / 2)
    this.#chunks.splice(this.#chunks.indexOf(chunk) + 1, 0, { items: rest, joined: undefined })
  }

  remove(name: string): void {
    this.#byName.delete(name)
    const index = this.#chunkFor(name)
    const chunk = this.#chunks[index]
    if (chunk === undefined) return
    const position = positionOf(chunk.items, name)
    if (chunk.items[position]?.name !== name) return
    chunk.items.splice(position, 1)
    chunk.joined = undefined
    if (chunk.items.length === 0) this.#chunks.splice(index, 1)
  }

  /** From `start` on, in order. */
  *items(start = ''): Generator<Item, void> {
    for (let index = start === '' ? 0 : this.#chunkFor(start); index < this.#chunks.length; index++) {
      const items = this.#chunks[index]?.items ?? []
      for (let i = positionOf(items, start); i < items.length; i++) yield items[i] as Item
    }
  }

  /** The bytes of every item, joined by commas, in pieces. Remembers them. */
  *joined(): Generator<Buffer, void> {
    for (const chunk of this.#chunks) {
      chunk.joined ??= join(chunk.items)
      yield chunk.joined
    }
  }

  /** Gives back the memory of joined pieces. */
  forgetJoined(): void {
    for (const chunk of this.#chunks) chunk.joined = undefined
  }

  #addChunk(): Chunk {
    const chunk: Chunk = { items: [], joined: undefined }
    this.#chunks.push(chunk)
    return chunk
  }

  /** Index of the first chunk whose last name is not before `name`, or the last chunk. */
  #chunkFor(name: string): number {
    let low = 0
    let high = this.#chunks.length - 1
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((this.#chunks[middle]?.items.at(-1)?.name ?? '') < name) low = middle + 1
      else high = middle
    }
    return Math.max(0, low)
  }
}

function positionOf(items: readonly Item[], name: string): number {
  if (name === '') return 0
  let low = 0
  let high = items.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if ((items[middle]?.name ?? '') < name) low = middle + 1
    else high = middle
  }
  return low
}

function join(items: readonly Item[]): Buffer {
  let length = items.length - 1
  for (const { text } of items) length += text.length
  const joined = Buffer.allocUnsafeSlow(length)
  let at = 0
  for (const { text } of items) {
    if (at > 0) joined[at++] = 0x2c
    at += joined.write(text, at, 'latin1')
  }
  return joined
}
