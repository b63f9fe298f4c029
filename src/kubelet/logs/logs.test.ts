import { appendFileSync, existsSync, mkdtempSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import fc from 'fast-check'
import { FakeClock } from '#base/clock.ts'
import { silentLog } from '#base/log/log.ts'
import { FakeRuntime } from '../runtime/fake.ts'
import { LineParser, type LogOptions, readLog } from './reader.ts'
import { rotateOne } from './rotate.ts'

const scratch = (t: { teardown(fn: () => void): void }): string => {
  const dir = mkdtempSync(join(tmpdir(), 'weft-logs-'))
  t.teardown(() => rmSync(dir, { recursive: true, force: true }))
  return dir
}
const line = (second: number, text: string, tag = 'F', stream = 'stdout') =>
  `2026-01-01T00:00:0${second}.000000000Z ${stream} ${tag} ${text}\n`
const all: LogOptions = {
  follow: false,
  timestamps: false,
  tailLines: undefined,
  limitBytes: undefined,
  since: undefined,
}
const never = new AbortController().signal

async function read(path: string, options: Partial<LogOptions> = {}): Promise<string> {
  let text = ''
  for await (const part of readLog(path, { ...all, ...options }, async () => true, never)) text += part.toString('utf8')
  return text
}

test('readLog() gives back what the container wrote', async (t) => {
  const path = join(scratch(t), '0.log')
  writeFileSync(path, line(1, 'one') + line(2, 'long ', 'P') + line(2, 'line') + line(3, 'bad', 'F', 'stderr'))
  t.is(await read(path), 'one\nlong line\nbad\n')
  t.is(await read(path, { tailLines: 2 }), 'long line\nbad\n')
  t.is(await read(path, { tailLines: 0 }), '')
  t.is(await read(path, { tailLines: 99 }), 'one\nlong line\nbad\n')
  t.is(await read(path, { limitBytes: 6 }), 'one\nlo')
  t.is(await read(path, { since: Date.parse('2026-01-01T00:00:03Z') }), 'bad\n')
  t.is(
    await read(path, { timestamps: true, tailLines: 2 }),
    '2026-01-01T00:00:02.000000000Z long line\n2026-01-01T00:00:03.000000000Z bad\n',
  )
})
test('readLog() finds the tail of a log larger than a read', async (t) => {
  const path = join(scratch(t), '0.log')
  writeFileSync(path, Array.from({ length: 5_000 }, (_, i) => line(1, `line ${i}`)).join(''))
  t.is(await read(path, { tailLines: 2 }), 'line 4998\nline 4999\n')
  t.is((await read(path, { tailLines: 3_000 })).split('\n').length, 3_001)
})
test('LineParser does not care where the pieces are cut', (t) => {
  const log = line(1, 'one') + line(2, 'zwei ü', 'P') + line(2, '') + line(3, 'three')
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: Buffer.byteLength(log) })), (cuts) => {
      const bytes = Buffer.from(log)
      const parser = new LineParser({ timestamps: false, since: undefined })
      const ends = [...cuts.toSorted((a, b) => a - b), bytes.length]
      const text = Buffer.concat(ends.map((end, i) => parser.push(bytes.subarray(ends[i - 1] ?? 0, end)))).toString()
      return text === 'one\nzwei ü\nthree\n'
    }),
  )
  t.pass()
})
test('readLog() follows into the file that a rotation made, and ends with the container', async (t) => {
  const path = join(scratch(t), '0.log')
  writeFileSync(path, line(1, 'one'))
  let text = ''
  let ended = false
  for await (const part of readLog(path, { ...all, follow: true }, async () => ended, never)) {
    text += part.toString('utf8')
    if (text === 'one\n') {
      appendFileSync(path, line(2, 'two'))
      renameSync(path, `${path}.old`)
      writeFileSync(path, line(3, 'three'))
    }
    if (text.endsWith('three\n')) ended = true
  }
  t.is(text, 'one\ntwo\nthree\n')
})

test('rotateOne() keeps the newest files, packs all but the newest of the old, and loses nothing on failure', async (t) => {
  const dir = scratch(t)
  const path = join(dir, '0.log')
  const clock = new FakeClock()
  const runtime = new FakeRuntime(clock)
  const reopened: string[] = []
  runtime.reopenLog = async (id) => {
    reopened.push(id)
    writeFileSync(path, '')
  }
  const options = { runtime, clock, log: silentLog, bytesMax: 10, filesMax: 3 }
  writeFileSync(path, 'short')
  await rotateOne(options, 'c', path, never)
  t.deepEqual(reopened, [])
  for (let i = 0; i < 4; i++) {
    clock.advance(1_000)
    writeFileSync(path, `long enough ${i}`)
    await rotateOne(options, 'c', path, never)
  }
  t.deepEqual(readdirSync(dir).toSorted(), ['0.log', '0.log.20260101-000003.gz', '0.log.20260101-000004'])
  runtime.reopenLog = async () => {
    throw new Error('no')
  }
  writeFileSync(path, 'must not be lost')
  await t.throwsAsync(rotateOne(options, 'c', path, never))
  t.true(existsSync(path))
})
