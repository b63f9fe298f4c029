/** One measured ratio, judged on the median of three passes. */
export interface Row {
  readonly name: string
  readonly ratio: number
  readonly goal: number
  /** True where less is better: times and sizes as a share of their goal's unit. */
  readonly atMost?: boolean
}

/**
 * The 80th percentile of rates: the machine while nobody disturbs it. It is noisy in phases of seconds, so runs are short, cases
 * take turns, and of each its fast phase counts. Throws for no values.
 */
export function fast(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const value = sorted[Math.floor((sorted.length - 1) * 0.8)]
  if (value === undefined) throw new RangeError('Cannot take the fast phase of no values')
  return value
}

/** The middle value; the mean of the two middle ones for an even count. Throws for no values. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const high = sorted[Math.floor(sorted.length / 2)]
  const low = sorted[Math.floor((sorted.length - 1) / 2)]
  if (high === undefined || low === undefined) throw new RangeError('Cannot take the median of no values')
  return (high + low) / 2
}
