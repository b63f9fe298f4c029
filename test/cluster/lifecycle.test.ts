import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import test from 'ava'
import { eventually } from '#base/async/eventually.ts'
import { layoutCluster } from '#cli/cluster/layout.ts'
import { TestCluster, weft } from './cluster.ts'

/** `weft up`, again, after a crash of everything, and `weft down`: what is there and what is left. */
const name = 't-life'
const main = resolve(import.meta.dirname, '../../src/cli/main.ts')

test.after.always(() => {
  weft('down', '--name', name)
})

/** What of the cluster the machine shows, whoever is asked. */
function traces(): string[] {
  const found: string[] = []
  const say = (what: string, text: string) => {
    for (const line of text.split('\n')) if (line.includes(name)) found.push(`${what}: ${line.trim()}`)
  }
  say('namespace', execFileSync('ip', ['netns', 'list'], { encoding: 'utf8' }))
  say('mount', readFileSync('/proc/self/mountinfo', 'utf8'))
  say('process', execFileSync('ps', ['-eo', 'pid,args'], { encoding: 'utf8' }).replaceAll(/.*test\/cluster.*/g, ''))
  for (const hierarchy of readdirSync('/sys/fs/cgroup')) {
    if (existsSync(`/sys/fs/cgroup/${hierarchy}/weft/${name}`)) found.push(`cgroup: ${hierarchy}`)
  }
  if (existsSync(`/sys/fs/cgroup/weft/${name}`)) found.push('cgroup: /')
  for (const dir of [`/run/weft/${name}`, `/var/lib/weft/${name}`]) if (existsSync(dir)) found.push(`directory: ${dir}`)
  return found
}

const kinds = ['prog', 'link', 'map'] as const
interface BpfObject {
  readonly id: number
}
const show = (...args: string[]): unknown => JSON.parse(execFileSync('bpftool', ['-j', ...args], { encoding: 'utf8' }))
const ids = (kind: (typeof kinds)[number]): Set<number> =>
  new Set((show(kind, 'show') as BpfObject[]).map((object) => object.id))

/** What the cluster has in the kernel, as `kind id`: what is pinned on its nodes' own file systems. */
function pinned(): string[] {
  const folders = { programs: 'prog', links: 'link', maps: 'map' } as const
  return layoutCluster(name, 2).nodes.flatMap(({ bpffs }) =>
    Object.entries(folders).flatMap(([folder, kind]) =>
      readdirSync(join(bpffs, folder), { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile())
        .map((entry) => show(kind, 'show', 'pinned', join(entry.parentPath, entry.name)) as BpfObject)
        .map(({ id }) => `${kind} ${id}`),
    ),
  )
}
const shimSockets = (): string[] => (existsSync('/run/containerd/s') ? readdirSync('/run/containerd/s') : [])

interface StatusJson {
  processes: { name: string; pid: number | null }[]
  nodes: { name: string; ready: boolean }[]
}
/** Ends with 1 while a part is away, and still says everything. */
function status(): StatusJson {
  try {
    return JSON.parse(weft('status', '--name', name, '-o', 'json')) as StatusJson
  } catch (error) {
    return JSON.parse((error as { stdout: string }).stdout) as StatusJson
  }
}

async function killAll(): Promise<void> {
  for (const { pid } of status().processes) if (pid !== null) process.kill(pid, 'SIGKILL')
  await eventually(() => status().processes.every((p) => p.pid === null))
}

test.serial('up, up again, kill -9 of everything, up, kill -9 of everything, down: nothing is left', async (t) => {
  const shims = shimSockets()
  const cluster = TestCluster.up(name)
  const first = status()
  t.deepEqual(
    first.nodes.map((n) => [n.name, n.ready]),
    [
      ['node-1', true],
      ['node-2', true],
    ],
  )
  t.true(first.processes.every((p) => p.pid !== null))

  cluster.weftUp()
  t.deepEqual(status().processes, first.processes, 'a second up changes nothing')
  const piped = spawnSync('sh', ['-c', `"$0" "$1" status --name ${name} | :`, process.execPath, main], {
    encoding: 'utf8',
  })
  t.is(piped.stderr, '', 'a reader who has gone ends a command without a word')

  cluster.kubectl('create', 'configmap', 'kept', '--from-literal=a=b')
  cluster.kubectl('create', 'deployment', 'd', '--image=weft.local/echo:1')
  cluster.kubectl('rollout', 'status', 'deployment/d', '--timeout=60s')
  const before = pinned()
  for (const kind of kinds)
    t.true(
      before.some((object) => object.startsWith(kind)),
      `${kind} there`,
    )

  await killAll()
  cluster.weftUp()
  t.is(cluster.kubectl('get', 'configmap', 'kept', '-o', 'jsonpath={.data.a}'), 'b')
  cluster.kubectl('rollout', 'status', 'deployment/d', '--timeout=60s')

  const after = pinned()
  // Nobody is asked to go: what is left is taken away by its names alone.
  await killAll()
  cluster.down()
  t.deepEqual(traces(), [])
  // The kernel frees what has no user any more after a grace period of its own.
  const left = (): string[] => {
    const there = new Set(kinds.flatMap((kind) => [...ids(kind)].map((id) => `${kind} ${id}`)))
    return [...before, ...after].filter((object) => there.has(object))
  }
  await eventually(() => assert.deepEqual(left(), []))
  t.deepEqual(
    shimSockets().filter((socket) => !shims.includes(socket)),
    [],
  )
})

test.serial('down of a cluster that runs: nothing is left', (t) => {
  const shims = shimSockets()
  const cluster = TestCluster.up(name, 1)
  cluster.kubectl('create', 'deployment', 'd', '--image=weft.local/echo:1')
  cluster.kubectl('rollout', 'status', 'deployment/d', '--timeout=60s')
  t.true(traces().length > 0)
  cluster.down()
  t.deepEqual(traces(), [])
  t.deepEqual(
    shimSockets().filter((socket) => !shims.includes(socket)),
    [],
  )
})

test.serial('down without a cluster says so and ends well', (t) => {
  t.regex(weft('down', '--name', 't-none'), /there is no cluster "t-none"/)
})

test.serial('bad flags are refused with the value and the remedy', (t) => {
  for (const [args, words] of [
    [['up', '--name', 'Bad_Name'], /--name "Bad_Name": use at most 20/],
    [['up', '--nodes', '0'], /--nodes 0: use a whole number from 1 to 64/],
    [['kubeconfig', '--name', 't-none'], /there is no cluster "t-none"/],
  ] as const) {
    const error = t.throws(() => weft(...args)) as Error & { stderr?: string }
    t.regex(error.stderr ?? error.message, words)
  }
})
