import { randomBytes } from 'node:crypto'
import { closeSync, fsyncSync, openSync, readFileSync, renameSync, writeSync } from 'node:fs'
import { join } from 'node:path'

/** The text of a file, or undefined where there is none. Other failures are thrown with the path. */
export function readIfPresent(directory: string, name: string): string | undefined {
  try {
    return readFileSync(join(directory, name), 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw new Error(`Cannot read ${join(directory, name)}`, { cause: error })
  }
}

/** Writes a secret so that a crash leaves the old file or the new one, readable by its owner only. */
export function writeSecret(directory: string, name: string, text: string): void {
  const path = join(directory, name)
  const fresh = `${path}.${randomBytes(4).toString('hex')}`
  try {
    const fd = openSync(fresh, 'wx', 0o600)
    try {
      writeSync(fd, text)
      fsyncSync(fd)
    } finally {
      closeSync(fd)
    }
    renameSync(fresh, path)
  } catch (error) {
    throw new Error(`Cannot write ${path}`, { cause: error })
  }
}
