const units: Readonly<Record<string, number>> = { h: 3_600_000, m: 60_000, s: 1_000, ms: 1 }

/** A duration as Gateway API writes it (GEP-2257: `1h30m`, `250ms`) in milliseconds; undefined for what is none. */
export function parseDuration(text: string): number | undefined {
  if (!/^(?:\d{1,5}(?:h|m|s|ms)){1,4}$/.test(text)) return undefined
  let sum = 0
  for (const [, count, unit = ''] of text.matchAll(/(\d+)(ms|h|m|s)/g)) sum += Number(count) * (units[unit] ?? 0)
  return sum
}
