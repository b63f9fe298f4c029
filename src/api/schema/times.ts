/** An instant as protobuf has it. */
export interface Instant {
  /** Since 1970 UTC. */
  readonly seconds: number
  readonly nanos: number
}

const rfc3339 = /^(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:[.,](\d{1,9})\d*)?(Z|[+-]\d\d:\d\d)$/
const wholeSecond = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/

/** Reads RFC 3339 text; undefined when it is not, or names no day of the calendar. */
export function parseInstant(text: string): Instant | undefined {
  const match = rfc3339.exec(text)
  if (match === null) return undefined
  const [, year, month, day, hour, minute, second, fraction = '', zone = 'Z'] = match
  const date = new Date(Date.UTC(2000, 0, 1))
  date.setUTCFullYear(Number(year), Number(month) - 1, Number(day))
  date.setUTCHours(Number(hour), Number(minute), Number(second), 0)
  const same =
    date.getUTCMonth() === Number(month) - 1 &&
    date.getUTCDate() === Number(day) &&
    date.getUTCHours() === Number(hour) &&
    date.getUTCMinutes() === Number(minute) &&
    Number(second) < 60
  if (!same) return undefined
  const offset = zone === 'Z' ? 0 : Number(zone.slice(1, 3)) * 60 + Number(zone.slice(4, 6))
  const minutesAhead = zone.startsWith('-') ? -offset : offset
  return { seconds: date.getTime() / 1000 - minutesAhead * 60, nanos: Number(fraction.padEnd(9, '0')) }
}

/** `2026-11-21T12:00:00Z`: how metav1.Time is written. */
export const formatTime = (at: Instant): string => `${new Date(at.seconds * 1000).toISOString().slice(0, 19)}Z`

/** `2026-11-21T12:00:00.000000Z`: how metav1.MicroTime is written. */
export const formatMicroTime = (at: Instant): string =>
  `${new Date(at.seconds * 1000).toISOString().slice(0, 19)}.${String(Math.floor(at.nanos / 1000)).padStart(6, '0')}Z`

/** The text as the API would write it, or undefined when it is no time. */
export function canonicalTime(text: string): string | undefined {
  const instant = parseInstant(text)
  if (instant === undefined) return undefined
  return wholeSecond.test(text) ? text : formatTime(instant)
}

export function canonicalMicroTime(text: string): string | undefined {
  const instant = parseInstant(text)
  return instant === undefined ? undefined : formatMicroTime(instant)
}

const units: Readonly<Record<string, number>> = {
  ns: 1,
  us: 1e3,
  µs: 1e3,
  μs: 1e3,
  ms: 1e6,
  s: 1e9,
  m: 60e9,
  h: 3600e9,
}

/** Nanoseconds of Go's duration text (`1h30m`); undefined when it is none. */
export function parseDuration(text: string): number | undefined {
  const match = /^([+-]?)((?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+|0)$/.exec(text)
  if (match === null || match[2] === undefined) return undefined
  let total = 0
  for (const [, number, unit] of match[2].matchAll(/(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)/g))
    total += Number(number) * (units[unit ?? ''] ?? 0)
  return match[1] === '-' ? -total : total
}

/** Go's text of a duration in nanoseconds: `1h30m0s`, `1.5s`, `100ms`. */
export function formatDuration(nanos: number): string {
  if (nanos === 0) return '0s'
  const minus = nanos < 0 ? '-' : ''
  const all = Math.abs(nanos)
  if (all < 1e3) return `${minus}${all}ns`
  if (all < 1e6) return `${minus}${all / 1e3}µs`
  if (all < 1e9) return `${minus}${all / 1e6}ms`
  const hours = Math.floor(all / 3600e9)
  const minutes = Math.floor((all % 3600e9) / 60e9)
  const seconds = (all % 60e9) / 1e9
  const tail = hours > 0 ? `${hours}h${minutes}m` : minutes > 0 ? `${minutes}m` : ''
  return `${minus}${tail}${seconds}s`
}
