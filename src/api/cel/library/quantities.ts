import {
  compareQuantity,
  decimalExponents,
  parseQuantity,
  type Quantity,
  QuantityError,
  tryParseQuantity,
} from '#api/meta/quantity.ts'
import { type Overload, overload } from '../functions.ts'
import { EvaluationError, type Opaque } from '../values.ts'
import { overText } from './standard.ts'

const giga = 1_000_000_000n

class QuantityValue implements Opaque {
  readonly typeName = 'kubernetes.Quantity'
  readonly quantity: Quantity
  /** Upstream takes `1.0`, and what has more digits than it counts fast with, for no integer. */
  readonly isPlain: boolean
  constructor(quantity: Quantity, isPlain = true) {
    this.quantity = quantity
    this.isPlain = isPlain
  }
  equals(other: Opaque): boolean {
    return other instanceof QuantityValue && compareQuantity(this.quantity, other.quantity) === 0
  }
}

function quantityOf(text: string): QuantityValue {
  try {
    return new QuantityValue(parseQuantity(text), isPlainInteger(text))
  } catch (error) {
    if (error instanceof QuantityError) throw new EvaluationError(error.message, { cause: error })
    throw error
  }
}

function isPlainInteger(text: string): boolean {
  const [, whole = '', fraction = '', suffix = ''] = /^[+-]?(\d*)\.?(\d*)(.*)$/.exec(text) ?? []
  if (whole.length + fraction.length > 18) return false
  if (suffix.endsWith('i')) return fraction === '' && suffix !== 'Ei'
  const power = /^[eE]([+-]?\d+)$/.exec(suffix)?.[1]
  return (power === undefined ? (decimalExponents[suffix] ?? 0) : Number(power)) >= fraction.length
}

const isInteger = ({ quantity: { nano }, isPlain }: QuantityValue): boolean =>
  isPlain && nano % giga === 0n && nano / giga <= 2n ** 63n - 1n && nano / giga >= -(2n ** 63n)
const plus = ({ quantity }: QuantityValue, nano: bigint): QuantityValue =>
  new QuantityValue({ ...quantity, nano: quantity.nano + nano })

/** Kubernetes' quantity functions. */
export const quantities: readonly Overload[] = [
  overload('quantity(string): kubernetes.Quantity', quantityOf, overText()),
  overload('isQuantity(string): bool', (text: string) => tryParseQuantity(text) !== undefined, overText()),
  overload('sign(kubernetes.Quantity): int', ({ quantity: { nano } }: QuantityValue) =>
    nano > 0n ? 1n : nano < 0n ? -1n : 0n,
  ),
  overload('kubernetes.Quantity.isInteger(): bool', isInteger),
  overload('kubernetes.Quantity.asInteger(): int', (value: QuantityValue) => {
    if (!isInteger(value)) throw new EvaluationError('cannot convert value to integer')
    return value.quantity.nano / giga
  }),
  overload(
    'kubernetes.Quantity.asApproximateFloat(): double',
    ({ quantity: { nano } }: QuantityValue) => Number(nano / giga) + Number(nano % giga) / 1e9,
  ),
  overload(
    'kubernetes.Quantity.isGreaterThan(kubernetes.Quantity): bool',
    (a: QuantityValue, b: QuantityValue) => compareQuantity(a.quantity, b.quantity) > 0,
  ),
  overload(
    'kubernetes.Quantity.isLessThan(kubernetes.Quantity): bool',
    (a: QuantityValue, b: QuantityValue) => compareQuantity(a.quantity, b.quantity) < 0,
  ),
  overload('kubernetes.Quantity.compareTo(kubernetes.Quantity): int', (a: QuantityValue, b: QuantityValue) =>
    BigInt(compareQuantity(a.quantity, b.quantity)),
  ),
  overload('kubernetes.Quantity.add(kubernetes.Quantity): kubernetes.Quantity', (a: QuantityValue, b: QuantityValue) =>
    plus(a, b.quantity.nano),
  ),
  overload('kubernetes.Quantity.add(int): kubernetes.Quantity', (a: QuantityValue, b: bigint) => plus(a, b * giga)),
  overload('kubernetes.Quantity.sub(kubernetes.Quantity): kubernetes.Quantity', (a: QuantityValue, b: QuantityValue) =>
    plus(a, -b.quantity.nano),
  ),
  overload('kubernetes.Quantity.sub(int): kubernetes.Quantity', (a: QuantityValue, b: bigint) => plus(a, -b * giga)),
]
