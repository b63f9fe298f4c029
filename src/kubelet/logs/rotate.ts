import { createReadStream, createWriteStream } from 'node:fs'
import { readdir, rename, rm, stat } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { createGzip } from 'node:zlib'
import { delay } from '#base/async/delay.ts'
import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log/log.ts'
import type { Runtime } from '../runtime/runtime.ts'

export interface RotateOptions {
  readonly runtime: Runtime
  readonly clock: Clock
  readonly log: Log
  /** Upstream: 10 MiB, 5 files, looked at every 10 s. */
  readonly bytesMax?: number
  readonly filesMax?: number
  readonly everyMs?: number
}

/** Keeps the logs of running containers from growing without end, until `signal` aborts. */
export async function rotateLogs(options: RotateOptions, signal: AbortSignal): Promise<void> {
  const { runtime, clock, log, everyMs = 10_000 } = options
  /** Container id -> log file: a path does not change, and asking for it costs a call. */
  const paths = new Map<string, string>()
  while (!signal.aborted) {
    await delay(everyMs, signal, clock)
    try {
      const running = (await runtime.listContainers(undefined, signal)).filter((c) => c.state === 'running')
      for (const id of paths.keys()) if (!running.some((c) => c.id === id)) paths.delete(id)
      for (const { id } of running) {
        const path = paths.get(id) ?? (await runtime.containerStatus(id, signal))?.logPath
        if (!path) continue
        paths.set(id, path)
        await rotateOne(options, id, path, signal)
      }
    } catch (error) {
      if (signal.aborted) return
      log.warn({ err: error }, 'cannot rotate logs')
    }
  }
}

/** Moves the log away when it is too large, has the runtime open a new one, and keeps the newest of the old. */
export async function rotateOne(options: RotateOptions, id: string, path: string, signal: AbortSignal): Promise<void> {
  const { runtime, clock, bytesMax = 10 << 20, filesMax = 5 } = options
  const found = await stat(path).catch(() => undefined)
  if (found === undefined || found.size < bytesMax) return
  const stamp = new Date(clock.now()).toISOString().replaceAll(/[-:]/g, '').replace('T', '-').slice(0, 15)
  const moved = `${path}.${stamp}`
  await rename(path, moved)
  try {
    await runtime.reopenLog(id, signal)
  } catch (error) {
    // The runtime still writes to the moved file: under its own name it is not lost.
    await rename(moved, path)
    throw error
  }
  const old = (await readdir(dirname(path)))
    .filter((name) => name.startsWith(`${basename(path)}.`) && !name.endsWith('.tmp'))
    .toSorted()
  for (const name of old.slice(0, Math.max(0, old.length - (filesMax - 1)))) await rm(join(dirname(path), name))
  // The newest of the old stays plain: a reader may still be in it.
  for (const name of old.slice(0, -1).slice(-(filesMax - 2)))
    if (!name.endsWith('.gz')) await compress(join(dirname(path), name))
}

async function compress(path: string): Promise<void> {
  await pipeline(createReadStream(path), createGzip(), createWriteStream(`${path}.tmp`))
  await rename(`${path}.tmp`, `${path}.gz`)
  await rm(path)
}
