/** Numbers that may also be written as a percentage: `maxSurge: 25%`. */
export type IntOrString = number | string

const percent = /^(\d+)%$/

/** `25%` -> 25; undefined for a number or any other string. */
export function parsePercent(value: IntOrString): number | undefined {
  const match = typeof value === 'string' ? percent.exec(value) : null
  return match ? Number(match[1]) : undefined
}

/**
 * The absolute value of `value` out of `total`. Surge rounds up, unavailable rounds down.
 * Throws for a string that is not a percentage: validation let nothing else through.
 */
export function scaledValue(value: IntOrString, total: number, round: 'up' | 'down'): number {
  if (typeof value === 'number') return value
  const part = parsePercent(value)
  if (part === undefined) throw new Error(`Cannot scale "${value}": invalid value for IntOrString: not a percentage`)
  // Integers throughout: 7 % of 100 must be 7, not 7.000000000000001 rounded up.
  const product = part * total
  return round === 'up' ? Math.floor((product + 99) / 100) : Math.floor(product / 100)
}
