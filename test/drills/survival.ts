import { spawn } from 'node:child_process'
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import { pidFile } from '#cli/cluster/observe.ts'
import { findProcess } from '#cli/cluster/processes.ts'
import { TestCluster } from '../cluster/cluster.ts'
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
  readonly churned: number
  readonly flips: number
  /** Of the program on the pods' devices of node-1, before and after the upgrade. */
  readonly programs: readonly [string, string]
}

/** mulberry32: the same seed, the same drill. */
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
 * Agents are killed at random moments, half of the way they come back with other programs (an upgrade), pods churn and policies
 * flip, while connections with sequence numbers go on and denied ones are tried without end.
 */
export async function survive(options: SurvivalOptions): Promise<SurvivalReport> {
  const { name, kills, churn, connections, seed, tell } = options
  const random = randomOf(seed)
  const cluster = TestCluster.up(name)
  await using stack = new AsyncDisposableStack()
  stack.defer(() => cluster.down())
  cluster.apply(manifests(churn))
  for (const deployment of ['echo', 'churn'])
    cluster.kubectl('rollout', 'status', `deployment/${deployment}`, '--timeout=120s')
  cluster.kubectl('wait', '--for=condition=Ready', 'pod', '-l', 'drill=yes', '--timeout=60s')
  const service = cluster.kubectl('get', 'service', 'echo', '-o', 'jsonpath={.spec.clusterIP}')
  const targets = cluster.kubectl('get', 'pods', '-l', 'app=echo', '-o', 'jsonpath={.items[*].status.podIP}').split(' ')

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

  const before = programOf(name)
  const over = new AbortController()
  const churning = churnPods(cluster, random, over.signal)
  const flipping = flipPolicy(cluster, over.signal)
  const upgraded = stack.adopt(upgradedCheckout(), (dir) => rmSync(dir, { recursive: true, force: true }))
  for (let i = 0; i < kills; i++) {
    const node = random() < 0.5 ? 1 : 2
    const killed = killAgent(cluster, node)
    // The one that comes back is killed again at any moment of its start, or after it.
    const from = i < kills / 2 ? root : upgraded
    const up = bringUp(from, name)
    await sleep(random() * 2_000)
    if (i % 20 === 0) tell(`killed ${i + 1} of ${kills} (node-${node}, pid ${killed})`)
    await Promise.race([up, sleep(3_000)])
  }
  over.abort()
  const [churned, flips] = await Promise.all([churning, flipping])
  await bringUp(upgraded, name)
  const after = programOf(name)
  cluster.weftUp()

  const reports = await Promise.all(
    steady.map((client) => client.end<Omit<SurvivalReport, 'denied' | 'churned' | 'flips' | 'programs'>>()),
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
    churned,
    flips,
    programs: [before, after],
  }
}

const programOf = (cluster: string): string =>
  readdirSync(`/run/weft/${cluster}/node-1/bpf/programs`).find((entry) => entry.startsWith('from_container-')) ?? ''

/** kill -9; returns the pid, or 0 where there was none at the moment. */
function killAgent(cluster: TestCluster, node: number): number {
  const name = `node-${node}/agent`
  const agent = findProcess(name, pidFile(cluster.layout, name))
  if (agent !== undefined) process.kill(agent.pid, 'SIGKILL')
  return agent?.pid ?? 0
}

/** What is missing is started from that checkout. That an agent is killed while it is waited for is the drill. */
function bringUp(from: string, cluster: string): Promise<void> {
  const child = spawn(
    process.execPath,
    [join(from, 'src/cli/main.ts'), 'up', '--name', cluster, '--nodes', '2', '--wait', '20'],
    { stdio: 'ignore' },
  )
  return new Promise((done) => child.once('close', () => done()))
}

/** The same sources with another program in each hook: what an upgrade brings. */
function upgradedCheckout(): string {
  const dir = mkdtempSync(join(tmpdir(), 'weft-upgrade-'))
  for (const part of ['src', 'bpf', 'native', 'package.json', 'package-lock.json', 'scripts', 'images', 'examples'])
    cpSync(join(root, part), join(dir, part), { recursive: true })
  symlinkSync(join(root, 'node_modules'), join(dir, 'node_modules'))
  const config = join(dir, 'bpf/config.h')
  const text = readFileSync(config, 'utf8')
  // Read where it is set and nowhere else: the instructions are others, the work is the same.
  writeFileSync(
    config,
    text.replace(/\n#endif\s*$/, '\nconst volatile __u32 cfg_release __attribute__((used)) = 2;\n\n#endif\n'),
  )
  return dir
}

async function churnPods(cluster: TestCluster, random: () => number, over: AbortSignal): Promise<number> {
  let churned = 0
  while (!over.aborted) {
    const names = cluster.try(['get', 'pods', '-l', 'app=churn', '-o', 'name']).stdout.split('\n').filter(Boolean)
    const some = names.filter(() => random() < 0.3)
    if (some.length > 0) churned += cluster.try(['delete', '--wait=false', ...some]).code === 0 ? some.length : 0
    await sleep(500)
  }
  return churned
}

async function flipPolicy(cluster: TestCluster, over: AbortSignal): Promise<number> {
  let flips = 0
  while (!over.aborted) {
    if (flips % 2 === 0) cluster.try(['apply', '-f', '-'], { input: flippedPolicy })
    else cluster.try(['delete', 'networkpolicy', 'flip', '--wait=false'])
    flips++
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
  process.exitCode = report.broken.length === 0 && report.denied.opened === 0 ? 0 : 1
}
