import { chmodSync, closeSync, mkdirSync, openSync, readFileSync, readSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import type { ContainerRecord } from '../runtime/runtime.ts'
import { annotations } from './container-config.ts'

/** Upstream's limits. */
const messageBytesMax = 4096
const logBytesMax = 2048
const logLinesMax = 80

/** The file that a run of a container finds at its terminationMessagePath. */
export const messageFile = (podDir: string, container: string, attempt: number): string =>
  join(podDir, 'containers', container, `termination-${attempt}`)

export function createMessageFile(path: string): void {
  mkdirSync(dirname(path), { recursive: true, mode: 0o750 })
  writeFileSync(path, '')
  // Whoever the container runs as writes it.
  chmodSync(path, 0o666)
}

/** What an ended container has left to say: its message file, or the end of its log where it failed and wants that. */
export function terminationMessage(record: ContainerRecord, podDir: string): string {
  if (record.message !== '') return record.message.slice(0, messageBytesMax)
  const text = tail(messageFile(podDir, record.name, record.attempt), messageBytesMax, 'head')
  if (text !== '' || record.exitCode === 0) return text
  if (record.annotations[annotations.messagePolicy] !== 'FallbackToLogsOnError') return text
  const lines = tail(record.logPath, logBytesMax * 2, 'tail')
    .split('\n')
    .filter((l) => l !== '')
  // `TIME STREAM F TEXT`; P in the place of F is a part of a line that goes on in the next.
  const words = lines.slice(-logLinesMax).map((line) => {
    const [, , tag, ...text] = line.split(' ')
    return `${text.join(' ')}${tag === 'P' ? '' : '\n'}`
  })
  return Buffer.from(words.join('')).subarray(-logBytesMax).toString('utf8')
}

function tail(path: string, bytes: number, end: 'head' | 'tail'): string {
  let fd: number
  try {
    if (end === 'head' && statSync(path).size <= bytes) return readFileSync(path, 'utf8')
    fd = openSync(path, 'r')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return ''
    throw error
  }
  try {
    const size = statSync(path).size
    const buffer = Buffer.alloc(Math.min(bytes, size))
    readSync(fd, buffer, 0, buffer.length, end === 'tail' ? size - buffer.length : 0)
    return buffer.toString('utf8')
  } finally {
    closeSync(fd)
  }
}
