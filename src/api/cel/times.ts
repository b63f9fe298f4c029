/** Times of expressions, to the nanosecond: Go's durations (`1h30m`), RFC 3339 instants, and calendars of time zones. */

const units: Readonly<Record<string, bigint>> = {
  ns: 1n,
  us: 1_000n,
  µs: 1_000n,
  μs: 1_000n,
  ms: 1_000_000n,
  s: 1_000_000_000n,
  m: 60_000_000_000n,
  h: 3_600_000_000_000n,
}
const nanosMax = 2n ** 63n - 1n

/** Nanoseconds of a text such as `1h30m`, `-1.5s`, `0`; undefined for any other text. */
export function parseGoDuration(text: string): bigint | undefined {
  const [, sign = '', rest = ''] = /^([+-]?)(.*)$/s.exec(text) ?? []
  if (rest === '0') return 0n
  const parts = rest.match(/(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)/g)
  if (parts === null || parts.join('') !== rest) return undefined
  let sum = 0n
  for (const part of parts) {
    const [, whole = '', fraction = '', unit = ''] = /^(\d*)\.?(\d*)(\D+)$/.exec(part) ?? []
    const size = units[unit] ?? 0n
    sum += BigInt(whole || '0') * size
    if (fraction !== '') sum += (BigInt(fraction) * size) / 10n ** BigInt(fraction.length)
  }
  if (sum > nanosMax) return undefined
  return sign === '-' ? -sum : sum
}

/** As `string(duration)`: seconds, `5400s`, `0.5s`. */
export function formatDuration(nanos: bigint): string {
  const size = nanos < 0n ? -nanos : nanos
  const fraction = String(size % 1_000_000_000n)
    .padStart(9, '0')
    .replace(/0+$/, '')
  return `${nanos < 0n ? '-' : ''}${size / 1_000_000_000n}${fraction === '' ? '' : `.${fraction}`}s`
}

const secondMin = -62_135_596_800n
const secondMax = 253_402_300_799n

/** Nanoseconds since 1970 of an RFC 3339 text; undefined for any other text and outside the years 1 to 9999. */
export function parseRfc3339(text: string): bigint | undefined {
  const found = /^(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:[.,](\d+))?(?:Z|([+-])(\d\d):(\d\d))$/.exec(text)
  if (found === null) return undefined
  const [, year, month, day, hour, minute, second, fraction = '', sign, zoneHour = '0', zoneMinute = '0'] = found
  const numbers = [year, month, day, hour, minute, second].map(Number)
  const [y = 0, mo = 0, d = 0, h = 0, mi = 0, s = 0] = numbers
  const date = new Date(0)
  date.setUTCFullYear(y, mo - 1, d)
  date.setUTCHours(h, mi, s)
  const isReal = date.getUTCMonth() === mo - 1 && date.getUTCDate() === d && h < 24 && mi < 60 && s < 60
  if (!isReal || Number(zoneHour) > 23 || Number(zoneMinute) > 59) return undefined
  const zone = BigInt((Number(zoneHour) * 60 + Number(zoneMinute)) * 60) * (sign === '-' ? -1n : 1n)
  const seconds = BigInt(date.getTime() / 1000) - zone
  if (seconds < secondMin || seconds > secondMax) return undefined
  return seconds * 1_000_000_000n + BigInt(fraction.padEnd(9, '0').slice(0, 9))
}

export const isInstant = (nanos: bigint): boolean => {
  const seconds = floorDivide(nanos, 1_000_000_000n)
  return seconds >= secondMin && seconds <= secondMax
}

export function formatInstant(nanos: bigint): string {
  const seconds = floorDivide(nanos, 1_000_000_000n)
  const fraction = String(nanos - seconds * 1_000_000_000n)
    .padStart(9, '0')
    .replace(/0+$/, '')
  const text = new Date(Number(seconds) * 1000).toISOString().slice(0, 19)
  return `${text}${fraction === '' ? '' : `.${fraction}`}Z`
}

const floorDivide = (a: bigint, b: bigint): bigint => {
  const quotient = a / b
  return a % b < 0n ? quotient - 1n : quotient
}

/** The instant's calendar in a zone: `Europe/Berlin`, `+02:00`; undefined for a zone that is not known. */
export function calendarOf(nanos: bigint, zone: string): Date | undefined {
  const ms = Number(floorDivide(nanos, 1_000_000n))
  if (zone === '' || zone === 'UTC' || zone === 'Z') return new Date(ms)
  const offset = /^([+-]?)(\d\d):(\d\d)$/.exec(zone)
  if (offset !== null) {
    const minutes = Number(offset[2]) * 60 + Number(offset[3])
    return new Date(ms + (offset[1] === '-' ? -minutes : minutes) * 60_000)
  }
  try {
    const parts = new Intl.DateTimeFormat('en-US', {
      timeZone: zone,
      hourCycle: 'h23',
      year: 'numeric',
      month: 'numeric',
      day: 'numeric',
      hour: 'numeric',
      minute: 'numeric',
      second: 'numeric',
    }).formatToParts(new Date(ms))
    const at = (name: string): number => Number(parts.find((p) => p.type === name)?.value ?? 0)
    const whole = Date.UTC(at('year'), at('month') - 1, at('day'), at('hour'), at('minute'), at('second'))
    return new Date(whole + (((ms % 1000) + 1000) % 1000))
  } catch {
    return undefined
  }
}
