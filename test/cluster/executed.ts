import { execFileSync } from 'node:child_process'
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** Programs that a network or a runtime is often built of; Weft starts none of them while it runs. */
const watchedFor = ['bpftool', 'bridge', 'crictl', 'ctr', 'ip', 'ip6tables', 'iptables', 'kubectl', 'nft', 'nsenter']

/**
 * Writes down every start of such a program by whoever finds it through PATH: in a directory to be put in front of PATH,
 * each is a script that says who called it and becomes the real one. No start is missed, however short its life.
 */
export class Executed implements Disposable {
  readonly dir = mkdtempSync(join(tmpdir(), 'weft-executed-'))
  readonly #log = join(this.dir, 'log')

  constructor() {
    writeFileSync(this.#log, '')
    for (const name of [...watchedFor, 'runc']) {
      const real = whereIs(name)
      const script = `#!/bin/sh\necho "${name} by $(cat /proc/$PPID/comm)" >> ${this.#log}\nexec ${real ?? 'false'} "$@"\n`
      const path = join(this.dir, name)
      writeFileSync(path, script)
      chmodSync(path, 0o755)
    }
  }

  /** What was started since the last time, as `program by caller`. */
  take(): string[] {
    const lines = readFileSync(this.#log, 'utf8').split('\n').filter(Boolean)
    writeFileSync(this.#log, '')
    return lines
  }

  [Symbol.dispose](): void {
    rmSync(this.dir, { recursive: true, force: true })
  }
}

function whereIs(name: string): string | undefined {
  try {
    return execFileSync('sh', ['-c', `PATH=$PATH:/usr/sbin:/sbin; command -v ${name}`], { encoding: 'utf8' }).trim()
  } catch {
    return undefined
  }
}
