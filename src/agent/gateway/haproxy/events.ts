import { createConnection, type Socket } from 'node:net'
import { createInterface } from 'node:readline'

/** A line of HAProxy's ring, as config.ts has it written. */
export interface EventLine {
  /** `0` and below: no answer was sent. */
  readonly code: string
  /** Session state at the end: `--` where all went well. */
  readonly ended: string
  readonly row: string
  readonly client: string
  readonly clientPort: number
  readonly address: string
  readonly port: number
  readonly latencyMs: number
  readonly protocol: string
  readonly method: string
  readonly endpoint: string
  readonly host: string
  readonly path: string
}

const text = (hex: string | undefined): string =>
  hex === undefined || hex === '-' ? '' : Buffer.from(hex, 'hex').toString('utf8')
const word = (value: string | undefined): string => (value === undefined || value === '-' ? '' : value)

/** Undefined for a line that was cut. */
export function parseEvent(line: string): EventLine | undefined {
  // The ring may put a header of its own before the message.
  const fields = line
    .slice(line.lastIndexOf('> ') + 1)
    .trim()
    .split('|')
  // The row is two fields, or none where there was no request to speak of.
  const [code, ended, ...rest] = fields
  const [pool = '', ...more] = rest
  const row = pool === '-' ? '' : `${pool}|${more.shift() ?? ''}`
  const [client, clientPort, address, port, ms, protocol, method, endpoint, host, path, beyond] = more
  if (code === undefined || ended === undefined || path === undefined || beyond !== undefined) return undefined
  return {
    ...{ code, ended, row, client: word(client), clientPort: Number(clientPort), address: word(address) },
    ...{ port: Number(port), latencyMs: Math.max(0, Number(ms)), protocol: word(protocol), method: word(method) },
    ...{ endpoint: word(endpoint), host: text(host), path: text(path) },
  }
}

/** Reads the ring of one process as it fills, until closed or the process ends. */
export function followEvents(cliPath: string, take: (event: EventLine) => void): { close(): void } {
  const socket: Socket = createConnection({ path: cliPath })
  socket.on('error', () => socket.destroy())
  socket.on('connect', () => socket.write('show events events -w\n'))
  createInterface(socket).on('line', (line) => {
    const event = parseEvent(line)
    if (event !== undefined) take(event)
  })
  return { close: () => socket.destroy() }
}
