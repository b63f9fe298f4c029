import { writeFileSync } from 'node:fs'
import { setImmediate } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { cut, heedCuts } from './cut.ts'
import type { Row } from './row.ts'

/** Each group is a file of its own; it is loaded only when it is asked for. `services/tunnel`: one part of a group that has parts. */
const groups: Record<string, () => Promise<{ run(part?: string): Promise<Row[]> }>> = {
  net: () => import('./net.ts'),
  services: () => import('./services.ts'),
  api: () => import('./api.ts'),
  start: () => import('./start.ts'),
  pod: () => import('./pod.ts'),
  gateway: () => import('./gateway.ts'),
  dns: () => import('./dns.ts'),
  flows: () => import('./flows.ts'),
  policy: () => import('./policy.ts'),
}

const { values, positionals } = parseArgs({ options: { json: { type: 'string' } }, allowPositionals: true })
const wanted = positionals.length > 0 ? positionals : Object.keys(groups)
const rows: Row[] = []
heedCuts()
try {
  for (const asked of wanted) await runGroup(asked)
} catch (error) {
  // A signal that came while a command was waited for is heard only now.
  await setImmediate()
  if (!cut.aborted) throw error
  process.stderr.write('cut: what the bench had made is gone\n')
}
if (values.json !== undefined && !cut.aborted) writeFileSync(values.json, `${JSON.stringify(rows, null, 2)}\n`)

async function runGroup(asked: string): Promise<void> {
  cut.throwIfAborted()
  const [name = '', part] = asked.split('/')
  const group = groups[name]
  if (group === undefined)
    throw new RangeError(`no group ${JSON.stringify(name)}: use ${Object.keys(groups).join(', ')}`)
  const { run } = await group()
  process.stdout.write(`\n${asked}\n`)
  for (const row of await run(part)) {
    rows.push(row)
    process.stdout.write(`  ${row.name.padEnd(64)} ${format(row.ratio).padStart(9)} ${goalText(row)}\n`)
  }
}

function format(ratio: number): string {
  return ratio >= 100 ? ratio.toFixed(0) : ratio.toFixed(2)
}

function goalText({ ratio, goal, atMost }: Row): string {
  const reached = atMost ? ratio <= goal : ratio >= goal
  return `goal ${atMost ? '<=' : '>='} ${format(goal)}  ${reached ? 'reached' : 'MISSED'}`
}
