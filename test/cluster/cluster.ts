import { execFileSync, spawnSync } from 'node:child_process'
import { join, resolve } from 'node:path'
import { eventually } from '#base/async/eventually.ts'
import { type ClusterLayout, layoutCluster } from '#cli/cluster/layout.ts'
import { pidFile } from '#cli/cluster/observe.ts'
import { findProcess } from '#cli/cluster/processes.ts'
import { hasCode } from '#kernel/errno.ts'
import { distributionKubectl } from '../../scripts/kubectl.js'

const root = resolve(import.meta.dirname, '../..')

export interface Outcome {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

/** A cluster for one test file: real processes, real containerd, made by `weft up` and ended by `weft down`. */
export class TestCluster {
  readonly layout: ClusterLayout
  readonly #kubectl: string

  private constructor(layout: ClusterLayout) {
    this.layout = layout
    this.#kubectl = distributionKubectl()
  }

  /**
   * `pathFirst`: a directory whose programs every part of the cluster finds before the machine's. `flags`: more of
   * `weft up`.
   */
  static up(
    name: string,
    nodes = 2,
    { pathFirst, flags = [] }: { readonly pathFirst?: string; readonly flags?: readonly string[] } = {},
  ): TestCluster {
    const cluster = new TestCluster(layoutCluster(name, nodes))
    try {
      cluster.weftUp(pathFirst === undefined ? {} : { PATH: `${pathFirst}:${process.env.PATH}` }, flags)
    } catch (error) {
      cluster.down()
      throw error
    }
    return cluster
  }

  weftUp(env: Readonly<Record<string, string>> = {}, flags: readonly string[] = []): string {
    return weftWith(env, 'up', '--name', this.layout.name, '--nodes', String(this.layout.nodes.length), ...flags)
  }

  /**
   * kill -9 of `server`, `node-1/agent` or another, and waits for its end: a command that follows would else find it running.
   * The pid, or undefined where there was none at the moment.
   */
  async kill(name: string): Promise<number | undefined> {
    const find = () => findProcess(name, pidFile(this.layout, name))
    const found = find()
    if (found === undefined) return undefined
    try {
      process.kill(found.pid, 'SIGKILL')
    } catch (error) {
      // It has ended since it was found.
      if (hasCode(error, 'ESRCH')) return undefined
      throw error
    }
    await eventually(() => find()?.pid !== found.pid, { withinMs: 30_000 })
    return found.pid
  }

  down(): void {
    weft('down', '--name', this.layout.name)
  }

  /** Runs kubectl to its end and throws with its words where it fails. */
  kubectl(...args: string[]): string {
    const { code, stdout, stderr } = this.try(args)
    if (code !== 0) throw new Error(`kubectl ${args.join(' ')} ended with ${code}: ${stderr}${stdout}`)
    return stdout.trimEnd()
  }

  /** Runs kubectl to its end, whatever that is. */
  try(
    args: readonly string[],
    { input, env }: { readonly input?: string; readonly env?: Readonly<Record<string, string>> } = {},
  ): Outcome {
    const result = spawnSync(this.#kubectl, args, {
      encoding: 'utf8',
      env: { ...this.env, ...env },
      timeout: 60_000,
      maxBuffer: 64 << 20,
      ...(input === undefined ? {} : { input }),
    })
    return {
      code: result.status ?? -1,
      stdout: result.stdout ?? '',
      stderr: `${result.stderr ?? ''}${result.error?.message ?? ''}`,
    }
  }

  apply(yaml: string): string {
    const { code, stdout, stderr } = this.try(['apply', '-f', '-'], { input: yaml })
    if (code !== 0) throw new Error(`kubectl apply ended with ${code}: ${stderr}`)
    return stdout
  }

  json<T>(...args: string[]): T {
    return JSON.parse(this.kubectl(...args, '-o', 'json')) as T
  }

  /** Runs kubectl on a terminal of its own and of that size (script(1)) and returns what that showed. */
  script(args: readonly string[], { rows, columns }: { readonly rows: number; readonly columns: number }): string {
    const command = [this.#kubectl, ...args].map((a) => `'${a.replaceAll("'", "'\\''")}'`).join(' ')
    return execFileSync('script', ['-qec', `stty rows ${rows} cols ${columns}; ${command}`, '/dev/null'], {
      encoding: 'utf8',
      env: this.env,
      timeout: 60_000,
      stdio: ['ignore', 'pipe', 'pipe'],
    })
  }

  /** The administrator's kubeconfig with a token in the place of the certificate. */
  kubeconfigWithToken(token: string): string {
    const view = JSON.parse(this.kubectl('config', 'view', '--raw', '-o', 'json')) as { users: { user: object }[] }
    return JSON.stringify({ ...view, users: view.users.map((u) => ({ ...u, user: { token } })) })
  }

  get kubectlPath(): string {
    return this.#kubectl
  }

  get env(): NodeJS.ProcessEnv {
    return { ...process.env, KUBECONFIG: this.layout.server.adminKubeconfig }
  }
}

/** Runs the command line as a user does, and throws with its words where it fails. */
export function weft(...args: string[]): string {
  return weftWith({}, ...args)
}

function weftWith(env: Readonly<Record<string, string>>, ...args: string[]): string {
  return execFileSync(process.execPath, [join(root, 'src/cli/main.ts'), ...args], {
    encoding: 'utf8',
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: 120_000,
  })
}
