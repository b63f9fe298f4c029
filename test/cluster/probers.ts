import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { createInterface } from 'node:readline'

export type Protocol = 'tcp' | 'udp' | 'sctp'

export interface Question {
  /** `hold`: a TCP connection that talks until it is cut. */
  readonly protocol: Protocol | 'hold'
  readonly address: string
  readonly port: number
}

/** `open`, or how it was not: `refused`, `prohibited`, `unreachable`, `cut`, `silent`, `error …`; of `hold` `closed` or `held`, too. */
export type Answer = string

const images = resolve(import.meta.dirname, '../../images')

/** Builds the prober (images/probe.c) into a directory of its own. */
export function buildProbe(): { readonly path: string; remove(): void } {
  const dir = mkdtempSync(join(tmpdir(), 'weft-probe-'))
  const path = join(dir, 'probe')
  execFileSync('make', ['-s', '-C', images, `OUT=${dir}`, path])
  return { path, remove: () => rmSync(dir, { recursive: true, force: true }) }
}

/** One prober in a network namespace, there for as long as the test. Answers the ports in `serve`. */
export class Prober {
  readonly name: string
  readonly #child: ChildProcess
  readonly #waiting = new Map<string, (answer: Answer) => void>()
  readonly #ready: Promise<void>
  #ended: Answer | undefined
  #next = 0

  constructor(name: string, probe: string, netns: string, serve: readonly number[]) {
    this.name = name
    const ports = serve.flatMap((port) => ['-s', String(port)])
    this.#child = spawn('nsenter', [`--net=${netns}`, '--', probe, ...ports], { stdio: ['pipe', 'pipe', 'inherit'] })
    const { stdout } = this.#child
    if (stdout === null) throw new Error('a prober without output')
    this.#ready = new Promise((done, fail) => {
      this.#child.once('error', fail)
      this.#child.once('exit', (code, signal) => {
        this.#ended = `error the prober in ${name} ended with ${code ?? signal}`
        fail(new Error(this.#ended))
        // Nobody answers any more; who asks is told so instead of waiting.
        for (const answered of this.#waiting.values()) answered(this.#ended)
        this.#waiting.clear()
      })
      createInterface({ input: stdout }).on('line', (line) => {
        if (line === 'ready') return done()
        const at = line.indexOf(' ')
        const id = line.slice(0, at)
        this.#waiting.get(id)?.(line.slice(at + 1))
        this.#waiting.delete(id)
      })
    })
  }

  /** All at once; answers in the order of the questions. */
  async ask(questions: readonly Question[], withinMs = 1_000): Promise<Answer[]> {
    await this.#ready
    const ended = this.#ended
    if (ended !== undefined) return questions.map(() => ended)
    const answers = questions.map(({ protocol, address, port }) => {
      const id = String(this.#next++)
      const line = `${id} ${protocol} ${address} ${port} ${withinMs}\n`
      return { line, answer: new Promise<Answer>((answered) => this.#waiting.set(id, answered)) }
    })
    this.#child.stdin?.write(answers.map(({ line }) => line).join(''))
    return Promise.all(answers.map(({ answer }) => answer))
  }

  /** How often connections that came in said something, and how many were reset by their client, or by somebody for it. */
  async heard(): Promise<{ readonly heard: number; readonly resets: number }> {
    await this.#ready
    const id = String(this.#next++)
    const answer = new Promise<Answer>((answered) => this.#waiting.set(id, answered))
    this.#child.stdin?.write(`${id} heard - 0 0\n`)
    const [heard = 0, resets = 0] = (await answer).split(' ').map(Number)
    return { heard, resets }
  }

  end(): void {
    this.#ready.catch(() => {})
    this.#child.kill('SIGKILL')
  }
}

/** The network namespace of each pod, by UID, as a process of its has it. */
export function networkOfPods(uids: readonly string[]): Map<string, string> {
  const found = new Map<string, string>()
  for (const pid of readdirSync('/proc')) {
    if (!/^\d+$/.test(pid)) continue
    try {
      const cgroup = readFileSync(`/proc/${pid}/cgroup`, 'utf8')
      const uid = uids.find((each) => cgroup.includes(each))
      if (uid !== undefined) found.set(uid, `/proc/${pid}/ns/net`)
    } catch {
      // It ended while we looked.
    }
  }
  return found
}
