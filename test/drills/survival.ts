import { execFile, spawn } from 'node:child_process'
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import { logFile } from '#cli/cluster/observe.ts'
import { logTail } from '#cli/cluster/processes.ts'
import { type Outcome, TestCluster } from '../cluster/cluster.ts'
import { InPod, processOf } from './in-pod.ts'

const root = resolve(import.meta.dirname, '../..')

export interface SurvivalOptions {
  readonly name: string
  /** How often an agent is killed, at a moment between its start and long after. */
  readonly kills: number
  /** Pods that come and go meanwhile. */
  readonly churn: number
  readonly connections: number
  readonly seed: number
  /** Said while it goes on. */
  readonly tell: (line: string) => void
}

export interface SurvivalReport {
  readonly connections: number
  readonly exchanges: number
  readonly longestMs: number
  readonly broken: readonly string[]
  readonly denied: { readonly refused: number; readonly silent: number; readonly opened: number }
  readonly killed: number
  readonly churned: number
  readonly flips: number
  /** Of each node: the program on its pods' devices, before and after the upgrade. They differ, or the drill throws. */
  readonly programs: readonly string[]
}

/** mulberry32: the same seed, the same agents after the same pauses. */
function randomOf(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}

/**
 * Agents are killed at random moments, half of the way all of them come back with other programs and another layout of the
 * connections' maps (an upgrade), pods churn and policies flip, while connections with sequence numbers go on and denied ones are tried without end. What it throws names
 * the seed and how far it had come.
 */
export async function survive(options: SurvivalOptions): Promise<SurvivalReport> {
  const progress = { killed: 0, doing: 'making the cluster' }
  try {
    return await drill(options, progress)
  } catch (error) {
    const { killed, doing } = progress
    const words = error instanceof Error ? error.message : String(error)
    throw new Error(`seed ${options.seed}, after ${killed} kills, while ${doing}: ${words}`, { cause: error })
  }
}

async function drill(options: SurvivalOptions, progress: { killed: number; doing: string }): Promise<SurvivalReport> {
  const { name, kills, churn, connections, seed, tell } = options
  const random = randomOf(seed)
  await using stack = new AsyncDisposableStack()
  // There for longer than the agents that run from it.
  const upgraded = stack.adopt(upgradedCheckout(), (dir) => rmSync(dir, { recursive: true, force: true }))
  const cluster = TestCluster.up(name)
  stack.defer(() => cluster.down())
  progress.doing = 'starting the pods'
  cluster.apply(manifests(churn))
  for (const deployment of ['echo', 'churn'])
    cluster.kubectl('rollout', 'status', `deployment/${deployment}`, '--timeout=120s')
  cluster.kubectl('wait', '--for=condition=Ready', 'pod', '-l', 'drill=yes', '--timeout=60s')
  const service = cluster.kubectl('get', 'service', 'echo', '-o', 'jsonpath={.spec.clusterIP}')
  const targets = cluster.kubectl('get', 'pods', '-l', 'app=echo', '-o', 'jsonpath={.items[*].status.podIP}').split(' ')

  progress.doing = 'opening the connections'
  const steady = ['steady-1', 'steady-2'].map((pod) => {
    const share = String(Math.ceil(connections / 2))
    return stack.use(new InPod(processOf(cluster, pod), 'steady.ts', service, '9000', share, '1000'))
  })
  await Promise.all(steady.map((client) => client.said('open', 120_000)))
  const denied = ['outsider-1', 'outsider-2'].map((pod) => {
    const ends = [service, ...targets].map((address) => `${address}:9000`)
    return stack.use(new InPod(processOf(cluster, pod), 'denied.ts', ...ends))
  })
  tell(`seed ${seed}: ${connections} connections are open`)

  const nodes = cluster.layout.nodes.map((node) => node.name)
  const before = nodes.map((node) => programsOf(name, node))
  const over = new AbortController()
  const background = [churnPods(cluster, randomOf(seed + 1), over.signal), flipPolicy(cluster, over.signal)]
  for (const work of background) work.catch(() => {})
  stack.defer(async () => {
    over.abort()
    await Promise.allSettled(background)
  })
  let from = root
  // One at a time, as one who runs the command does: two of them would start two agents of one node.
  let up = bringUp(from, name)
  // A command that is under way must not start anything after the cluster has been taken down.
  stack.defer(async () => {
    await up
  })
  const killOne = async (node: string): Promise<void> => {
    let pid = await cluster.kill(`${node}/agent`)
    // The one before is not started yet: it is killed at its very beginning.
    if (pid === undefined) {
      await up
      pid = await cluster.kill(`${node}/agent`)
    }
    if (pid === undefined) {
      // It ended by itself, as one does whose server was not to be reached: the next command starts it.
      tell(`${node}: no agent to kill; ${(await up) || 'the last command was content'}`)
    } else {
      progress.killed++
      if (progress.killed % 20 === 1) tell(`killed ${progress.killed} of ${kills} (${node}, pid ${pid})`)
    }
  }
  const restart = async (): Promise<void> => {
    await up
    up = bringUp(from, name)
  }
  progress.doing = 'killing agents'
  for (let i = 0; i < kills; i++) {
    if (i === Math.floor(kills / 2)) {
      // Every agent comes back with the other programs, whomever chance picks later.
      progress.doing = 'killing agents of the upgrade'
      from = upgraded
      await up
      for (const node of nodes) await cluster.kill(`${node}/agent`)
      await restart()
    }
    // The one that comes back is killed again at any moment of its start, or after it.
    await sleep(random() * 2_000)
    await killOne(nodes[random() < 0.5 ? 0 : 1] ?? '')
    await restart()
  }
  over.abort()
  const [churned = 0, flips = 0] = await Promise.all(background)
  progress.doing = 'waiting for the last agents'
  await up
  const failure = await bringUp(upgraded, name)
  if (failure !== '') throw new Error(`the last weft up: ${failure}`)
  const after = await Promise.all(nodes.map((node, i) => exchangedPrograms(cluster, node, before[i] ?? [])))

  progress.doing = 'ending the connections'
  const reports = await Promise.all(
    steady.map((client) => client.end<Omit<SurvivalReport, 'denied' | 'killed' | 'churned' | 'flips' | 'programs'>>()),
  )
  const tries = await Promise.all(denied.map((client) => client.end<SurvivalReport['denied']>()))
  const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0)
  return {
    connections: sum(reports.map((r) => r.connections)),
    exchanges: sum(reports.map((r) => r.exchanges)),
    longestMs: Math.max(...reports.map((r) => r.longestMs)),
    broken: reports.flatMap((r) => r.broken),
    denied: {
      refused: sum(tries.map((d) => d.refused)),
      silent: sum(tries.map((d) => d.silent)),
      opened: sum(tries.map((d) => d.opened)),
    },
    killed: progress.killed,
    churned,
    flips,
    programs: nodes.map((node, i) => `${node}: ${before[i]?.join(', ')} -> ${after[i]}`),
  }
}

