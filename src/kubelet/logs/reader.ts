import { type FSWatcher, watch } from 'node:fs'
import { type FileHandle, open, stat } from 'node:fs/promises'

export interface LogOptions {
  readonly follow: boolean
  readonly timestamps: boolean
  readonly tailLines: number | undefined
  readonly limitBytes: number | undefined
  /** Only lines of this time or later; ms. */
  readonly since: number | undefined
}

const chunkBytes = 64 * 1024
/** A watch may miss a write between a read and its beginning; looks again after this long without one. */
const lookMs = 1_000

/**
 * A container's log in CRI's format (`TIME stdout|stderr P|F TEXT`) as the text that its container wrote. Following, it
 * ends when `ended` says that nothing more will come, or when `signal` aborts; a rotated file is followed into the new one.
 */
export async function* readLog(
  path: string,
  options: LogOptions,
  ended: () => Promise<boolean>,
  signal: AbortSignal,
): AsyncGenerator<Buffer, void> {
  let file = await open(path, 'r')
  let left = options.limitBytes ?? Number.POSITIVE_INFINITY
  try {
    let at = options.tailLines === undefined ? 0 : await startOfTail(file, options.tailLines)
    if (options.tailLines === 0) at = (await file.stat()).size
    const parser = new LineParser(options)
    for (;;) {
      signal.throwIfAborted()
      const over = options.follow ? await ended() : true
      const { bytesRead, buffer } = await file.read(Buffer.alloc(chunkBytes), 0, chunkBytes, at)
      if (bytesRead > 0) {
        at += bytesRead
        const text = parser.push(buffer.subarray(0, bytesRead))
        const part = text.length > left ? text.subarray(0, left) : text
        if (part.length > 0) yield part
        left -= part.length
        if (left <= 0) return
        continue
      }
      const next = await rotated(file, path)
      if (next !== undefined) {
        await file.close()
        file = next
        at = 0
        continue
      }
      if (over) return
      await changed(path, signal)
    }
  } finally {
    await file.close()
  }
}

/** The file that is at the path now, when it is another one than ours. */
async function rotated(file: FileHandle, path: string): Promise<FileHandle | undefined> {
  const ours = await file.stat()
  const there = await stat(path).catch(() => undefined)
  return there === undefined || there.ino === ours.ino ? undefined : open(path, 'r')
}

function changed(path: string, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    let watcher: FSWatcher | undefined
    const done = () => {
      clearTimeout(timer)
      signal.removeEventListener('abort', done)
      watcher?.close()
      resolve()
    }
    const timer = setTimeout(done, lookMs)
    signal.addEventListener('abort', done, { once: true })
    try {
      watcher = watch(path, done)
      watcher.on('error', done)
    } catch {
      // Between two files of a rotation there is none; the timer looks again.
    }
  })
}

/** Where the last `lines` full lines begin: read backwards, so that a long log costs what is shown of it. */
async function startOfTail(file: FileHandle, lines: number): Promise<number> {
  const { size } = await file.stat()
  let found = 0
  let end = size
  while (end > 0) {
    const begin = Math.max(0, end - chunkBytes)
    const { buffer } = await file.read(Buffer.alloc(end - begin), 0, end - begin, begin)
    for (let i = buffer.length - 1; i >= 0; i--) {
      // The newline at the very end closes the last line, it does not begin one.
      if (buffer[i] !== 0x0a || begin + i === size - 1) continue
      if (isPartial(buffer, i, begin)) continue
      if (++found === lines) return begin + i + 1
    }
    end = begin
  }
  return 0
}

/** Whether the line that ends at `newline` is only a part of one: then it does not count. */
function isPartial(buffer: Buffer, newline: number, begin: number): boolean {
  const start = buffer.lastIndexOf(0x0a, newline - 1)
  if (start < 0 && begin > 0) return false
  return /^\S+ \S+ P /.test(buffer.subarray(start + 1, Math.min(newline, start + 64)).toString('latin1'))
}

/** Turns CRI's lines into text; a line may come in pieces. */
export class LineParser {
  readonly #options: Pick<LogOptions, 'timestamps' | 'since'>
  #rest: Buffer = Buffer.alloc(0)
  /** In the middle of a long line that came in parts: its time has been written already. */
  #continues = false

  constructor(options: Pick<LogOptions, 'timestamps' | 'since'>) {
    this.#options = options
  }

  push(chunk: Buffer): Buffer {
    const data = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk])
    const parts: Buffer[] = []
    let at = 0
    for (;;) {
      const newline = data.indexOf(0x0a, at)
      if (newline < 0) break
      const text = this.#line(data.subarray(at, newline + 1))
      if (text !== undefined) parts.push(...text)
      at = newline + 1
    }
    this.#rest = data.subarray(at)
    return Buffer.concat(parts)
  }

  #line(line: Buffer): Buffer[] | undefined {
    const first = line.indexOf(0x20)
    const second = line.indexOf(0x20, first + 1)
    const third = line.indexOf(0x20, second + 1)
    if (first < 0 || second < 0 || third < 0) return undefined
    const time = line.subarray(0, first)
    const { since, timestamps } = this.#options
    if (since !== undefined && Date.parse(time.toString('latin1')) < since) return undefined
    const partial = line[second + 1] === 0x50
    const text = line.subarray(third + 1, partial ? line.length - 1 : line.length)
    const head = timestamps && !this.#continues ? [time, Buffer.from(' ')] : []
    this.#continues = partial
    return [...head, text]
  }
}
