import { type ChildProcess, spawn } from 'node:child_process'
import {
  closeSync,
  existsSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { delay } from '#base/async/delay.ts'
import { type Clock, systemClock } from '#base/clock.ts'
import type { Fd } from '#kernel/fd.ts'
import { isRunning } from '../sockets/sockets.ts'
import { Cli, EngineError } from './cli.ts'
import type { Capacity } from './config.ts'

/** 5,000 pools of three servers load in 300 ms; the rest is for a machine that is busy. */
const startWithinMs = 20_000
const firstFd = 3
/**
 * Glibc's allocator as a proxy needs it (glibc 2.35, others do not look at it): rows of thousands of routes on large pages, and the small texts
 * of requests kept at hand for more than the seven that are usual. Measured at 5,000 routes: 15.0 instead of 18.2 us for
 * a request of one of them, 16.3 instead of 18.9 for one after the other. And memory at the heap's end is kept: where
 * buffers happened to be last there, each round of events gave a large page back and had it zeroed anew, 4 us a request.
 */
const allocation = 'glibc.malloc.hugetlb=1:glibc.malloc.tcache_count=2000:glibc.malloc.trim_threshold=67108864'

/** What an agent that comes back has to know of the process that it finds. */
export interface Generation {
  readonly number: number
  readonly pid: number
  readonly capacity: Capacity
  readonly reloads: number
  /** Hash of what the program does beside its tables: another agent's may be another. */
  readonly shape: string
}

interface StartOptions {
  readonly dir: string
  readonly binary: string
  readonly config: string
  /** Listening sockets in the order in which the configuration has them. */
  readonly sockets: readonly Fd[]
  readonly capacity: Capacity
  readonly number: number
  readonly reloads: number
  readonly shape: string
  /** A path of a network namespace; absent: our own. */
  readonly namespacePath?: string
  readonly clock?: Clock
}

/** Descriptors as the child has them. */
export const childFds = (count: number): number[] => Array.from({ length: count }, (_, i) => firstFd + i)

export const cliPath = (dir: string, number: number): string => join(dir, `cli-${number}.sock`)
const configPath = (dir: string): string => join(dir, 'haproxy.cfg')
const recordPath = (dir: string): string => join(dir, 'engine.json')

/** A HAProxy that serves: its number and the connection to its run-time API. */
export class HaproxyProcess {
  readonly generation: Generation
  readonly cli: Cli

  private constructor(generation: Generation, cli: Cli) {
    this.generation = generation
    this.cli = cli
  }

  /**
   * Starts one and resolves when it accepts connections. It is a process group of its own and outlives us. Throws with
   * what it said where it would not start.
   */
  static async start(options: StartOptions): Promise<HaproxyProcess> {
    const {
      dir,
      binary,
      config,
      sockets,
      capacity,
      number,
      reloads,
      shape,
      namespacePath,
      clock = systemClock,
    } = options
    writeFileSync(`${configPath(dir)}.new`, config, { mode: 0o600 })
    renameSync(`${configPath(dir)}.new`, configPath(dir))
    rmSync(cliPath(dir, number), { force: true })
    const logPath = join(dir, 'haproxy.log')
    rmSync(logPath, { force: true })
    const log = openSync(logPath, 'a', 0o600)
    // -db: in the foreground. The kernel gives the port of its own connections out of what the namespace has.
    const command = [binary, '-db', '-f', configPath(dir)]
    const [file = binary, ...args] =
      namespacePath === undefined ? command : ['nsenter', `--net=${namespacePath}`, ...command]
    let child: ChildProcess
    try {
      child = spawn(file, args, {
        detached: true,
        stdio: ['ignore', log, log, ...sockets.map((s) => s.number)],
        env: { PATH: process.env.PATH ?? '/usr/sbin:/usr/bin:/sbin:/bin', GLIBC_TUNABLES: allocation },
      })
    } finally {
      closeSync(log)
    }
    const starting = new AbortController()
    const failed = new Promise<never>((_, reject) => {
      child.once('error', (cause) => {
        starting.abort()
        reject(new EngineError(`Cannot run ${file}: install haproxy`, { cause }))
      })
      child.once('exit', (code, signal) => {
        starting.abort()
        const words = existsSync(logPath) ? readFileSync(logPath, 'utf8').slice(-4000) : ''
        reject(new EngineError(`HAProxy ended while starting (${code ?? signal})\n${words}`))
      })
    })
    failed.catch(() => {})
    const cli = await Promise.race([failed, connectSoon(cliPath(dir, number), starting.signal, clock)])
    child.unref()
    const generation = { number, pid: child.pid ?? 0, capacity, reloads, shape }
    const record = JSON.stringify(generation)
    writeFileSync(`${recordPath(dir)}.new`, record, { mode: 0o600 })
    renameSync(`${recordPath(dir)}.new`, recordPath(dir))
    return new HaproxyProcess(generation, cli)
  }

  /** The one that an earlier agent started, where it is still there. */
  static async find(dir: string): Promise<HaproxyProcess | undefined> {
    const generation = readRecord(dir)
    if (generation === undefined || !isRunning(generation.pid, configPath(dir))) return undefined
    return new HaproxyProcess(generation, await Cli.connect(cliPath(dir, generation.number)))
  }

  /** Ends the one that an earlier agent started, where it is still there; `inherit` takes what it has open first. */
  static killFound(dir: string, inherit: (generation: Generation) => void): void {
    const generation = readRecord(dir)
    if (generation === undefined || !isRunning(generation.pid, configPath(dir))) return
    inherit(generation)
    signalTo(generation.pid, 'SIGKILL')
  }

  /** Accepts no more from when this resolves, and finishes what it has. */
  async retire(): Promise<void> {
    // The signal is heard some time later; until then a connection could still come to what this process knows.
    for (const name of ['plain', 'tls']) {
      const reply = await this.cli.command(`shutdown frontend ${name}`)
      if (reply !== '' && !reply.startsWith('No such frontend'))
        throw new EngineError(`HAProxy did not close its frontend ${name}: ${reply}`)
    }
    signalTo(this.generation.pid, 'SIGUSR1')
    this.cli[Symbol.dispose]()
  }

  kill(): void {
    signalTo(this.generation.pid, 'SIGKILL')
    this.cli[Symbol.dispose]()
  }
}

function readRecord(dir: string): Generation | undefined {
  if (!existsSync(recordPath(dir))) return undefined
  try {
    return JSON.parse(readFileSync(recordPath(dir), 'utf8')) as Generation
  } catch (cause) {
    throw new EngineError(`Cannot read ${recordPath(dir)}`, { cause })
  }
}

/** HAProxy says a line for each server that comes or goes; nobody would read a megabyte of them. */
const logBytesMax = 1 << 20

/** Empties what it has said where that has become too much. It goes on writing at the end, wherever that is. */
export function boundLog(dir: string): void {
  const path = join(dir, 'haproxy.log')
  if (existsSync(path) && statSync(path).size > logBytesMax) truncateSync(path)
}

/** The last generation that was started here; numbers go on from it. */
export const lastGeneration = (dir: string): number => readRecord(dir)?.number ?? 0

/** Processes of earlier generations, found by their configuration file: for what has to end them. */
function signalTo(pid: number, signal: NodeJS.Signals): void {
  if (pid <= 1) return
  try {
    process.kill(pid, signal)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
}

async function connectSoon(path: string, signal: AbortSignal, clock: Clock): Promise<Cli> {
  const until = clock.monotonic() + startWithinMs
  for (;;) {
    try {
      return await Cli.connect(path)
    } catch (error) {
      if (clock.monotonic() > until) throw error
      await delay(5, signal, clock)
    }
  }
}
