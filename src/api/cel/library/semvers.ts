import { type Overload, overload } from '../functions.ts'
import { EvaluationError, type Opaque } from '../values.ts'
import { overText } from './standard.ts'

class Semver implements Opaque {
  readonly typeName = 'kubernetes.Semver'
  readonly numbers: readonly bigint[]
  readonly candidate: readonly string[]
  readonly text: string
  constructor(text: string, numbers: readonly bigint[], candidate: readonly string[]) {
    this.text = text
    this.numbers = numbers
    this.candidate = candidate
  }
  equals(other: Opaque): boolean {
    return other instanceof Semver && compareVersions(this, other) === 0
  }
}

const number = '(0|[1-9]\\d*)'
const identifiers = '((?:0|[1-9]\\d*|\\d*[A-Za-z-][0-9A-Za-z-]*)(?:\\.(?:0|[1-9]\\d*|\\d*[A-Za-z-][0-9A-Za-z-]*))*)'
const strict = new RegExp(
  `^${number}\\.${number}\\.${number}(?:-${identifiers})?(?:\\+[0-9A-Za-z-]+(?:\\.[0-9A-Za-z-]+)*)?$`,
)

/** Version 2.0.0 of semver.org. Normalizing takes away a `v` and leading zeros, and fills up what is short. */
function parse(text: string, isNormalizing: boolean): Semver | undefined {
  const found = strict.exec(isNormalizing ? normalized(text) : text)
  if (found === null) return undefined
  const numbers = found.slice(1, 4).map(BigInt)
  return numbers.some((n) => n >= 2n ** 64n) ? undefined : new Semver(text, numbers, found[4]?.split('.') ?? [])
}

function normalized(text: string): string {
  const [, body = '', rest = ''] = /^v?([^-+]*)(.*)$/s.exec(text) ?? []
  const parts = body.split('.').map((part) => (/^0+\d/.test(part) ? part.replace(/^0+(?=\d)/, '') : part))
  while (parts.length < 3) parts.push('0')
  return parts.join('.') + rest
}

function semverOf(text: string, isNormalizing = false): Semver {
  const version = parse(text, isNormalizing)
  if (version === undefined)
    throw new EvaluationError(
      text.split('.').length < 3
        ? 'No Major.Minor.Patch elements found'
        : `${JSON.stringify(text)} is not a semantic version`,
    )
  return version
}

function compareVersions(a: Semver, b: Semver): number {
  for (const [i, value] of a.numbers.entries()) {
    const other = b.numbers[i] ?? 0n
    if (value !== other) return value < other ? -1 : 1
  }
  if (a.candidate.length === 0 || b.candidate.length === 0)
    return Math.sign(Number(a.candidate.length === 0) - Number(b.candidate.length === 0))
  for (const [i, part] of a.candidate.entries()) {
    const other = b.candidate[i]
    if (other === undefined) return 1
    const order = compareIdentifiers(part, other)
    if (order !== 0) return order
  }
  return a.candidate.length < b.candidate.length ? -1 : 0
}

/** Numbers come before words, and by value. */
function compareIdentifiers(a: string, b: string): number {
  const [isNumber, isOtherNumber] = [/^\d+$/.test(a), /^\d+$/.test(b)]
  if (isNumber !== isOtherNumber) return isNumber ? -1 : 1
  const [x, y] = isNumber ? [BigInt(a), BigInt(b)] : [a, b]
  return x < y ? -1 : x > y ? 1 : 0
}

/** Kubernetes' functions on semantic versions. */
export const semvers: readonly Overload[] = [
  overload('semver(string): kubernetes.Semver', (text: string) => semverOf(text), overText()),
  overload('semver(string, bool): kubernetes.Semver', semverOf, overText()),
  overload('isSemver(string): bool', (text: string) => parse(text, false) !== undefined, overText()),
  overload(
    'isSemver(string, bool): bool',
    (text: string, isNormalizing: boolean) => parse(text, isNormalizing) !== undefined,
    overText(),
  ),
  overload(
    'kubernetes.Semver.isGreaterThan(kubernetes.Semver): bool',
    (a: Semver, b: Semver) => compareVersions(a, b) > 0,
  ),
  overload(
    'kubernetes.Semver.isLessThan(kubernetes.Semver): bool',
    (a: Semver, b: Semver) => compareVersions(a, b) < 0,
  ),
  overload('kubernetes.Semver.compareTo(kubernetes.Semver): int', (a: Semver, b: Semver) =>
    BigInt(compareVersions(a, b)),
  ),
  overload('kubernetes.Semver.major(): int', (version: Semver) => version.numbers[0]),
  overload('kubernetes.Semver.minor(): int', (version: Semver) => version.numbers[1]),
  overload('kubernetes.Semver.patch(): int', (version: Semver) => version.numbers[2]),
]