/** The programs for the pods' devices that a node has pinned: one, and two while they are exchanged. */
const programsOf = (cluster: string, node: string): string[] =>
  readdirSync(`/run/weft/${cluster}/${node}/bpf/programs`).filter((entry) => entry.startsWith('from_container-'))

/** Waits until only others than those of before are left, with maps of their own: a node is Ready by what its last agent said. */
async function exchangedPrograms(cluster: TestCluster, node: string, before: readonly string[]): Promise<string> {
  const withinMs = 60_000
  const end = performance.now() + withinMs
  for (;;) {
    const present = programsOf(cluster.layout.name, node)
    const [program] = present
    const maps = readdirSync(`/run/weft/${cluster.layout.name}/${node}/bpf/maps`)
    const isRelaid = maps.includes('flows_v2') && !maps.includes('flows_v1')
    if (present.length === 1 && program !== undefined && !before.includes(program) && isRelaid) return program
    if (performance.now() > end) {
      const log = logTail(logFile(cluster.layout, `${node}/agent`), 20)
      throw new Error(`${node} has ${present.join(', ')} ${withinMs / 1000} s after the last start, not others than
${before.join(', ')}; its agent's last words:\n${log}`)
    }
    await sleep(50)
  }
}

/**
 * What is missing is started from that checkout. Resolves with what it complained of, or nothing: that an agent is killed
 * while it is waited for is the drill.
 */
function bringUp(from: string, cluster: string): Promise<string> {
  const child = spawn(
    process.execPath,
    [join(from, 'src/cli/main.ts'), 'up', '--name', cluster, '--nodes', '2', '--wait', '60'],
    { stdio: ['ignore', 'ignore', 'pipe'] },
  )
  let words = ''
  child.stderr.on('data', (chunk: Buffer) => {
    words += chunk
  })
  return new Promise((done, fail) => {
    child.once('error', fail)
    child.once('close', (code, signal) => done(code === 0 ? '' : `ended with ${code ?? signal}: ${words.trim()}`))
  })
}

/** Maps of the connections, which have another layout after the upgrade. */
const relaid = /\b(flows|embryonic|shares|translations)_v1\b/g

/**
 * The same sources with another program in each hook, and flows and translations that take more room: another layout is
 * another map. What is under way is taken over from the one before.
 */
