/** One measured ratio, judged on the median of three passes. */
export interface Row {
  readonly name: string
  readonly ratio: number
  readonly goal: number
  /** True where less is better: times and sizes as a share of their goal's unit. */
  readonly atMost?: boolean
}

/** The middle value; the mean of the two middle ones for an even count. Throws for no values. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const high = sorted[Math.floor(sorted.length / 2)]
  const low = sorted[Math.floor((sorted.length - 1) / 2)]
  if (high === undefined || low === undefined) throw new RangeError('Cannot take the median of no values')
  return (high + low) / 2
}
