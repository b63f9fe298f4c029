import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { basename, join } from 'node:path'
import type { Capacity } from './config.ts'
import { mapNames } from './maps.ts'
import { cliPath } from './process.ts'
import { shapeOfProgram } from './shape.ts'

/**
 * What to answer instead. `refused`: nothing is done and HAProxy says so. `silent`: nothing is done, and the answer is what
 * it would be. `cut`: it is done with values that lack their last character.
 */
export type Lie = 'refused' | 'silent' | 'cut'

const unhex = (text: string): string => Buffer.from(text, 'hex').toString()
const hex = (text: string): string => Buffer.from(text).toString('hex')

/** For tests: tables and servers behind HAProxy's run-time API, which answers in its words and lies when it is told to. */
export class FakeHaproxy implements AsyncDisposable {
  readonly maps = new Map<string, Map<string, string>>(mapNames.map((name) => [name, new Map()]))
  /** State by `pool/server`. */
  readonly servers = new Map<string, 'maint' | 'ready' | 'drain'>()
  /** Every command since the test last emptied it. */
  readonly commands: string[] = []
  /** The command of that number is answered with a lie. */
  lie: { readonly at: number; readonly how: Lie } | undefined
  readonly #server: Server
  readonly #process: ChildProcess
  readonly #sockets = new Set<Socket>()

  private constructor(server: Server, process: ChildProcess) {
    this.#server = server
    this.#process = process
  }

  /** Is found in `dir` as the process of an earlier agent. */
  static async start(dir: string, capacity: Capacity): Promise<FakeHaproxy> {
    // Its arguments are those of a HAProxy with that file; it ends with its standard input.
    const held = spawn('/bin/sh', ['-c', 'read -r line', 'haproxy', join(dir, 'haproxy.cfg')], {
      stdio: ['pipe', 'ignore', 'ignore'],
    })
    await once(held, 'spawn')
    const generation = { number: 1, pid: held.pid, capacity, reloads: 0, shape: shapeOfProgram(dir, true) }
    writeFileSync(join(dir, 'engine.json'), JSON.stringify(generation))
    const server = createServer()
    const fake = new FakeHaproxy(server, held)
    server.on('connection', (socket) => fake.#serve(socket))
    server.listen(cliPath(dir, 1))
    await once(server, 'listening')
    return fake
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy()
    this.#server.close()
    const ended = this.#process.exitCode === null && this.#process.signalCode === null
    this.#process.stdin?.end()
    if (ended) await once(this.#process, 'exit')
  }

  #serve(socket: Socket): void {
    this.#sockets.add(socket)
    let text = ''
    socket.setEncoding('utf8')
    socket.on('error', () => socket.destroy())
    socket.on('close', () => this.#sockets.delete(socket))
    socket.on('data', (more: string) => {
      text += more
      for (;;) {
        const [, line, payload] =
          /^([^\n]*) <<\n([\s\S]*?)\n\n/.exec(text) ?? /^(?![^\n]* <<\n)([^\n]*)\n/.exec(text) ?? []
        if (line === undefined) return
        text = text.slice(line.length + (payload === undefined ? 1 : payload.length + 6))
        // The ring of events: nothing happens.
        if (line.startsWith('show events')) continue
        socket.write(`${line === 'prompt' ? '' : this.#answer(line, payload?.split('\n') ?? [])}\n> `)
      }
    })
  }

  #answer(line: string, payload: readonly string[]): string {
    const how = this.lie?.at === this.commands.length ? this.lie.how : undefined
    this.commands.push(line)
    if (how === 'refused') return 'No such map.\n'
    const words = line.split(' ')
    const [verb = '', noun = '', name = ''] = words
    const say = this.#commands.get(verb === 'weft' ? `weft ${noun}` : `${verb} ${noun}`)
    return say === undefined ? 'Unknown command.\n' : say({ name, words: words.slice(3), payload, how })
  }

  readonly #commands = new Map<string, (told: Told) => string>([
    [
      'show map',
      ({ name, how }) =>
        [...this.#map(name)]
          .map(([key, value]) => `0x1 ${key} ${how === 'cut' ? value.slice(0, -1) : value}\n`)
          .join(''),
    ],
    [
      'add map',
      ({ name, payload, how }) => {
        for (const row of how === 'silent' ? [] : payload) {
          const at = row.indexOf(' ')
          this.#map(name).set(row.slice(0, at), how === 'cut' ? row.slice(at + 1, -1) : row.slice(at + 1))
        }
        return ''
      },
    ],
    [
      'weft set',
      ({ name, words: [key = '', value = ''], how }) => {
        const text = how === 'cut' ? unhex(value).slice(0, -1) : unhex(value)
        if (how !== 'silent') this.#map(name).set(unhex(key), text)
        return this.#found(name, key)
      },
    ],
    [
      'weft del',
      ({ name, words: [key = ''], how }) => {
        if (how !== 'silent') this.#map(name).delete(unhex(key))
        return this.#found(name, key)
      },
    ],
    ['weft get', ({ name, words }) => words.map((key) => this.#found(name, key)).join('')],
    [
      'show servers',
      () =>
        `1\n# be_name srv_name srv_admin_state\n${[...this.servers]
          .map(([key, state]) => `${key.replace('/', ' ')} ${{ maint: 1, ready: 0, drain: 8 }[state]}\n`)
          .join('')}`,
    ],
    [
      'add server',
      ({ name, how }) => {
        if (this.servers.has(name)) return 'Already exists a server with the same name in backend.\n'
        if (how !== 'silent') this.servers.set(name, 'maint')
        return 'New server registered.\n'
      },
    ],
    [
      'set server',
      ({ name, words: [, state] }) => {
        if (!this.servers.has(name)) return 'No such server.\n'
        if (state !== 'ready' && state !== 'drain' && state !== 'maint') return "'set server state' expects a state.\n"
        this.servers.set(name, state)
        return ''
      },
    ],
  ])

  /** As Lua finds it: in a map of prefixes by the longest row that the key begins with. */
  #found(name: string, digits: string): string {
    const key = unhex(digits)
    const rows = this.#map(name)
    const isPrefix = name === 'routes' || name === 'splits'
    for (let length = key.length; length > (isPrefix ? 0 : key.length - 1); length--) {
      const value = rows.get(key.slice(0, length))
      if (value !== undefined) return `${hex(value)}\n`
    }
    return '-\n'
  }

  #map(name: string): Map<string, string> {
    const map = this.maps.get(basename(name, '.map'))
    if (map === undefined) throw new Error(`There is no map ${name}`)
    return map
  }
}

interface Told {
  readonly name: string
  readonly words: readonly string[]
  readonly payload: readonly string[]
  readonly how: Lie | undefined
}
