/**
 * Quantities (`500m`, `1Gi`) in the one form that the API writes them: no fraction, the largest suffix that loses
 * nothing, and the family of suffixes (decimal, binary, exponent) that the text came with.
 */
export class QuantityError extends Error {}

const decimalSuffix: Readonly<Record<string, number>> = {
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
const suffixOfExponent = new Map(Object.entries(decimalSuffix).map(([suffix, exponent]) => [exponent, suffix]))
const binarySuffixes = ['', 'Ki', 'Mi', 'Gi', 'Ti', 'Pi', 'Ei']
const usual = /^[1-9]\d{0,2}(?:[mkMGT]|[KMGT]i)?$/
const shape = /^([+-]?)(\d*)(?:\.(\d*))?([a-zA-Z]*)([+-]?\d*)$/
/** Enough for any real object; a hostile one only empties it. */
const cacheMax = 4096
const cache = new Map<string, string>()

/** Throws QuantityError in upstream's words. */
export function canonicalQuantity(text: string): string {
  if (usual.test(text)) return text
  const known = cache.get(text)
  if (known !== undefined) return known
  const canonical = canonicalize(text)
  if (cache.size >= cacheMax) cache.clear()
  if (text.length < 64) cache.set(text, canonical)
  return canonical
}

function canonicalize(text: string): string {
  const match = text.length <= 256 ? shape.exec(text) : null
  const [, sign = '', whole = '', fraction = '', letters = '', power = ''] = match ?? []
  if (match === null || whole + fraction === '') {
    throw new QuantityError(
      "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
    )
  }
  const digits = BigInt(whole + fraction)
  const isExponent = (letters === 'e' || letters === 'E') && power !== '' && /\d/.test(power)
  const binary = binarySuffixes.indexOf(letters)
  if (!isExponent && (power !== '' || (decimalSuffix[letters] === undefined && binary < 1)))
    throw new QuantityError("unable to parse quantity's suffix")
  const exponent = isExponent ? Number(power) : (decimalSuffix[letters] ?? 0)
  if (Math.abs(exponent) > 100) throw new QuantityError("unable to parse quantity's suffix")
  // In thousand-millionths, rounded away from zero as upstream does.
  const scale = exponent + 9 - fraction.length
  const scaled = digits * (binary > 0 ? 1024n ** BigInt(binary) : 1n)
  const nanos = scale >= 0 ? scaled * 10n ** BigInt(scale) : ceilDivide(scaled, 10n ** BigInt(-scale))
  if (nanos === 0n) return '0'
  const minus = sign === '-' ? '-' : ''
  if (binary > 0 && nanos >= 1024n * 1_000_000_000n && nanos % 1_000_000_000n === 0n)
    return minus + binaryText(nanos / 1_000_000_000n)
  return minus + decimalText(nanos, isExponent)
}

function binaryText(value: bigint): string {
  let power = 0
  let rest = value
  while (rest % 1024n === 0n && power < 6) {
    rest /= 1024n
    power++
  }
  return `${rest}${binarySuffixes[power]}`
}

function decimalText(nanos: bigint, isExponent: boolean): string {
  let exponent = -9
  let rest = nanos
  while (rest % 1000n === 0n && (exponent < 18 || isExponent)) {
    rest /= 1000n
    exponent += 3
  }
  if (isExponent) return exponent === 0 ? `${rest}` : `${rest}e${exponent}`
  return `${rest}${suffixOfExponent.get(exponent)}`
}

const ceilDivide = (value: bigint, by: bigint): bigint => (value + by - 1n) / by
