import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { layoutCluster } from '#cli/cluster/layout.ts'
import { median, type Row } from './row.ts'

const main = join(resolve(import.meta.dirname, '../..'), 'src/cli/main.ts')
const weft = (...args: string[]): string =>
  execFileSync(process.execPath, [main, ...args], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
const name = 't-bench'
const passes = 3
const idleSeconds = 10
const ticksPerSecond = 100

interface Sample {
  readonly upSeconds: number
  readonly residentMb: Record<string, number>
  readonly cpuShare: Record<string, number>
}

/** `weft up` to two Ready nodes with everything installed, and what an idle cluster then costs. */
export async function run(): Promise<Row[]> {
  const samples: Sample[] = []
  for (let pass = 0; pass < passes; pass++) samples.push(await sample())
  const of = (pick: (s: Sample) => number) => median(samples.map(pick))
  const worst = (pick: (s: Sample) => Record<string, number>, part: RegExp) =>
    of((s) => Math.max(...Object.entries(pick(s)).flatMap(([k, v]) => (part.test(k) ? [v] : []))))
  return [
    { name: 'weft up to two Ready nodes, share of 8 s', ratio: of((s) => s.upSeconds) / 8, goal: 1, atMost: true },
    {
      name: 'server resident, idle, share of 200 MB',
      ratio: worst((s) => s.residentMb, /^server$/) / 200,
      goal: 1,
      atMost: true,
    },
    {
      name: 'agent resident, idle, share of 150 MB',
      ratio: worst((s) => s.residentMb, /agent$/) / 150,
      goal: 1,
      atMost: true,
    },
    {
      name: 'server CPU, idle, share of 2 % of a core',
      ratio: worst((s) => s.cpuShare, /^server$/) / 0.02,
      goal: 1,
      atMost: true,
    },
    {
      name: 'agent CPU, idle, share of 2 % of a core',
      ratio: worst((s) => s.cpuShare, /agent$/) / 0.02,
      goal: 1,
      atMost: true,
    },
  ]
}

async function sample(): Promise<Sample> {
  try {
    const start = performance.now()
    weft('up', '--name', name, '--nodes', '2')
    const upSeconds = (performance.now() - start) / 1000
    const { processes } = JSON.parse(weft('status', '--name', name, '-o', 'json')) as {
      processes: { name: string; pid: number }[]
    }
    const ours = processes.filter((p) => !p.name.endsWith('containerd'))
    const before = ours.map(({ pid }) => ticks(pid))
    await new Promise((resolve) => setTimeout(resolve, idleSeconds * 1000))
    return {
      upSeconds,
      cpuShare: Object.fromEntries(
        ours.map((p, i) => [p.name, (ticks(p.pid) - (before[i] ?? 0)) / ticksPerSecond / idleSeconds]),
      ),
      residentMb: Object.fromEntries(ours.map((p) => [p.name, resident(p.pid)])),
    }
  } finally {
    weft('down', '--name', layoutCluster(name, 2).name)
  }
}

/** User and system time of a process, clock ticks (proc(5), fields 14 and 15 of stat). */
function ticks(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /, '')
    .split(' ')
  return Number(fields[11]) + Number(fields[12])
}

function resident(pid: number): number {
  return Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024
}
