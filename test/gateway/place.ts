import { execFile, spawn } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { Agent, type IncomingHttpHeaders, type OutgoingHttpHeaders, request } from 'node:http'
import { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { promisify } from 'node:util'
import { NodeEngine, type NodeEngineOptions } from '#agent/gateway/engine/engine.ts'
import { Cli } from '#agent/gateway/haproxy/cli.ts'
import { compile } from '#datapath/compile.ts'
import { socket } from '#kernel/ffi.ts'
import { mountBpf, unmount } from '#kernel/mount.ts'
import { Netlink } from '#kernel/netlink/netlink.ts'
import { createNamespace, deleteNamespace, Namespace, namespaceDir } from '#kernel/netns.ts'

export const execute = promisify(execFile)
const backendFile = resolve(import.meta.dirname, 'backend.ts')

/** Where backends are: addresses of the loopback device. */
const backendAddresses = ['10.1.0.1', '10.1.0.2', '10.1.0.3', 'fd00:1::1'] as const
/** Addresses of Gateways: nobody has them until the engine does. */
export const gatewayAddresses = ['10.9.0.1', 'fd00:9::1'] as const

export interface Answer {
  readonly code: number
  readonly headers: IncomingHttpHeaders
  readonly body: Buffer
}

export interface Ask {
  readonly method?: string
  readonly headers?: OutgoingHttpHeaders
  readonly body?: Buffer | string
  readonly agent?: Agent
  readonly address?: string
  readonly port?: number
}

/**
 * A namespace that is a node, its outside and its pods at once: the engine, backends and clients by turns, so that nothing
 * needs a wire. Gateway addresses are reached by the local routes that the engine makes.
 */
export class GatewayPlace implements AsyncDisposable {
  readonly name: string
  readonly namespace: Namespace
  readonly dir: string
  readonly #netlink: Netlink
  readonly #children: { close(): Promise<void> }[] = []
  engine: NodeEngine

  private constructor(name: string, namespace: Namespace, dir: string, netlink: Netlink, engine: NodeEngine) {
    this.name = name
    this.namespace = namespace
    this.dir = dir
    this.#netlink = netlink
    this.engine = engine
  }

  static async open(options: Partial<NodeEngineOptions> = {}): Promise<GatewayPlace> {
    const name = `wgw-${process.pid}`
    createNamespace(name)
    const namespace = Namespace.open(name)
    const dir = mkdtempSync(join(tmpdir(), 'weft-gateway-'))
    const netlink = Netlink.open(namespace)
    const lo = namespace.ifindex('lo')
    await netlink.setLinkUp(lo)
    for (const address of backendAddresses)
      await netlink.addAddress(lo, `${address}/${address.includes(':') ? 128 : 32}`)
    mkdirSync(join(dir, 'bpf'))
    mountBpf(join(dir, 'bpf'))
    const engine = await NodeEngine.open({ ...(await GatewayPlace.#options(dir, namespace)), ...options })
    return new GatewayPlace(name, namespace, dir, netlink, engine)
  }

  static async #options(dir: string, namespace: Namespace): Promise<NodeEngineOptions> {
    const objects = await compile({ cacheDir: join(tmpdir(), 'weft-test-bpf') })
    return { objects, pinDir: join(dir, 'bpf'), dir, namespace }
  }

  /** Another agent on what the one before left. */
  async reopen(options: Partial<NodeEngineOptions> = {}): Promise<void> {
    this.engine = await NodeEngine.open({ ...(await GatewayPlace.#options(this.dir, this.namespace)), ...options })
  }

  /** A process in the namespace. Ends with the place. */
  async backend(address: string, port: number, ...more: readonly string[]): Promise<TestBackend> {
    const child = spawn(
      'nsenter',
      [`--net=${join(namespaceDir, this.name)}`, process.execPath, backendFile, address, `${port}`, ...more],
      { stdio: ['pipe', 'pipe', 'inherit'] },
    )
    const ended = new Promise<void>((done) => child.once('close', () => done()))
    const lines = createInterface(child.stdout)
    await new Promise<void>((done, fail) => {
      lines.once('line', () => done())
      child.once('close', (code) => fail(new Error(`backend ${address}:${port} ended with ${code}`)))
    })
    const backend: TestBackend = {
      pid: child.pid ?? 0,
      address,
      port,
      async close() {
        child.stdin.end()
        await ended
      },
    }
    this.#children.push(backend)
    return backend
  }

  /** A connected-to-be socket of the namespace, for `http.Agent`. */
  socket(address: string, port: number): Socket {
    const fd = socket(this.namespace.number, address.includes(':') ? 10 : 2, 1 | 0o4000, 0)
    if (fd < 0) throw new Error(`Cannot make a socket in ${this.name}: ${fd}`)
    return new Socket({ fd, readable: true, writable: true }).connect({ host: address, port })
  }

  agent(options: { readonly keepAlive?: boolean; readonly maxSockets?: number } = {}): Agent {
    const agent = new Agent({ keepAlive: false, ...options })
    Object.assign(agent, {
      createConnection: ({ host, port }: { host: string; port: number }) => this.socket(host, port),
    })
    return agent
  }

  /** `http://host/path`, asked of the Gateway. */
  ask(url: string, { method = 'GET', headers = {}, body, agent, address, port }: Ask = {}): Promise<Answer> {
    const { hostname, pathname, search } = new URL(url)
    return new Promise((done, fail) => {
      const sent = request(
        {
          host: address ?? gatewayAddresses[0],
          port: port ?? 80,
          method,
          path: `${pathname}${search}`,
          setHost: false,
          headers: { host: hostname, ...headers },
          agent: agent ?? this.agent(),
        },
        (answer) => {
          const chunks: Buffer[] = []
          answer.on('data', (chunk: Buffer) => chunks.push(chunk))
          answer.on('end', () =>
            done({ code: answer.statusCode ?? 0, headers: answer.headers, body: Buffer.concat(chunks) }),
          )
          answer.on('error', fail)
        },
      )
      sent.on('error', fail)
      sent.end(body)
    })
  }

  /** What the echo backend saw. */
  async seen(url: string, ask: Ask = {}): Promise<Seen> {
    const { code, body } = await this.ask(url, ask)
    if (code !== 200) throw new Error(`${url} was answered ${code}: ${body.toString('utf8', 0, 200)}`)
    return JSON.parse(body.toString('utf8')) as Seen
  }

  /** Changes HAProxy's tables as nobody should: a row of each kind gone, one wrong, one too many, a server in drain. */
  async meddle(): Promise<void> {
    const { number } = JSON.parse(readFileSync(join(this.dir, 'haproxy/engine.json'), 'utf8')) as { number: number }
    using cli = await Cli.connect(join(this.dir, `haproxy/cli-${number}.sock`))
    const dir = join(this.dir, 'haproxy')
    const hex = (text: string): string => Buffer.from(text).toString('hex')
    const at = /(\S+\|)kept\.test/.exec(await cli.command(`show map ${dir}/routes.map`))?.[1] ?? ''
    await cli.command(`weft del routes ${hex(`${at}kept.test\x02/`)}`)
    await cli.payload(`add map ${dir}/routes.map`, [`${at}stray.test\x02/ pa0|x`, `${at}split.test\x02/ pa7|x`])
    await cli.command(`clear map ${dir}/programs.map`)
    const servers = (await cli.command('show servers conn')).match(/^p[ab]\d+\/\S+/gm) ?? []
    for (const server of servers.slice(0, 1)) await cli.command(`set server ${server} state maint`)
  }

  /** A program of the machine, run in the namespace. */
  async run(file: string, ...args: readonly string[]): Promise<string> {
    const { stdout } = await execute('nsenter', [`--net=${join(namespaceDir, this.name)}`, file, ...args], {
      maxBuffer: 64 << 20,
    })
    return stdout
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#children.map((c) => c.close()))
    await this.engine[Symbol.asyncDispose]()
    this.#netlink[Symbol.dispose]()
    this.namespace[Symbol.dispose]()
    deleteNamespace(this.name)
    const pins = join(this.dir, 'bpf')
    if (existsSync(pins) && readFileSync('/proc/self/mountinfo', 'utf8').includes(` ${pins} `)) unmount(pins)
    rmSync(this.dir, { recursive: true, force: true })
  }
}

export interface TestBackend {
  readonly pid: number
  readonly address: string
  readonly port: number
  close(): Promise<void>
}

/** What backend.ts answers. */
export interface Seen {
  readonly backend: string
  readonly method: string
  readonly url: string
  readonly headers: IncomingHttpHeaders
  /** Of the body. */
  readonly bytes: number
  readonly sha256: string
  /** Connections that this backend has accepted. */
  readonly connections: number
}
