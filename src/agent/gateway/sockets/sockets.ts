import { readFileSync } from 'node:fs'
import { type Fd, takeDescriptor } from '#kernel/fd.ts'
import { Namespace } from '#kernel/netns.ts'

/** Both families' listening sockets of one place in the engine. */
export interface SocketPair {
  readonly v4: Fd
  readonly v6: Fd
}

/** Whatever the system allows: connections wait here while the engine starts again. */
const backlog = 4096

/** How an engine that is running already has them open. */
export interface Heir {
  readonly pid: number
  /** Its descriptors, four and six by turns. */
  readonly fds: readonly number[]
}

/**
 * The listening sockets that an engine inherits: made in the node's namespace and bound to a loopback port that nobody
 * knows; connections come by sk_lookup. While anybody has them open, what connects waits.
 */
export class ListenSockets implements Disposable {
  readonly #namespace: Namespace | undefined
  readonly #pairs: SocketPair[] = []

  constructor(namespace?: Namespace) {
    this.#namespace = namespace
  }

  /** Those that an engine of an earlier agent serves. Throws `KernelError` where it has gone meanwhile. */
  adopt({ pid, fds }: Heir): void {
    const taken: Fd[] = []
    try {
      for (const fd of fds) taken.push(takeDescriptor(pid, fd))
    } catch (error) {
      for (const fd of taken) fd[Symbol.dispose]()
      throw error
    }
    for (let i = 0; i + 1 < taken.length; i += 2) this.#pairs.push({ v4: taken[i] as Fd, v6: taken[i + 1] as Fd })
  }

  /** `count` pairs, new ones behind those that are there. */
  ensure(count: number): readonly SocketPair[] {
    using own = this.#namespace === undefined ? Namespace.own() : undefined
    const namespace = this.#namespace ?? own
    if (namespace === undefined) throw new Error('Cannot listen: there is no namespace')
    while (this.#pairs.length < count)
      this.#pairs.push({
        v4: namespace.listen('127.0.0.1', 0, 'tcp', backlog),
        v6: namespace.listen('::1', 0, 'tcp', backlog),
      })
    return this.#pairs
  }

  get pairs(): readonly SocketPair[] {
    return this.#pairs
  }

  [Symbol.dispose](): void {
    for (const { v4, v6 } of this.#pairs.splice(0)) {
      v4[Symbol.dispose]()
      v6[Symbol.dispose]()
    }
  }
}

/** True where a process with that number is there and was started with `word` among its arguments. */
export function isRunning(pid: number, word: string): boolean {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').includes(word)
  } catch {
    // No such process.
    return false
  }
}
