import { type ChildProcess, spawn } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { findCgroups } from '#kernel/cgroup.ts'
import type { TestCluster } from '../cluster/cluster.ts'

/** A program of ours in a pod's network namespace and cgroup, but not its child: an exec would end with the agent. */
export class InPod implements Disposable {
  readonly #child: ChildProcess
  readonly #ended: Promise<void>
  #output = ''
  #waiting: (() => void)[] = []

  /** `program` is a file beside this one. */
  constructor(pod: { readonly pid: number; readonly cgroup: string }, program: string, ...args: string[]) {
    const script = 'echo $$ > "$0/cgroup.procs" && net=$1 && shift && exec nsenter "--net=$net" -- "$@"'
    const command = [process.execPath, join(import.meta.dirname, program), ...args]
    this.#child = spawn('/bin/sh', ['-c', script, pod.cgroup, `/proc/${pod.pid}/ns/net`, ...command], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    this.#child.stdout?.on('data', (chunk: Buffer) => {
      this.#output += chunk
      for (const look of this.#waiting.splice(0)) look()
    })
    this.#ended = new Promise((resolve) => this.#child.once('close', () => resolve()))
  }

  /** Waits until it has said so. */
  async said(text: string, withinMs: number): Promise<void> {
    const end = performance.now() + withinMs
    while (!this.#output.includes(text)) {
      const left = end - performance.now()
      if (left <= 0) throw new Error(`it did not say ${JSON.stringify(text)} within ${withinMs / 1000} s`)
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left)
        this.#waiting.push(() => {
          clearTimeout(timer)
          resolve()
        })
      })
    }
  }

  /** Tells it to stop and reads the last line that it says. */
  async end<T>(): Promise<T> {
    this.#child.kill('SIGTERM')
    await this.#ended
    const last = this.#output.trimEnd().split('\n').at(-1) ?? ''
    if (last === '') throw new Error('it said nothing')
    return JSON.parse(last) as T
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