function upgradedCheckout(): string {
  const dir = mkdtempSync(join(tmpdir(), 'weft-upgrade-'))
  for (const part of ['src', 'bpf', 'native', 'package.json', 'package-lock.json', 'scripts', 'images', 'examples'])
    cpSync(join(root, part), join(dir, part), { recursive: true })
  symlinkSync(join(root, 'node_modules'), join(dir, 'node_modules'))
  const edit = (file: string, what: string, change: (text: string) => string): void => {
    const text = readFileSync(file, 'utf8')
    const changed = change(text)
    if (changed === text) throw new Error(`${file}: there is no ${what} to change: the upgrade would be none`)
    writeFileSync(file, changed)
  }
  // Read where it is set and nowhere else: the instructions are others, the work is the same.
  const release = '\nconst volatile __u32 cfg_release __attribute__((used)) = 2;\n\n#endif\n'
  edit(join(dir, 'bpf/config.h'), 'end', (text) => text.replace(/\n#endif\s*$/, release))
  edit(join(dir, 'bpf/maps/flows.h'), 'struct flow', (text) =>
    text.replace(/(struct flow \{.*?)\n\};/s, '$1\n\t__u64 more[2];\n};'),
  )
  edit(join(dir, 'bpf/maps/translations.h'), 'struct rewrite', (text) =>
    text.replace(/(struct rewrite \{.*?)\n\};/s, '$1\n\t__u64 more;\n};'),
  )
  for (const file of ['flows.ts', 'translations.ts'])
    edit(join(dir, 'src/datapath/maps', file), 'map', (text) => text.replace(relaid, '$1_v2'))
  for (const file of readdirSync(join(dir, 'bpf'), { recursive: true, encoding: 'utf8' })) {
    if (!/\.[ch]$/.test(file)) continue
    const path = join(dir, 'bpf', file)
    writeFileSync(path, readFileSync(path, 'utf8').replace(relaid, '$1_v2'))
  }
  return dir
}

/** Beside the rest: a kill does not wait for it. What it ends with, and what it says. */
function kubectl(cluster: TestCluster, args: readonly string[], input = ''): Promise<Outcome> {
  return new Promise((done) => {
    const child = execFile(cluster.kubectlPath, args, { env: cluster.env, timeout: 60_000 }, (error, stdout, stderr) =>
      done({ code: error === null ? 0 : 1, stdout, stderr }),
    )
    child.stdin?.end(input)
  })
}

async function churnPods(cluster: TestCluster, random: () => number, over: AbortSignal): Promise<number> {
  let churned = 0
  while (!over.aborted) {
    const { stdout } = await kubectl(cluster, ['get', 'pods', '-l', 'app=churn', '-o', 'name'])
    const some = stdout
      .split('\n')
      .filter(Boolean)
      .filter(() => random() < 0.3)
    if (some.length > 0) {
      const { code } = await kubectl(cluster, ['delete', '--wait=false', ...some])
      churned += code === 0 ? some.length : 0
    }
    await sleep(500)
  }
  return churned
}

async function flipPolicy(cluster: TestCluster, over: AbortSignal): Promise<number> {
  let flips = 0
  while (!over.aborted) {
    const { code } =
      flips % 2 === 0
        ? await kubectl(cluster, ['apply', '-f', '-'], flippedPolicy)
        : await kubectl(cluster, ['delete', 'networkpolicy', 'flip', '--wait=false'])
    if (code === 0) flips++
    await sleep(300)
  }
  return flips
}

const flippedPolicy = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: flip }
spec:
  podSelector: { matchLabels: { app: echo } }
  ingress: [{ from: [{ podSelector: { matchLabels: { app: churn } } }] }]
`

const idlePod = (name: string, app: string, node: number): string => `
---
apiVersion: v1
kind: Pod
metadata: { name: ${name}, labels: { app: ${app}, drill: "yes" } }
spec:
  nodeName: node-${node}
  terminationGracePeriodSeconds: 0
  containers: [{ name: c, image: "weft.local/echo:1" }]
`

const manifests = (churn: number): string => `
apiVersion: apps/v1
kind: Deployment
metadata: { name: echo }
spec:
  replicas: 4
  selector: { matchLabels: { app: echo } }
  template:
    metadata: { labels: { app: echo } }
    spec: { terminationGracePeriodSeconds: 0, containers: [{ name: c, image: "weft.local/echo:1" }] }
---
apiVersion: v1
kind: Service
metadata: { name: echo }
spec: { selector: { app: echo }, ports: [{ port: 9000 }] }
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: guard }
spec:
  podSelector: { matchLabels: { app: echo } }
  ingress: [{ from: [{ podSelector: { matchLabels: { app: steady } } }], ports: [{ port: 9000 }] }]
---
apiVersion: apps/v1
kind: Deployment
metadata: { name: churn }
spec:
  replicas: ${churn}
  selector: { matchLabels: { app: churn } }
  template:
    metadata: { labels: { app: churn } }
    spec: { terminationGracePeriodSeconds: 0, containers: [{ name: c, image: "weft.local/pause:1" }] }
${[1, 2].map((node) => idlePod(`steady-${node}`, 'steady', node) + idlePod(`outsider-${node}`, 'outsider', node)).join('')}
`

// The long form, by one command: node test/drills/survival.ts [KILLS [CHURN [CONNECTIONS [SEED]]]]
if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const [, , kills = '200', churn = '100', connections = '10000', seed = String(Date.now() % 100_000)] = process.argv
  const report = await survive({
    name: 't-survive',
    kills: Number(kills),
    churn: Number(churn),
    connections: Number(connections),
    seed: Number(seed),
    tell: (line) => process.stderr.write(`${line}\n`),
  })
  process.stdout.write(`${JSON.stringify(report, null, 2)}\n`)
  const isWhole = report.broken.length === 0 && report.denied.opened === 0 && report.killed === Number(kills)
  process.exitCode = isWhole ? 0 : 1
}
