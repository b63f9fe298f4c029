import { parseInstant } from '../schema/times.ts'

/** The API's times: RFC 3339 in UTC, whole seconds (`Time`) or microseconds (`MicroTime`). */

/** `2026-08-21T10:00:00Z`. */
export function formatTime(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 19)}Z`
}

/** `2026-08-21T10:00:00.123000Z`; we know milliseconds, so the last three digits are zeros. */
export function formatMicroTime(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 23)}000Z`
}

/** Milliseconds since the epoch, or undefined when it is not RFC 3339. */
export function parseTime(text: string | undefined): number | undefined {
  const instant = text === undefined ? undefined : parseInstant(text)
  return instant === undefined ? undefined : instant.seconds * 1000 + Math.trunc(instant.nanos / 1_000_000)
}

/** How long ago, as kubectl prints ages: `5s`, `3m12s`, `4h`, `2d3h`, `400d`; `<unknown>` without a time. */
export function age(since: string | undefined, now: number): string {
  const ms = parseTime(since)
  return ms === undefined ? '<unknown>' : humanDuration(now - ms)
}

/** A duration with two units at most, the rougher the longer (facts: apimachinery util/duration). */
export function humanDuration(ms: number): string {
  const seconds = Math.trunc(ms / 1000)
  // Clocks differ by a second or so between machines; more than that is not an age.
  if (seconds < -1) return '<invalid>'
  if (seconds < 0) return '0s'
  if (seconds < 60 * 2) return `${seconds}s`
  const minutes = Math.trunc(seconds / 60)
  if (minutes < 10) return seconds % 60 === 0 ? `${minutes}m` : `${minutes}m${seconds % 60}s`
  if (minutes < 60 * 3) return `${minutes}m`
  const hours = Math.trunc(minutes / 60)
  if (hours < 8) return minutes % 60 === 0 ? `${hours}h` : `${hours}h${minutes % 60}m`
  if (hours < 48) return `${hours}h`
  const days = Math.trunc(hours / 24)
  if (hours < 24 * 8) return hours % 24 === 0 ? `${days}d` : `${days}d${hours % 24}h`
  if (hours < 24 * 365 * 2) return `${days}d`
  const years = Math.trunc(days / 365)
  if (hours < 24 * 365 * 8) return days % 365 === 0 ? `${years}y` : `${years}y${days % 365}d`
  return `${years}y`
}
