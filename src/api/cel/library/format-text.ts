import { Duration, EvaluationError, getKey, keysOf, kindOf, Timestamp, TypeValue, toText, Uint } from '../values.ts'

/** `"%s of %d".format([x, n])` (cel-go ext: strings.format). */
export function formatText(template: string, args: readonly unknown[]): string {
  let next = 0
  const text = template.replace(
    /%(?:%|(?:\.(\d+))?([a-zA-Z]))|%/g,
    (whole, precision: string | undefined, verb: string | undefined) => {
      if (whole === '%%') return '%'
      if (verb === undefined) throw new EvaluationError('could not parse formatting clause: unexpected end of string')
      if (next >= args.length) throw new EvaluationError(`index ${next} out of range`)
      return formatOne(verb, args[next++], precision === undefined ? 6 : Number(precision))
    },
  )
  return text
}

function formatOne(verb: string, value: unknown, digits: number): string {
  switch (verb) {
    case 's':
      return formatAny(value)
    case 'd':
      if (typeof value === 'bigint') return String(value)
      if (value instanceof Uint) return String(value.value)
      if (typeof value === 'number' && !Number.isFinite(value)) return formatAny(value)
      throw wrong('decimal', 'integers', value)
    case 'f':
      return fractional(value, 'fixed-point', (n) => fixedPoint(n, digits))
    case 'e':
      return fractional(value, 'scientific', (n) => scientific(n, digits))
    case 'b':
      if (typeof value === 'boolean') return value ? '1' : '0'
      return wholeText(value, 2, 'binary', 'integers and bools')
    case 'o':
      return wholeText(value, 8, 'octal', 'integers')
    case 'x':
    case 'X': {
      const text =
        typeof value === 'string' || value instanceof Uint8Array
          ? Buffer.from(value as string).toString('hex')
          : wholeText(value, 16, 'hex', 'integers, byte buffers, and strings')
      return verb === 'X' ? text.toUpperCase() : text
    }
    default:
      throw new EvaluationError(`could not parse formatting clause: unrecognized formatting clause "${verb}"`)
  }
}

const wrong = (clause: string, allowed: string, value: unknown): EvaluationError =>
  new EvaluationError(
    `error during formatting: ${clause} clause can only be used on ${allowed}, was given ${kindOf(value)}`,
  )

function fractional(value: unknown, clause: string, format: (n: number) => string): string {
  if (typeof value !== 'number') throw wrong(clause, 'doubles', value)
  return Number.isFinite(value) ? format(value) : formatAny(value)
}

/** With commas at the thousands; halves go to the even side. */
function fixedPoint(value: number, digits: number): string {
  const scaled = Math.abs(value) * 10 ** digits
  const isHalf = scaled < Number.MAX_SAFE_INTEGER && scaled % 1 === 0.5
  const rounded = isHalf ? (2 * Math.round(scaled / 2)) / 10 ** digits : Math.abs(value)
  const isHuge = rounded >= 2 ** 53
  const text = isHuge ? `${BigInt(rounded)}${digits > 0 ? `.${'0'.repeat(digits)}` : ''}` : rounded.toFixed(digits)
  const [whole = '', fraction] = text.split('.')
  const grouped = whole.replace(/\B(?=(\d{3})+$)/g, ',')
  return `${value < 0 ? '-' : ''}${grouped}${fraction === undefined ? '' : `.${fraction}`}`
}

const superscripts = '⁰¹²³⁴⁵⁶⁷⁸⁹'
/** `1.500000×10⁰⁰` */
function scientific(value: number, digits: number): string {
  const [mantissa = '', exponent = '0'] = value.toExponential(digits).split('e')
  const power = Math.abs(Number(exponent)).toString().padStart(2, '0')
  const raised = [...power].map((digit) => superscripts[Number(digit)]).join('')
  return `${mantissa}×10${exponent.startsWith('-') ? '⁻' : ''}${raised}`
}

function wholeText(value: unknown, radix: number, clause: string, allowed: string): string {
  if (typeof value === 'bigint') return value.toString(radix)
  if (value instanceof Uint) return value.value.toString(radix)
  throw wrong(clause, allowed, value)
}

function formatAny(value: unknown): string {
  if (value === null) return 'null'
  if (typeof value === 'number' && !Number.isFinite(value))
    return Number.isNaN(value) ? 'NaN' : value > 0 ? 'Infinity' : '-Infinity'
  if (Array.isArray(value)) return `[${value.map(formatInner).join(', ')}]`
  if (value instanceof TypeValue) return value.name
  if (value instanceof Duration || value instanceof Timestamp || kindOf(value) !== 'map') return toText(value)
  const pairs = keysOf(value).map((key) => [formatInner(key), formatInner(getKey(value, key))] as const)
  const sorted = pairs.toSorted(([a], [b]) => (a < b ? -1 : 1))
  return `{${sorted.map(([key, inner]) => `${key}:${inner}`).join(', ')}}`
}

/** Within a list or map, texts are quoted. */
const formatInner = (value: unknown): string => (typeof value === 'string' ? JSON.stringify(value) : formatAny(value))
