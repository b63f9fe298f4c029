/** One thing that was looked at. */
export interface Check {
  /** `machine`, or a node. */
  readonly where: string
  readonly name: string
  /** `warning`: it works, with less. */
  readonly outcome: 'ok' | 'warning' | 'fault'
  readonly detail: string
  /** What to do; empty where nothing is to be done. */
  readonly remedy: string
}

export const ok = (where: string, name: string, detail: string): Check => ({
  where,
  name,
  outcome: 'ok',
  detail,
  remedy: '',
})
export const warning = (where: string, name: string, detail: string, remedy: string): Check => ({
  where,
  name,
  outcome: 'warning',
  detail,
  remedy,
})
export const fault = (where: string, name: string, detail: string, remedy: string): Check => ({
  where,
  name,
  outcome: 'fault',
  detail,
  remedy,
})

const marks = { ok: 'ok     ', warning: 'WARNING', fault: 'FAULT  ' } as const satisfies Record<
  Check['outcome'],
  string
>

/** Everything by place, in the order in which it was looked at, and a last line with the sum. */
export function formatChecks(checks: readonly Check[]): string {
  const lines: string[] = []
  for (const [where, of] of Map.groupBy(checks, (check) => check.where)) {
    lines.push(where)
    for (const { name, outcome, detail, remedy } of of) {
      lines.push(`  ${marks[outcome]}  ${name.padEnd(18)} ${detail}`)
      if (remedy !== '') lines.push(`${' '.repeat(30)}-> ${remedy}`)
    }
    lines.push('')
  }
  const faults = checks.filter((check) => check.outcome === 'fault').length
  const warnings = checks.filter((check) => check.outcome === 'warning').length
  const sum = (n: number, word: string): string => `${n} ${word}${n === 1 ? '' : 's'}`
  lines.push(`${sum(checks.length, 'check')}, ${sum(faults, 'fault')}, ${sum(warnings, 'warning')}`)
  return `${lines.join('\n')}\n`
}
