import { type ChildProcess, spawn } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { eventually } from '#base/async/eventually.ts'
import { TestCluster, weft } from '../cluster/cluster.ts'
import { echoContainer, onEveryNode } from '../cluster/on-every-node.ts'

/**
 * kill -9 of an agent, twenty times, while connections go through a ClusterIP: the programs and maps are the kernel's,
 * so no connection breaks and none is refused, and the agent that comes back touches no container.
 */
const kills = 20
const cluster = TestCluster.up('t-akill')
const clients: ChildProcess[] = []

test.after.always(() => {
  for (const client of clients) client.kill('SIGKILL')
  cluster.down()
})

interface Report {
  readonly exchanges: number
  readonly connections: number
  readonly failures: readonly string[]
}

/** Runs in a pod's network namespace and cgroup, but as a process of ours: an exec would end with the agent. */
class RequestResponse {
  readonly #child: ChildProcess
  readonly #report: Promise<Report>

  constructor(podPid: number, cgroup: string, address: string, port: number) {
    const script = 'echo $$ > "$0/cgroup.procs" && exec nsenter "--net=/proc/$1/ns/net" -- "$2" "$3" "$4" "$5"'
    const program = join(import.meta.dirname, 'request-response.ts')
    this.#child = spawn(
      '/bin/sh',
      ['-c', script, cgroup, String(podPid), process.execPath, program, address, String(port)],
      {
        stdio: ['ignore', 'pipe', 'inherit'],
      },
    )
    clients.push(this.#child)
    let output = ''
    this.#child.stdout?.on('data', (chunk: Buffer) => {
      output += chunk
    })
    this.#report = new Promise((resolve, reject) =>
      this.#child.on('close', () =>
        output === '' ? reject(new Error('the client said nothing')) : resolve(JSON.parse(output) as Report),
      ),
    )
  }

  end(): Promise<Report> {
    this.#child.kill('SIGTERM')
    return this.#report
  }
}

test('kill -9 of an agent 20 times under request and response through a ClusterIP breaks no connection', async (t) => {
  cluster.apply(`${onEveryNode('echo', [echoContainer])}
apiVersion: v1
kind: Service
metadata: { name: echo }
spec: { selector: { app: echo }, ports: [{ port: 9000 }] }
`)
  cluster.kubectl('rollout', 'status', 'daemonset/echo', '--timeout=60s')
  const address = cluster.kubectl('get', 'service', 'echo', '-o', 'jsonpath={.spec.clusterIP}')
  const pod = cluster.kubectl(
    'get',
    'pods',
    '-l',
    'app=echo',
    '--field-selector=spec.nodeName=node-1',
    '-o',
    'jsonpath={.items[0].metadata.name}',
  )
  const before = containers()
  const { pid, cgroup } = processOfPod('echo')
  const client = new RequestResponse(pid, cgroup, address, 9000)

  for (let i = 0; i < kills; i++) {
    const agent = agentPid()
    if (agent === undefined) throw new Error(`before kill ${i + 1} there is no agent on node-1: it ended by itself`)
    process.kill(agent, 'SIGKILL')
    await eventually(() => agentPid() !== agent, { withinMs: 10_000, pauseMs: 20 })
    weft('up', '--name', cluster.layout.name, '--nodes', '2')
  }
  const report = await client.end()
  t.deepEqual(report.failures, [])
  t.true(report.exchanges > 1000, `${report.exchanges} exchanges`)
  t.true(report.connections > 50, `${report.connections} connections`)
  t.deepEqual(containers(), before, 'no container was restarted')
  t.is(cluster.kubectl('get', 'pod', pod, '-o', 'jsonpath={.status.containerStatuses[0].restartCount}'), '0')
})

const containers = (): string =>
  cluster.kubectl(
    'get',
    'pods',
    '-o',
    'jsonpath={range .items[*]}{.status.containerStatuses[0].containerID}{"\\n"}{end}',
  )

function agentPid(): number | undefined {
  const { processes } = JSON.parse(weftStatus()) as { processes: { name: string; pid: number | null }[] }
  return processes.find((p) => p.name === 'node-1/agent')?.pid ?? undefined
}

/** `weft status` ends with 1 while a part is away, and still says everything. */
function weftStatus(): string {
  try {
    return weft('status', '--name', cluster.layout.name, '-o', 'json')
  } catch (error) {
    return (error as { stdout: string }).stdout
  }
}

/** A process of that name on node 1, and its directory in the unified hierarchy. */
function processOfPod(comm: string): { pid: number; cgroup: string } {
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue
    try {
      if (readFileSync(`/proc/${name}/comm`, 'utf8').trim() !== comm) continue
      const path = /^0::(.*)$/m.exec(readFileSync(`/proc/${name}/cgroup`, 'utf8'))?.[1] ?? ''
      const root =
        readFileSync('/proc/self/mounts', 'utf8')
          .split('\n')
          .find((l) => l.split(' ')[2] === 'cgroup2')
          ?.split(' ')[1] ?? ''
      if (path.includes(`/weft/${cluster.layout.name}/node-1/`)) return { pid: Number(name), cgroup: `${root}${path}` }
    } catch {
      // It ended while we looked.
    }
  }
  throw new Error(`no process ${comm} on node-1`)
}
