import { checkResult, KernelError } from './errno.ts'
import * as ffi from './ffi.ts'

/** What the name has a row of its own for, or one of the two meanings of native/names/. */
export type RowType = number | 'any' | 'below'

/** An answer, without header and question. */
export interface AnswerRow {
  /** Wire form, lower case. */
  readonly name: Uint8Array
  readonly type: RowType
  /** `ask`: the owner answers; the rest is then of no meaning. `rotate`: records of one size, another first each time. */
  readonly mode: 'fixed' | 'rotate' | 'ask'
  readonly rcode: number
  readonly answers: number
  readonly authorities: number
  readonly additionals: number
  readonly body: Uint8Array
}

/** Somebody's question that the table does not know. */
export interface Ask {
  readonly query: Buffer
  /** Hand back to `send()`. */
  readonly from: AskFrom
}

export interface AskFrom {
  readonly socket: number
  /** A struct sockaddr. */
  readonly address: Buffer
}

/** Counters as native/names/ has them, in a file that weft-names shares too; what is missing there is 0. */
export const countsOf = (values: readonly bigint[]): NameCounts =>
  Object.fromEntries(counterNames.map((name, i) => [name, Number(values[i] ?? 0n)])) as NameCounts

/** What stands before the query in a question that is handed over: socket number, size of the address, the address. */
export function decodeAsk(data: Buffer): Ask {
  const end = 8 + data.readUInt32LE(4)
  return {
    from: { socket: data.readUInt32LE(0), address: Buffer.from(data.subarray(8, end)) },
    query: Buffer.from(data.subarray(end)),
  }
}

/** Order as in native/names/. */
const counterNames = [
  'queries',
  'answers',
  'negative',
  'asked',
  'truncated',
  'malformed',
  'refused',
  'dropped',
  'overload',
  'tcp',
  'nxdomain',
  'rows',
] as const
export type NameCounts = Readonly<Record<(typeof counterNames)[number], number>>

const headerBytes = 16
const askBytesMax = 8 + 28 + 1280
/** Largest answer over UDP, whatever the asker would take. */
const udpBytesMax = 4096
const tcpBytesMax = 65_535

/**
 * A table of DNS answers and the threads that serve it over UDP. Questions that it does not know are taken with
 * `take()` once `bell` (a descriptor, the caller's) can be read. Errors are `KernelError`s.
 */
export class NameTable implements Disposable {
  #pointer: ffi.NamesPointer | undefined
  readonly #out = Buffer.alloc(tcpBytesMax)
  readonly #ask = Buffer.alloc(askBytesMax)

  constructor() {
    const pointer = ffi.namesNew()
    if (pointer === null) throw new KernelError('make a table of names', 'ENOMEM')
    this.#pointer = pointer
  }

  get #names(): ffi.NamesPointer {
    if (this.#pointer === undefined) throw new Error('Cannot use a table of names that is closed')
    return this.#pointer
  }

  /** All of it at once for whoever asks. */
  change(puts: readonly AnswerRow[], removals: readonly { readonly name: Uint8Array; readonly type: RowType }[]): void {
    if (puts.length + removals.length === 0) return
    const changes = encodeChanges(puts, removals)
    checkResult(ffi.namesChange(this.#names, changes, changes.length), 'change the table of names')
  }

  /** All rows, for another table: `replace` of weft-names. */
  dump(): Buffer {
    for (let room = 1 << 16; ; ) {
      const out = Buffer.alloc(room)
      const size = checkResult(ffi.namesDump(this.#names, out, room), 'read the table of names')
      if (size <= room) return out.subarray(0, size)
      room = size
    }
  }

  /**
   * What a thread would say to this query. `undefined`: the owner has to be asked. `'none'`: there shall be no answer.
   */
  answer(query: Uint8Array, transport: 'udp' | 'tcp'): Buffer | 'none' | undefined {
    const limit = transport === 'udp' ? 0 : tcpBytesMax
    const size = ffi.namesAnswer(this.#names, query, query.length, limit, this.#out, Math.max(limit, udpBytesMax))
    if (size === -1) return 'none'
    checkResult(size, 'answer a query')
    return size === 0 ? undefined : Buffer.from(this.#out.subarray(0, size))
  }

  /** A thread of its own answers on this bound UDP socket, and owns it. */
  serve(fd: number): void {
    checkResult(ffi.namesServe(this.#names, fd), 'serve names on a socket')
  }

  bell(): number {
    return checkResult(ffi.namesBell(this.#names), 'open the bell of a table of names')
  }

  take(): Ask | undefined {
    const size = checkResult(ffi.namesTake(this.#names, this.#ask, this.#ask.length), 'take a query')
    if (size === 0) return undefined
    return decodeAsk(this.#ask.subarray(0, size))
  }

  /** Throws where the datagram cannot be sent. */
  send({ socket, address }: AskFrom, answer: Uint8Array): void {
    checkResult(
      ffi.namesSend(this.#names, socket, address, address.length, answer, answer.length),
      'send an answer to a query',
    )
  }

  counts(): NameCounts {
    const out = new BigUint64Array(counterNames.length)
    checkResult(ffi.namesCounts(this.#names, out, out.length), 'count queries')
    return countsOf([...out])
  }

  [Symbol.dispose](): void {
    if (this.#pointer === undefined) return
    ffi.namesFree(this.#pointer)
    this.#pointer = undefined
  }
}

/** Removals first: what is put in the same change stays. */
export const encodeChanges = (
  puts: readonly AnswerRow[],
  removals: readonly { readonly name: Uint8Array; readonly type: RowType }[],
): Buffer => Buffer.concat([...removals.flatMap(encodeRemoval), ...puts.flatMap(encodePut)])

const typeNumber = (type: RowType): number => (type === 'any' ? 0 : type === 'below' ? 0xffff : type)

function encodeRemoval({ name, type }: { readonly name: Uint8Array; readonly type: RowType }): Uint8Array[] {
  const header = Buffer.alloc(headerBytes)
  header.writeUInt8(2, 0)
  header.writeUInt16LE(typeNumber(type), 4)
  header.writeUInt16LE(name.length, 6)
  return [header, name]
}

function encodePut(row: AnswerRow): Uint8Array[] {
  const header = Buffer.alloc(headerBytes)
  header.writeUInt8(1, 0)
  header.writeUInt8(row.rcode, 1)
  header.writeUInt8(row.mode === 'rotate' ? 1 : row.mode === 'ask' ? 2 : 0, 2)
  header.writeUInt16LE(typeNumber(row.type), 4)
  header.writeUInt16LE(row.name.length, 6)
  header.writeUInt16LE(row.answers, 8)
  header.writeUInt16LE(row.authorities, 10)
  header.writeUInt16LE(row.additionals, 12)
  header.writeUInt16LE(row.body.length, 14)
  return [header, row.name, row.body]
}
