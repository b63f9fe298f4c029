import { type Cli, EngineError, payloadBytesMax } from './cli.ts'

export const mapNames = ['routes', 'programs', 'splits', 'names', 'places'] as const
export type MapName = (typeof mapNames)[number]

const hex = (text: string): string => Buffer.from(text, 'utf8').toString('hex')

/** Of one `weft get`: HAProxy takes 64 words in a command. */
const keysPerRead = 40

/**
 * One of HAProxy's maps, with a copy of what is in it. Rows come and go by payload or as hexadecimal digits, every reply
 * is checked and every row read back: the run-time API keeps silent about rows that it did not take.
 */
export class RowMap {
  readonly #name: MapName
  readonly #path: string
  #rows: Map<string, string>

  constructor(name: MapName, path: string, rows: ReadonlyMap<string, string> = new Map()) {
    this.#name = name
    this.#path = path
    this.#rows = new Map(rows)
  }

  get rows(): ReadonlyMap<string, string> {
    return this.#rows
  }

  /** As the file that a new process reads. */
  text(): string {
    let out = ''
    for (const [key, value] of this.#rows) out += `${key} ${value}\n`
    return out
  }

  /** For a process that is about to read `text()`. */
  assume(rows: ReadonlyMap<string, string>): void {
    this.#rows = new Map(rows)
  }

  /** What HAProxy really has; keys that are there twice are named, for they answer by luck. */
  async read(cli: Cli): Promise<{ readonly rows: Map<string, string>; readonly twice: string[] }> {
    const reply = await cli.command(`show map ${this.#path}`)
    const rows = new Map<string, string>()
    const twice: string[] = []
    for (const line of reply.split('\n')) {
      if (line === '') continue
      const [, key, value = ''] = /^0x[0-9a-f]+ (\S+) ?(.*)$/.exec(line) ?? []
      if (key === undefined) throw new EngineError(`HAProxy showed a row that is none: ${JSON.stringify(line)}`)
      if (rows.has(key)) twice.push(key)
      else rows.set(key, value)
    }
    return { rows, twice }
  }

  /** Takes what is there for what is there: an engine that was running before us. */
  async adopt(cli: Cli): Promise<void> {
    const { rows, twice } = await this.read(cli)
    this.#rows = rows
    // Shorter ones first: of a row that is there twice nobody knows which one answers for a longer key that has gone.
    for (const key of twice.toSorted((a, b) => a.length - b.length)) await this.remove(cli, key)
  }

  /** New rows in as few commands as they fit in, changed ones one by one. */
  async set(cli: Cli, wanted: ReadonlyMap<string, string>): Promise<void> {
    const added: [string, string][] = []
    for (const [key, value] of wanted) {
      const now = this.#rows.get(key)
      if (now === undefined) added.push([key, value])
      else if (now !== value) await this.#exchange(cli, key, value)
    }
    for (const batch of batches(added)) {
      const reply = await cli.payload(
        `add map ${this.#path}`,
        batch.map(([key, value]) => `${key} ${value}`),
      )
      if (reply !== '') throw new EngineError(`HAProxy did not add rows to its map ${this.#name}: ${reply}`)
      await this.#verify(cli, batch)
      for (const [key, value] of batch) this.#rows.set(key, value)
    }
  }

  /** Rows that are gone already cost nothing. */
  async remove(cli: Cli, key: string): Promise<void> {
    if (!this.#rows.has(key)) return
    const reply = await cli.command(`weft del ${this.#name} ${hex(key)}`)
    if (reply !== '-' && !this.#isOfPrefix(key, reply))
      throw new EngineError(
        `HAProxy did not remove row ${JSON.stringify(key)} of ${this.#name}: ${reply.slice(0, 200)}`,
      )
    this.#rows.delete(key)
  }

  /** Where the longest row that a key begins with answers, a shorter one may answer for a row that has gone. */
  #isOfPrefix(key: string, reply: string): boolean {
    for (let length = key.length - 1; length > 0; length--) {
      const value = this.#rows.get(key.slice(0, length))
      if (value !== undefined && hex(value) === reply) return true
    }
    return false
  }

  async #exchange(cli: Cli, key: string, value: string): Promise<void> {
    const reply = await cli.command(`weft set ${this.#name} ${hex(key)} ${hex(value)}`)
    if (reply !== hex(value))
      throw new EngineError(
        `HAProxy did not change row ${JSON.stringify(key)} of ${this.#name}: ${reply.slice(0, 200)}`,
      )
    this.#rows.set(key, value)
  }

  async #verify(cli: Cli, batch: readonly (readonly [string, string])[]): Promise<void> {
    for (let at = 0; at < batch.length; at += keysPerRead) {
      const part = batch.slice(at, at + keysPerRead)
      const reply = await cli.command(`weft get ${this.#name} ${part.map(([key]) => hex(key)).join(' ')}`)
      const values = reply.split('\n')
      for (const [i, [key, value]] of part.entries())
        if (values[i] !== hex(value))
          throw new EngineError(
            `HAProxy has another row than was written for ${JSON.stringify(key)} in ${this.#name}: ${values[i]}`,
          )
    }
  }
}

function* batches(rows: readonly [string, string][]): Generator<[string, string][]> {
  let batch: [string, string][] = []
  let bytes = 0
  for (const row of rows) {
    const size = Buffer.byteLength(row[0]) + Buffer.byteLength(row[1]) + 2
    if (batch.length > 0 && bytes + size > payloadBytesMax) {
      yield batch
      batch = []
      bytes = 0
    }
    batch.push(row)
    bytes += size
  }
  if (batch.length > 0) yield batch
}
