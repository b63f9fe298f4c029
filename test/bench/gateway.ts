import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import type { connect } from 'node:net'
import { join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { promisify } from 'node:util'
import { eventually } from '#base/async/eventually.ts'
import type { Backend, EngineState, Route } from '#gateway/engine.ts'
import { namespaceDir } from '#kernel/netns.ts'
import { GatewayPlace, gatewayAddresses } from '../gateway/place.ts'
import { backend, listener, prefix, route, state, target } from '../gateway/state.ts'
import { median, type Row } from './row.ts'

/**
 * Requests through our Gateway beside HAProxy and nginx with one static route, and beside the backend itself. The proxy has
 * one core, client and backend the other. Judged is what a core of the proxy can do: requests for each second that it
 * computed (/proc/PID/schedstat), which other work on the machine disturbs less than it does the clock. Cases take turns
 * in short runs that no other work of the machine interrupts (SCHED_FIFO). A ratio is of runs that follow each other, for a machine
 * has slow minutes, and the median of the rounds is taken. Needs nginx-light only for its own column.
 */
const run1 = promisify(execFile)
const httpload = resolve(import.meta.dirname, '../../native/build/httpload')
const proxyCpu = 0
const loadCpu = 1
const runMs = 400
const rounds = 7
const fastPhase = 0.8
const changes = 300
/** Priority of what is measured: whoever shares the core and its caches is waited for otherwise. */
const firstClass = '10'
const [vip] = gatewayAddresses
const capacity = { pools: { h1: 16, h2c: 4 }, tlsSlots: { strict: 1, lax: 1 } }
const ports = { direct: 9000, other: 9001, haproxy: 8001, nginx: 8002 } as const

interface Measured {
  readonly rate: number
  readonly p50: number
  readonly p99: number
  readonly failed: number
  /** Microseconds that the proxy computed for a request; 0 without a proxy. */
  readonly cost: number
}

export async function run(): Promise<Row[]> {
  await using bench = await Bench.open()
  return await bench.run()
}

class Bench implements AsyncDisposable {
  readonly #place: GatewayPlace
  readonly #children: ChildProcess[] = []
  readonly #proxies = new Map<string, number>()
  /** Whether what is measured goes before all other work of the machine, the agent's too. */
  #alone = true
  #nginx = false

  private constructor(place: GatewayPlace) {
    this.#place = place
  }

  static async open(): Promise<Bench> {
    const place = await GatewayPlace.open({ capacity })
    const bench = new Bench(place)
    try {
      await bench.#server('10.1.0.1', ports.direct, 'one')
      await bench.#server('10.1.0.1', ports.other, 'two')
      await bench.#plainHaproxy()
      await bench.#plainNginx()
      return bench
    } catch (error) {
      await bench[Symbol.asyncDispose]()
      throw error
    }
  }

  async run(): Promise<Row[]> {
    const rows: Row[] = []
    const rates = new Map<number, number>()
    for (const count of [10, 1000, 5000]) {
      await this.#place.engine.apply(routes(count))
      await this.#pin()
      const one = await this.#compare(count, 32, '/r7/x')
      rates.set(count, one.haproxy)
      const of = 'requests/s of plain HAProxy'
      rows.push({ name: `${count} routes, one of them asked, ${of}`, ratio: one.haproxy, goal: 0.78 })
      if (this.#nginx && count === 10)
        rows.push({
          name: '10 routes, requests/s of nginx with one static route',
          ratio: one.nginx,
          goal: 0.78,
        })
      if (count === 10) continue
      // Each request another route: rows, counters and caches at their coldest.
      const all = await this.#compare(count, 32, '/r%d/x')
      rows.push({ name: `${count} routes, all asked in turn, ${of}`, ratio: all.haproxy, goal: 0.78 })
    }
    const flat = (rates.get(5000) ?? 0) / (rates.get(10) ?? 1)
    rows.push({ name: 'requests/s at 5,000 routes of those at 10', ratio: flat, goal: 0.95 })
    const single = await this.#compare(5000, 1, '/r7/x')
    rows.push({
      name: '5,000 routes, 1 connection, requests/s of plain HAProxy',
      ratio: single.haproxy,
      goal: 0.78,
    })
    rows.push(...(await this.#uncounted()))
    rows.push(...(await this.#changes()))
    return rows
  }

  /** The same without golden signals. */
  async #uncounted(): Promise<Row[]> {
    const rows: Row[] = []
    await this.#another({ goldenSignals: false })
    for (const count of [10, 1000, 5000]) {
      await this.#place.engine.apply(routes(count))
      await this.#pin()
      const { haproxy } = await this.#compare(count, 32, '/r7/x', ['haproxy', 'ours'])
      const name = `${count} routes, one of them asked, without golden signals, requests/s of plain HAProxy`
      rows.push({ name, ratio: haproxy, goal: 0.85 })
    }
    await this.#another({})
    return rows
  }

  async #another(options: { readonly goldenSignals?: boolean }): Promise<void> {
    await this.#place.engine[Symbol.asyncDispose]()
    await this.#place.reopen({ capacity, ...options })
  }

  /** Our requests for each of another's that a core computes, each case by turns. */
  async #compare(
    count: number,
    connections: number,
    path: string,
    only?: readonly string[],
  ): Promise<{ haproxy: number; nginx: number }> {
    const all = {
      direct: ['10.1.0.1', ports.direct, 'bench.test', path],
      ...(this.#nginx ? { nginx: ['10.1.0.1', ports.nginx, 'bench.test', path] } : {}),
      haproxy: ['10.1.0.1', ports.haproxy, 'bench.test', path],
      ours: [vip, 80, 'bench.test', path],
    } as const satisfies Record<string, readonly [string, number, string, string]>
    const cases = Object.fromEntries(Object.entries(all).filter(([name]) => only?.includes(name) ?? true))
    const results = new Map<string, Measured[]>(Object.keys(cases).map((name) => [name, []]))
    for (let round = 0; round < rounds; round++)
      for (const [name, [address, port, host]] of Object.entries(cases))
        results
          .get(name)
          ?.push(await this.#measure(name, () => this.#load(address, port, connections, runMs, host, path, count)))
    const fast = new Map<string, number>()
    const cost = new Map<string, number>()
    for (const [name, found] of results) {
      const sorted = found.map((m) => m.rate).toSorted((a, b) => a - b)
      fast.set(name, sorted[Math.floor(sorted.length * fastPhase)] ?? 0)
      const costs = found.map((m) => m.cost).toSorted((a, b) => a - b)
      cost.set(name, costs[Math.floor(costs.length * (1 - fastPhase))] ?? 0)
      const words = `${(fast.get(name) ?? 0).toFixed(0)}/s p50 ${median(found.map((m) => m.p50)).toFixed(0)} us p99 ${median(found.map((m) => m.p99)).toFixed(0)} us, ${(cost.get(name) ?? 0).toFixed(1)} us computed`
      process.stderr.write(
        `  ${count} routes, ${path}, ${connections} connections: ${name.padEnd(8)} ${words}, ${found.reduce((n, m) => n + m.failed, 0)} failed\n`,
      )
    }
    const ours = results.get('ours') ?? []
    const of = (name: string): number =>
      median((results.get(name) ?? []).map((m, round) => m.cost / (ours[round]?.cost ?? Number.NaN)))
    return { haproxy: of('haproxy'), nginx: this.#nginx && only === undefined ? of('nginx') : Number.NaN }
  }

  /** One route of 5,000 is given another backend, again and again, under load: how long until a request meets it. */
  async #changes(): Promise<Row[]> {
    const base = routes(5000)
    await this.#place.engine.apply(base)
    // Now the agent is part of what is measured.
    this.#alone = false
    await run1('chrt', ['-aop', '0', `${this.#place.engine.pid}`])
    for (const { pid } of this.#children) await run1('chrt', ['-aop', '0', `${pid}`])
    let failed = 0
    let loading = true
    const loads = (async () => {
      while (loading) failed += (await this.#load(vip, 80, 32, 500, 'bench.test', '/r%d/x', 5000)).failed
    })()
    const times: number[] = []
    const probe = new Probe(this.#place)
    let revision = base.revision
    for (let i = 0; i < changes; i++) {
      const to = i % 2 === 0 ? 'bench/two:80' : 'bench/one:80'
      const id = 'HTTP/test/r7'
      const changed = new Map(base.routes).set(id, routeTo(7, to))
      const start = performance.now()
      const done = this.#place.engine.apply({ ...base, revision: ++revision, routes: changed })
      await probe.until('/r7/x', i % 2 === 0 ? 'two' : 'one')
      times.push(performance.now() - start)
      await done
    }
    probe.close()
    loading = false
    await loads
    const sorted = times.toSorted((a, b) => a - b)
    const at = (share: number): number => sorted[Math.floor(sorted.length * share)] ?? 0
    process.stderr.write(
      `  ${changes} changes at 5,000 routes under load: p50 ${at(0.5).toFixed(1)} ms, p99 ${at(0.99).toFixed(1)} ms, ${failed} failed requests\n`,
    )
    return [
      { name: 'one change at 5,000 routes under load, p50 of 10 ms', ratio: at(0.5) / 10, goal: 1, atMost: true },
      { name: 'one change at 5,000 routes under load, p99 of 50 ms', ratio: at(0.99) / 50, goal: 1, atMost: true },
      { name: 'requests that failed meanwhile', ratio: failed, goal: 0, atMost: true },
    ]
  }

  async #measure(name: string, load: () => Promise<Measured>): Promise<Measured> {
    const pid = name === 'ours' ? this.#place.engine.pid : this.#proxies.get(name)
    if (pid === undefined) return await load()
    const before = computedNs(pid)
    const measured = await load()
    return { ...measured, cost: (computedNs(pid) - before) / 1e3 / (measured.rate * (runMs / 1000)) }
  }

  async #load(
    address: string,
    port: number,
    connections: number,
    ms: number,
    host: string,
    path: string,
    count: number,
  ): Promise<Measured> {
    const { stdout } = await run1('chrt', [
      ...(this.#alone ? ['-f', firstClass] : ['-o', '0']),
      httpload,
      ...['--netns', join(namespaceDir, this.#place.name), '--cpu', `${loadCpu}`, 'load', address, `${port}`],
      ...[`${connections}`, `${ms}`, host, path, `${count}`],
    ])
    const [rate = 0, p50 = 0, p99 = 0, failed = 0] = stdout.trim().split(' ').map(Number)
    return { rate, p50, p99, failed, cost: 0 }
  }

  async #pin(): Promise<void> {
    await run1('taskset', ['-acp', `${proxyCpu}`, `${this.#place.engine.pid}`])
    await run1('chrt', ['-afp', firstClass, `${this.#place.engine.pid}`])
  }

  async #server(address: string, port: number, body: string): Promise<void> {
    const child = spawn(
      'chrt',
      [
        '-f',
        firstClass,
        httpload,
        '--netns',
        join(namespaceDir, this.#place.name),
        '--cpu',
        `${loadCpu}`,
        'server',
        address,
        `${port}`,
        body,
      ],
      { stdio: ['pipe', 'pipe', 'inherit'] },
    )
    this.#children.push(child)
    await new Promise<void>((done, fail) => {
      createInterface(child.stdout).once('line', () => done())
      child.once('close', (code) => fail(new Error(`httpload server ended with ${code}`)))
    })
  }

  /** The process id is the program's own: nsenter and taskset become it. */
  #inPlace(...command: readonly string[]): number {
    const child = spawn(
      'nsenter',
      [
        `--net=${join(namespaceDir, this.#place.name)}`,
        'taskset',
        '-c',
        `${proxyCpu}`,
        'chrt',
        '-f',
        firstClass,
        ...command,
      ],
      { stdio: ['ignore', 'ignore', 'inherit'] },
    )
    this.#children.push(child)
    return child.pid ?? 0
  }

  async #plainHaproxy(): Promise<void> {
    const file = join(this.#place.dir, 'plain.cfg')
    writeFileSync(
      file,
      `global
  nbthread 1
defaults
  mode http
  timeout client 1m
  timeout connect 3s
  timeout server 1m
frontend plain
  bind 10.1.0.1:${ports.haproxy}
  use_backend one if { hdr(host) -i bench.test } { path_beg /r }
backend one
  server one 10.1.0.1:${ports.direct}
`,
    )
    this.#proxies.set('haproxy', this.#inPlace('haproxy', '-db', '-q', '-f', file))
    await this.#answers(ports.haproxy)
  }

  async #plainNginx(): Promise<void> {
    this.#nginx = existsSync('/usr/sbin/nginx')
    if (!this.#nginx) {
      process.stderr.write('  nginx is not installed (apt-get install nginx-light): its column is missing\n')
      return
    }
    const { dir } = this.#place
    const file = join(dir, 'nginx.conf')
    writeFileSync(
      file,
      `daemon off; master_process off; pid ${dir}/nginx.pid; error_log ${dir}/nginx.err;
events { worker_connections 4096; }
http {
  access_log off; keepalive_requests 100000000;
  upstream one { server 10.1.0.1:${ports.direct}; keepalive 64; keepalive_requests 100000000; }
  server { listen 10.1.0.1:${ports.nginx}; server_name bench.test;
    location /r { proxy_pass http://one; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host; } }
}
`,
    )
    this.#proxies.set('nginx', this.#inPlace('nginx', '-c', file))
    await this.#answers(ports.nginx)
  }

  async #answers(port: number): Promise<void> {
    await eventually(() => this.#place.ask('http://bench.test/r1/x', { address: '10.1.0.1', port }), { pauseMs: 10 })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const ended = this.#children.map(
      (child) =>
        new Promise<void>((done) => {
          if (child.exitCode !== null || child.signalCode !== null) done()
          else child.once('close', () => done())
        }),
    )
    for (const child of this.#children) child.kill('SIGTERM')
    await Promise.all(ended)
    await this.#place[Symbol.asyncDispose]()
  }
}

/** What a process has computed since it began, all its threads. */
function computedNs(pid: number): number {
  return readdirSync(`/proc/${pid}/task`).reduce(
    (sum, task) => sum + Number(readFileSync(`/proc/${pid}/task/${task}/schedstat`, 'utf8').split(' ')[0]),
    0,
  )
}

/** One connection that asks again and again, without the weight of an HTTP client. */
class Probe {
  readonly #socket: ReturnType<typeof connect>
  #got = ''
  #wake: (() => void) | undefined

  constructor(place: GatewayPlace) {
    this.#socket = place.socket(vip, 80).setNoDelay(true)
    this.#socket.setEncoding('latin1').on('data', (text: string) => {
      this.#got += text
      this.#wake?.()
    })
  }

  async until(path: string, body: string): Promise<void> {
    for (;;) {
      this.#got = ''
      this.#socket.write(`GET ${path} HTTP/1.1\r\nHost: bench.test\r\n\r\n`)
      while (!/\r\n\r\n.{3}/.test(this.#got))
        await new Promise<void>((resolve) => {
          this.#wake = resolve
        })
      if (this.#got.endsWith(body)) return
    }
  }

  close(): void {
    this.#socket.destroy()
  }
}

const backends: readonly Backend[] = [
  backend('bench/one:80', [`10.1.0.1:${ports.direct}`]),
  backend('bench/two:80', [`10.1.0.1:${ports.other}`]),
]
const routeTo = (i: number, id: string): Route =>
  route(`r${i}`, ['bench.test'], [{ matches: [prefix(`/r${i}`)], targets: [target(id)] }])

const routes = (count: number): EngineState =>
  state(
    [listener()],
    Array.from({ length: count }, (_, i) => routeTo(i, 'bench/one:80')),
    backends,
  )
