import { spawn } from 'node:child_process'
import { closeSync, existsSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { createConnection, type Socket } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { delay } from '#base/async/delay.ts'
import { type Clock, systemClock } from '#base/clock.ts'
import { type Log, silentLog } from '#base/log/log.ts'
import type { Backend, EngineState, HttpEvent, L7Engine, Outcome, Signals } from '#gateway/engine.ts'
import { changedKeys } from '#gateway/table.ts'
import type { Namespace } from '#kernel/netns.ts'
import { signalKey } from '../haproxy/program.ts'
import { isRunning } from '../sockets/sockets.ts'
import type { Counts } from './forward.ts'
import { type Delta, type Order, ordersOf } from './orders.ts'

export interface SideOptions {
  /** Where HAProxy finds its sockets. */
  readonly dir: string
  readonly namespace?: Namespace
  readonly clock?: Clock
  readonly log?: Log
}

const mainFile = join(import.meta.dirname, 'main.ts')
const startWithinMs = 20_000
const restartMs = 200
const restartMsMax = 60_000

/**
 * The second engine: what HAProxy cannot do (mirrors, exact deadlines, retries of any code with any body), in a process of
 * Node beside it. HAProxy has matched and filtered by then, and says which rule and backend a request is for. There is
 * no process before the first such rule.
 */
export class SideEngine implements L7Engine {
  readonly #options: SideOptions
  readonly #log: Log
  readonly #clock: Clock
  #control: Control | undefined
  #orders = new Map<string, string>()
  #backends = new Map<string, Backend>()
  #state: EngineState | undefined
  #pid: number | undefined
  #closed = false
  #turn: Promise<unknown> = Promise.resolve()

  constructor(options: SideOptions) {
    this.#options = options
    this.#log = options.log ?? silentLog
    this.#clock = options.clock ?? systemClock
  }

  get pid(): number | undefined {
    return this.#pid
  }

  apply(desired: EngineState): Promise<Outcome> {
    return this.#queue(async () => {
      this.#state = desired
      await this.#bring(desired)
      return { revision: desired.revision, faults: new Map(), reloads: 0 }
    })
  }

  async #bring(state: EngineState): Promise<void> {
    const { orders, backends } = ordersOf(state, signalKey)
    if (this.#control === undefined) {
      // Nothing to do, and nobody who would do it.
      if (orders.size === 0 && !this.#isRunning()) return
      await this.#connect()
    }
    const texts = new Map([...orders].map(([key, order]) => [key, JSON.stringify(order)]))
    const delta: Delta = {
      orders: Object.fromEntries(
        changedKeys(this.#orders, texts).map((key): [string, Order | null] => [key, orders.get(key) ?? null]),
      ),
      backends: Object.fromEntries(
        changedKeys(this.#backends, backends).map((id): [string, Backend | null] => [id, backends.get(id) ?? null]),
      ),
    }
    if (Object.keys(delta.orders).length > 0 || Object.keys(delta.backends).length > 0)
      await this.#control?.ask({ delta })
    this.#orders = texts
    this.#backends = backends
  }

  /** HAProxy counts these requests with all others. */
  async signals(): Promise<readonly Signals[]> {
    return []
  }

  events(_listener: (event: HttpEvent) => void, _signal: AbortSignal): void {
    // HAProxy tells of them.
  }

  async counts(): Promise<Counts | undefined> {
    return (await this.#control?.ask({}))?.counts
  }

  #queue<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#turn.then(work)
    this.#turn = turn.catch(() => {})
    return turn
  }

  #isRunning(): boolean {
    const path = this.#pidPath()
    if (!existsSync(path)) return false
    this.#pid = Number(readFileSync(path, 'utf8'))
    return isRunning(this.#pid, this.#options.dir)
  }

  #pidPath(): string {
    return join(this.#options.dir, 'side.pid')
  }

  /** Finds the process or starts one; what it knows is forgotten with the first message. */
  async #connect(): Promise<void> {
    if (!this.#isRunning()) this.#spawn()
    const path = join(this.#options.dir, 'side-control.sock')
    const until = this.#clock.monotonic() + startWithinMs
    for (;;) {
      try {
        this.#control = await Control.connect(path)
        break
      } catch (error) {
        // Not `isRunning`: what has just been started has no command line for the moment in which it becomes Node.
        if (this.#clock.monotonic() > until || !existsSync(`/proc/${this.#pid}`)) throw error
        await delay(10, undefined, this.#clock)
      }
    }
    this.#orders = new Map()
    this.#backends = new Map()
    this.#control.onEnd(() => {
      this.#control = undefined
      if (this.#closed) return
      this.#log.warn({ pid: this.#pid }, 'the side engine has gone, starting it again')
      this.#restart(restartMs)
    })
    await this.#control.ask({ fresh: true })
  }

  /** Again and again until it is there. */
  #restart(inMs: number): void {
    this.#clock.schedule(inMs, () => {
      this.#queue(async () => {
        if (this.#state !== undefined && this.#control === undefined && !this.#closed) await this.#bring(this.#state)
      }).catch((error: unknown) => {
        this.#log.error({ err: error }, 'the side engine could not be started again, trying once more')
        this.#restart(Math.min(inMs * 2, restartMsMax))
      })
    })
  }

  #spawn(): void {
    const { dir, namespace } = this.#options
    const command = [
      process.execPath,
      '--max-semi-space-size=4',
      '--disable-warning=ExperimentalWarning',
      mainFile,
      dir,
    ]
    const [file = process.execPath, ...args] =
      namespace === undefined ? command : ['nsenter', `--net=${namespace.path}`, ...command]
    const log = openSync(join(dir, 'side.log'), 'w', 0o600)
    try {
      const child = spawn(file, args, { detached: true, stdio: ['ignore', log, log], cwd: '/' })
      child.on('error', (error) => this.#log.error({ err: error }, 'the side engine could not be run'))
      child.unref()
      this.#pid = child.pid
      writeFileSync(this.#pidPath(), `${child.pid ?? 0}`, { mode: 0o600 })
    } finally {
      closeSync(log)
    }
  }

  /** Lets go of the process, which goes on. */
  async detach(): Promise<void> {
    this.#closed = true
    await this.#queue(async () => this.#control?.close())
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.detach()
    if (this.#isRunning() && this.#pid !== undefined) process.kill(this.#pid, 'SIGKILL')
  }
}

interface Answer {
  readonly counts: Counts
}

/** The agent's end of the control socket. */
class Control {
  readonly #socket: Socket
  readonly #waiting: { resolve(answer: Answer): void; reject(error: Error): void }[] = []
  #ended = false
  #onEnd: () => void = () => {}

  private constructor(socket: Socket) {
    this.#socket = socket
    createInterface(socket).on('line', (line) => this.#waiting.shift()?.resolve(JSON.parse(line) as Answer))
    socket.on('error', () => socket.destroy())
    socket.on('close', () => {
      this.#ended = true
      for (const { reject } of this.#waiting.splice(0)) reject(new Error('the side engine has gone'))
      this.#onEnd()
    })
  }

  static async connect(path: string): Promise<Control> {
    const socket = createConnection({ path })
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve)
      socket.once('error', reject)
    })
    return new Control(socket)
  }

  onEnd(call: () => void): void {
    this.#onEnd = call
  }

  ask(message: object): Promise<Answer> {
    if (this.#ended) return Promise.reject(new Error('the side engine has gone'))
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject })
      this.#socket.write(`${JSON.stringify(message)}\n`)
    })
  }

  close(): void {
    this.#onEnd = () => {}
    this.#socket.destroy()
  }
}
