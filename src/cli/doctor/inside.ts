import { createSocket } from 'node:dgram'
import { connect, isIPv6 } from 'node:net'
import { text } from 'node:stream/consumers'
import { encodeQuery, parseAnswers } from '#agent/dns/wire.ts'

/** What to try from where this program runs: doctor.ts starts it in a node's namespace and cgroup. */
export type Try =
  | { readonly what: 'name'; readonly server: string; readonly name: string; readonly transport: 'udp' | 'tcp' }
  | { readonly what: 'connect'; readonly address: string; readonly port: number }

export interface Tried {
  readonly ms: number
  /** Empty: it went well. */
  readonly error: string
  /** Addresses, for a name. */
  readonly answers: readonly string[]
}

const withinMs = 2_000
const dnsPort = 53

function within<T>(run: (done: (value: T) => void, fail: (error: Error) => void) => () => void): Promise<T> {
  return new Promise((resolve, reject) => {
    const end = run(
      (value) => settle(() => resolve(value)),
      (error) => settle(() => reject(error)),
    )
    const timer = setTimeout(() => settle(() => reject(new Error(`no answer within ${withinMs} ms`))), withinMs)
    function settle(then: () => void): void {
      clearTimeout(timer)
      end()
      then()
    }
  })
}

const dial = (address: string, port: number): Promise<void> =>
  within<void>((done, fail) => {
    const socket = connect(port, address, () => done())
    socket.on('error', fail)
    return () => socket.destroy()
  })

const askDatagram = (server: string, query: Buffer): Promise<Buffer> =>
  within<Buffer>((done, fail) => {
    const socket = createSocket(isIPv6(server) ? 'udp6' : 'udp4')
    socket.on('error', fail)
    socket.on('message', done)
    socket.send(query, dnsPort, server)
    return () => socket.close()
  })

const askStream = (server: string, query: Buffer): Promise<Buffer> =>
  within<Buffer>((done, fail) => {
    const socket = connect(dnsPort, server, () => {
      const length = Buffer.alloc(2)
      length.writeUInt16BE(query.length)
      socket.write(Buffer.concat([length, query]))
    })
    socket.on('error', fail)
    socket.on('data', (data) => done(data.subarray(2)))
    return () => socket.destroy()
  })

async function resolve(attempt: Extract<Try, { what: 'name' }>): Promise<string[]> {
  const query = encodeQuery(Math.floor(Math.random() * 65_536), attempt.name, 1)
  const ask = attempt.transport === 'udp' ? askDatagram : askStream
  const records = parseAnswers(await ask(attempt.server, query)) ?? []
  if (records.length === 0) throw new Error(`${attempt.name} has no address`)
  return records.map(({ data }) => [...data].join('.'))
}

async function attempt(one: Try): Promise<Tried> {
  const start = performance.now()
  const done = (error: string, answers: readonly string[] = []): Tried => ({
    ms: performance.now() - start,
    error,
    answers,
  })
  try {
    if (one.what === 'name') return done('', await resolve(one))
    await dial(one.address, one.port)
    return done('')
  } catch (error) {
    return done(error instanceof Error ? error.message : String(error))
  }
}

const tries = JSON.parse(await text(process.stdin)) as Try[]
process.stdout.write(JSON.stringify(await Promise.all(tries.map(attempt))))
