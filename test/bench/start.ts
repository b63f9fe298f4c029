import { readFileSync } from 'node:fs'
import { setTimeout } from 'node:timers/promises'
import { withCluster } from './cluster.ts'
import { cut } from './cut.ts'
import { median, type Row } from './row.ts'

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

function sample(): Promise<Sample> {
  return withCluster(2, async ({ upSeconds, weft }) => {
    const { processes } = JSON.parse(weft('status', '-o', 'json')) as {
      processes: { name: string; pid: number }[]
    }
    const ours = processes.filter((p) => !p.name.endsWith('containerd'))
    const before = ours.map(({ pid }) => ticks(pid))
    await setTimeout(idleSeconds * 1000, undefined, { signal: cut })
    return {
      upSeconds,
      cpuShare: Object.fromEntries(
        ours.map((p, i) => [p.name, (ticks(p.pid) - (before[i] ?? 0)) / ticksPerSecond / idleSeconds]),
      ),
      residentMb: Object.fromEntries(ours.map((p) => [p.name, resident(p.pid)])),
    }
  })
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
