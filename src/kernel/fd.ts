import { checkResult } from './errno.ts'
import { close, takeFd } from './ffi.ts'

/** A descriptor that closes with its scope: `using fd = …`. */
export class Fd implements Disposable {
  #fd: number

  constructor(fd: number) {
    this.#fd = fd
  }

  /** Throws once it is closed: a number that is used again would be somebody else's file. */
  get number(): number {
    if (this.#fd < 0) throw new Error('Cannot use a descriptor that is closed')
    return this.#fd
  }

  /** Hands the number over: the new owner closes it. */
  release(): number {
    const fd = this.number
    this.#fd = -1
    return fd
  }

  [Symbol.dispose](): void {
    if (this.#fd < 0) return
    close(this.#fd)
    this.#fd = -1
  }
}

/** A duplicate of what another process has open. Throws `KernelError`: ESRCH, EBADF. */
export const takeDescriptor = (pid: number, fd: number): Fd =>
  new Fd(checkResult(takeFd(pid, fd), `take descriptor ${fd} of process ${pid}`))
