/**
 * Quantities as the API writes them: `100m`, `1.5Gi`, `12e6`. Exact: a value is a whole number of nanos, rounded up
 * where it is finer than that, as upstream does (facts: apimachinery api/resource).
 */
export interface Quantity {
  /** In units of 10^-9. */
  readonly nano: bigint
  readonly format: 'DecimalSI' | 'BinarySI' | 'DecimalExponent'
}

/** What a quantity string is rejected with; the words are upstream's. */
export class QuantityError extends Error {
  readonly text: string

  constructor(words: string, text: string) {
    super(words)
    this.name = 'QuantityError'
    this.text = text
  }
}

const giga = 1_000_000_000n
const shape = /^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$/
const formatWords = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
/** Suffix -> power of ten. */
export const decimalExponents: Readonly<Record<string, number>> = {
  n: -9,
  u: -6,
  m: -3,
  '': 0,
  k: 3,
  M: 6,
  G: 9,
  T: 12,
  P: 15,
  E: 18,
}
const decimalSuffixes: Readonly<Record<number, string>> = Object.fromEntries(
  Object.entries(decimalExponents).map(([suffix, exponent]) => [exponent, suffix]),
)
const binaryExponents: Readonly<Record<string, number>> = { Ki: 10, Mi: 20, Gi: 30, Ti: 40, Pi: 50, Ei: 60 }
const binarySuffixes = ['', 'Ki', 'Mi', 'Gi', 'Ti', 'Pi', 'Ei'] as const
const binaryMax = (2n ** 63n - 1n) * giga

/** The same few strings come back in every pod, so what was parsed is kept; thrown away whole when full. */
const cache = new Map<string, Quantity>()
const cacheEntriesMax = 4096

/** Throws `QuantityError`. */
export function parseQuantity(text: string | number): Quantity {
  const key = typeof text === 'number' ? String(text) : text
  const known = cache.get(key)
  if (known) return known
  const parsed = parse(key)
  if (cache.size >= cacheEntriesMax) cache.clear()
  if (key.length <= 32) cache.set(key, parsed)
  return parsed
}

/** Undefined where `parseQuantity` throws. */
export function tryParseQuantity(text: string | number): Quantity | undefined {
  try {
    return parseQuantity(text)
  } catch (error) {
    if (error instanceof QuantityError) return undefined
    throw error
  }
}

function parse(text: string): Quantity {
  // A hundred digits are more than any quantity has, and bound the arithmetic below.
  const match = text.length <= 100 ? shape.exec(text) : null
  if (!match) throw new QuantityError(formatWords, text)
  const [, number = '', suffix = ''] = match
  const negative = number.startsWith('-')
  const digits = number.replace(/^[+-]/, '')
  const dot = digits.indexOf('.')
  if (dot >= 0 && digits.indexOf('.', dot + 1) >= 0) throw new QuantityError(formatWords, text)
  const whole = dot < 0 ? digits : digits.slice(0, dot)
  const fraction = dot < 0 ? '' : digits.slice(dot + 1)
  if (whole === '' && fraction === '') throw new QuantityError('unable to parse numeric part of quantity', text)

  const unscaled = BigInt(`${whole}${fraction}`)
  const { format, exponent } = suffixOf(suffix, text)
  let numerator = unscaled * giga
  let denominator = 10n ** BigInt(fraction.length)
  if (format === 'BinarySI') numerator *= 2n ** BigInt(exponent)
  else if (exponent >= 0) numerator *= 10n ** BigInt(exponent)
  else denominator *= 10n ** BigInt(-exponent)
  let nano = (numerator + denominator - 1n) / denominator
  if (format === 'BinarySI' && nano > binaryMax) nano = binaryMax
  return {
    nano: negative ? -nano : nano,
    format: format === 'BinarySI' && nano > 0n && nano < giga ? 'DecimalSI' : format,
  }
}

function suffixOf(suffix: string, text: string): { format: Quantity['format']; exponent: number } {
  const decimal = decimalExponents[suffix]
  if (decimal !== undefined) return { format: 'DecimalSI', exponent: decimal }
  const binary = binaryExponents[suffix]
  if (binary !== undefined) return { format: 'BinarySI', exponent: binary }
  const match = /^[eE]([-+]?[0-9]{1,3})$/.exec(suffix)
  if (match?.[1] === undefined) throw new QuantityError("unable to parse quantity's suffix", text)
  return { format: 'DecimalExponent', exponent: Number(match[1]) }
}

/** Canonical form: no fraction, the largest suffix that keeps it exact. */
function formatQuantity({ nano, format }: Quantity): string {
  if (nano === 0n) return '0'
  const size = nano < 0n ? -nano : nano
  const sign = nano < 0n ? '-' : ''
  if (format === 'BinarySI' && size >= 1024n * giga && size % giga === 0n) {
    let value = size / giga
    let step = 0
    while (value % 1024n === 0n && step < binarySuffixes.length - 1) {
      value /= 1024n
      step++
    }
    return `${sign}${value}${binarySuffixes[step]}`
  }
  let value = size
  let exponent = -9
  while (value % 1000n === 0n && (exponent < 18 || format === 'DecimalExponent')) {
    value /= 1000n
    exponent += 3
  }
  if (format === 'DecimalExponent') return exponent === 0 ? `${sign}${value}` : `${sign}${value}e${exponent}`
  return `${sign}${value}${decimalSuffixes[exponent] ?? ''}`
}

/** `0.5` -> `500m`, `1024Mi` -> `1Gi`. Throws `QuantityError`. */
export function canonicalQuantity(text: string | number): string {
  return formatQuantity(parseQuantity(text))
}

export function compareQuantity(a: Quantity, b: Quantity): -1 | 0 | 1 {
  return a.nano < b.nano ? -1 : a.nano > b.nano ? 1 : 0
}

/** Rounded up to whole units, as upstream's `Value()`. */
export function quantityValue({ nano }: Quantity): bigint {
  return ceilingDivide(nano, giga)
}

/** Rounded up to thousandths, as upstream's `MilliValue()`: CPU. */
export function quantityMilli({ nano }: Quantity): bigint {
  return ceilingDivide(nano, 1_000_000n)
}

/** Away from zero, in both directions, as upstream rounds. */
function ceilingDivide(value: bigint, by: bigint): bigint {
  return value >= 0n ? (value + by - 1n) / by : -((-value + by - 1n) / by)
}
