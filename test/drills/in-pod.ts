import { type ChildProcess, spawn } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { findCgroups } from '#kernel/cgroup.ts'
import type { TestCluster } from '../cluster/cluster.ts'

/** A program of ours in a pod's network namespace and cgroup, but not its child: an exec would end with the agent. */
export class InPod implements Disposable {
  readonly #child: ChildProcess
  readonly #program: string
  readonly #ended: Promise<void>
  /** How it ended; undefined while it runs. */
  #end: string | undefined
  #output = ''
  #errors = ''
  #waiting: (() => void)[] = []

  /** `program` is a file beside this one. */
  constructor(pod: { readonly pid: number; readonly cgroup: string }, program: string, ...args: string[]) {
    this.#program = program
    const script = 'echo $$ > "$0/cgroup.procs" && net=$1 && shift && exec nsenter "--net=$net" -- "$@"'
    const command = [process.execPath, join(import.meta.dirname, program), ...args]
    this.#child = spawn('/bin/sh', ['-c', script, pod.cgroup, `/proc/${pod.pid}/ns/net`, ...command], {
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    this.#child.stderr?.on('data', (chunk: Buffer) => {
      this.#errors = (this.#errors + chunk).slice(-4_000)
    })
    this.#child.stdout?.on('data', (chunk: Buffer) => {
      this.#output += chunk
      for (const look of this.#waiting.splice(0)) look()
    })
    this.#ended = new Promise((resolve) =>
      this.#child.once('close', (code, signal) => {
        this.#end = `it ended with ${code ?? signal}: ${this.#output.slice(-1_000)}${this.#errors}`
        for (const look of this.#waiting.splice(0)) look()
        resolve()
      }),
    )
  }

  /** Waits until it has said so. Throws with its words where it ends before. */
  async said(text: string, withinMs: number): Promise<void> {
    const end = performance.now() + withinMs
    while (!this.#output.includes(text)) {
      if (this.#end !== undefined) throw new Error(`${this.#program} did not say ${JSON.stringify(text)}: ${this.#end}`)
      const left = end - performance.now()
      if (left <= 0)
        throw new Error(
          `${this.#program} did not say ${JSON.stringify(text)} within ${withinMs / 1000} s: ${this.#errors}`,
        )
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left)
        this.#waiting.push(() => {
          clearTimeout(timer)
          resolve()
        })
      })
    }
  }

  /** Tells it to stop and reads the last line that it says. Throws with its words where that is no JSON, or it does not end. */
  async end<T>(withinMs = 60_000): Promise<T> {
    this.#child.kill('SIGTERM')
    const over = new AbortController()
    const late = sleep(withinMs, 'late', { signal: over.signal }).catch(() => undefined)
    if ((await Promise.race([this.#ended, late])) === 'late')
      throw new Error(
        `${this.#program} did not end within ${withinMs / 1000} s: ${this.#output.slice(-1_000)}${this.#errors}`,
      )
    over.abort()
    const last = this.#output.trimEnd().split('\n').at(-1) ?? ''
    try {
      return JSON.parse(last) as T
    } catch (error) {
      throw new Error(`${this.#program}: ${this.#end ?? ''}`, { cause: error })
    }
  }

  [Symbol.dispose](): void {
    this.#child.kill('SIGKILL')
  }
}

/** The first process of a pod's container, and its cgroup in the unified hierarchy, by what the runtime calls the container. */
export function processOf(cluster: TestCluster, pod: string): { readonly pid: number; readonly cgroup: string } {
  const uid = cluster.kubectl('get', 'pod', pod, '-o', 'jsonpath={.metadata.uid}')
  const { unified } = findCgroups()
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue
    try {
      const path = /^0::(.*)$/m.exec(readFileSync(`/proc/${name}/cgroup`, 'utf8'))?.[1] ?? ''
      if (path.includes(uid)) return { pid: Number(name), cgroup: join(unified, path) }
    } catch {
      // It has ended since it was listed.
    }
  }
  throw new Error(`pod ${pod} has no process`)
}
