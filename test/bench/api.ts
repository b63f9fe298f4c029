import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { Worker } from 'node:worker_threads'
import { eventually } from '#base/async/eventually.ts'
import { bodyOf } from './api-body.ts'
import type { LoadOptions, Measured } from './api-load.ts'
import { median, type Row } from './row.ts'

/**
 * The API server by itself, its writes durable, against the real API machinery on etcd. That one is not run here: its
 * figures are those measured on this kind of machine (two cores; medians of four quiet rounds). So a
 * ratio is of this run to a stored figure, and of a machine that is as quiet. The load comes from `apiload`, which made those
 * figures, where it is found; else from api-load.ts, which needs more of the two cores for itself and so shows less.
 */
const reference: Readonly<Record<string, number>> = {
  'create 1': 517,
  'create 16': 1315,
  'create 256': 1781,
  'get 1': 842,
  'get 16': 2502,
  'get 256': 3204,
  'list 1': 4.0,
  'list 4': 6.1,
}
const goals: Readonly<Record<string, number>> = {
  'create 1': 2,
  'create 16': 4,
  'create 256': 6,
  'get 1': 7,
  'get 16': 7,
  'get 256': 7,
  'list 1': 12,
  'list 4': 12,
}
const referenceFanOutMs = 13.2
const residentGoalMb = 250
const passes = 3

export async function run(): Promise<Row[]> {
  const apiload = findApiload()
  const by = apiload === undefined ? 'own load generator' : 'apiload'
  const all: (Measured & { readonly residentMb: number })[] = []
  for (let pass = 0; pass < passes; pass++) all.push(await onePass(apiload))
  const rows: Row[] = Object.keys(goals).map((step) => ({
    name: `api ${step} connections (${by}), stored figure of the real one`,
    ratio: median(all.map(({ rates }) => (rates[step] ?? Number.NaN) / (reference[step] ?? Number.NaN))),
    goal: goals[step] ?? Number.NaN,
  }))
  rows.push({
    name: `api one event to 1,000 watches (${by}), stored figure`,
    ratio: median(all.map(({ fanOutMs }) => fanOutMs / referenceFanOutMs)),
    goal: 0.5,
    atMost: true,
  })
  rows.push({
    name: `api server resident after that, share of ${residentGoalMb} MB`,
    ratio: median(all.map(({ residentMb }) => residentMb / residentGoalMb)),
    goal: 1,
    atMost: true,
  })
  return rows
}

async function onePass(apiload: string | undefined): Promise<Measured & { readonly residentMb: number }> {
  const directory = mkdtempSync(join(tmpdir(), 'weft-bench-api-'))
  const server = spawn(
    process.execPath,
    ['--max-semi-space-size=16', '--heap-growing-percent=20', resolve(import.meta.dirname, 'api-server.ts'), directory],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  )
  try {
    const port = Number(await firstLine(server))
    const pem = (name: string): string => readFileSync(join(directory, 'pki', name), 'utf8')
    const options: LoadOptions = {
      url: `https://localhost:${port}`,
      ca: pem('ca.crt'),
      cert: pem('admin.crt'),
      key: pem('admin.key'),
      objects: 10_000,
      seconds: 2,
      watchers: 1000,
      updates: 30,
    }
    const measured = apiload === undefined ? await inWorker(options) : await byApiload(apiload, directory, options)
    const residentMb = await eventually(() => residentOf(server.pid ?? 0))
    return { ...measured, residentMb }
  } finally {
    const gone = once(server, 'exit')
    server.kill('SIGKILL')
    await gone
    rmSync(directory, { recursive: true })
  }
}

/** `WEFT_APILOAD` names the program; beside the checkout its source is built with Go, if there is one. */
function findApiload(): string | undefined {
  const named = process.env.WEFT_APILOAD
  if (named !== undefined) return named
  const source = resolve(import.meta.dirname, '../../../shared/tools/apiload')
  if (!existsSync(source)) return undefined
  const built = join(tmpdir(), 'weft-apiload')
  const { status } = spawnSync('go', ['build', '-mod=mod', '-o', built, '.'], { cwd: source, stdio: 'ignore' })
  return status === 0 ? built : undefined
}

async function byApiload(program: string, directory: string, options: LoadOptions): Promise<Measured> {
  const template = join(directory, 'configmap.json')
  writeFileSync(template, bodyOf('NAME'))
  const pki = (name: string): string => join(directory, 'pki', name)
  const flags = {
    server: options.url,
    ca: pki('ca.crt'),
    cert: pki('admin.crt'),
    key: pki('admin.key'),
    body: template,
    count: options.objects,
    secs: options.seconds,
    watchers: options.watchers,
    updates: options.updates,
  }
  const args = Object.entries(flags).map(([name, value]) => `-${name}=${value}`)
  const load = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  const ended = once(load, 'exit')
  let text = ''
  for await (const piece of load.stdout) text += piece
  const [code] = await ended
  if (code !== 0) throw new Error(`apiload ended with ${code}:\n${text}`)
  const lines = text.matchAll(/^(create|get|list)\s+conns (\d+)\s+([\d.]+)\/s/gm)
  const rates = Object.fromEntries([...lines].map(([, step, conns, rate]) => [`${step} ${conns}`, Number(rate)]))
  const fanOut = /^fan-out .* p50 ([\d.]+)(ms|s) /m.exec(text)
  if (fanOut === null) throw new Error(`apiload says nothing of watches:\n${text}`)
  return { rates, fanOutMs: Number(fanOut[1]) * (fanOut[2] === 's' ? 1000 : 1) }
}

async function firstLine(server: ChildProcess): Promise<string> {
  if (server.stdout === null) throw new Error('The server was started without a pipe')
  for await (const piece of server.stdout) return String(piece)
  throw new Error('The server ended before it listened')
}

async function inWorker(options: LoadOptions): Promise<Measured> {
  const worker = new Worker(resolve(import.meta.dirname, 'api-load.ts'), { workerData: options })
  const failed = once(worker, 'error').then(([error]) => {
    throw error
  })
  const [measured] = await Promise.race([once(worker, 'message'), failed])
  await worker.terminate()
  return measured as Measured
}

function residentOf(pid: number): number {
  const match = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))
  if (!match) throw new Error(`Process ${pid} has no resident memory`)
  return Number(match[1]) / 1024
}
