import type { Encoding } from '../registry/encoding.ts'
import type { Item } from '../registry/item.ts'

export type EventType = 'ADDED' | 'MODIFIED' | 'DELETED'

/** A committed change of one object. Its line is made once for each type and encoding, however many watches there are. */
export class CollectionEvent {
  readonly revision: number
  /** Undefined: deleted. */
  readonly next: Item | undefined
  readonly old: Item | undefined
  #gone: Item | undefined
  readonly #lines = new Map<string, Buffer>()

  constructor(revision: number, next: Item | undefined, old: Item | undefined) {
    this.revision = revision
    this.next = next
    this.old = old
  }

  /** The line of a watch that sees it so. A DELETED event shows the last state that the watch could see. */
  line(type: EventType, encoding: Encoding): Buffer {
    const key = `${type} ${encoding.key}`
    let line = this.#lines.get(key)
    if (line === undefined) {
      line = encodeLine(type, encoding.one(this.#shown(type)))
      this.#lines.set(key, line)
    }
    return line
  }

  #shown(type: EventType): Item {
    if (type !== 'DELETED' && this.next) return this.next
    if (this.#gone === undefined) {
      const last = this.old ?? this.next
      if (last === undefined) throw new Error('An event has neither a state before nor one after')
      this.#gone = last.at(this.revision)
    }
    return this.#gone
  }
}

/** One event of a watch: JSON documents one after the other, each on a line. */
export function encodeLine(type: EventType | 'BOOKMARK' | 'ERROR', object: Uint8Array): Buffer {
  const head = `{"type":"${type}","object":`
  const line = Buffer.allocUnsafeSlow(head.length + object.length + 2)
  line.write(head, 0, 'latin1')
  line.set(object, head.length)
  line.write('}\n', head.length + object.length, 'latin1')
  return line
}
