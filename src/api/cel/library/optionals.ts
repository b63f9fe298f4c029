import { type Overload, overload } from '../functions.ts'
import { Duration, EvaluationError, Optional, sizeOf, Timestamp, Uint } from '../values.ts'

/** Whether a value is its type's zero: empty, 0, false, null. */
function isZero(value: unknown): boolean {
  if (value === null || value === false || value === 0 || value === 0n || value === '') return true
  if (value instanceof Uint) return value.value === 0n
  if (value instanceof Duration || value instanceof Timestamp) return value.nanos === 0n
  if (value instanceof Optional) return !value.hasValue
  return typeof value === 'object' && sizeOf(value) === 0
}

/** Optional values (cel-go: OptionalTypes); `optMap` and `optFlatMap` are macros. */
export const optionals: readonly Overload[] = [
  overload('optional.none(): optional<A>', () => Optional.none),
  overload('optional.of(A): optional<A>', (value: unknown) => Optional.of(value)),
  overload('optional.ofNonZeroValue(A): optional<A>', (value: unknown) =>
    isZero(value) ? Optional.none : Optional.of(value),
  ),
  overload('optional<A>.hasValue(): bool', (optional: Optional) => optional.hasValue),
  overload('optional<A>.value(): A', (optional: Optional) => {
    if (!optional.hasValue) throw new EvaluationError('optional.none() dereference')
    return optional.value
  }),
  overload('optional<A>.orValue(A): A', (optional: Optional, other: unknown) =>
    optional.hasValue ? optional.value : other,
  ),
  overload('optional<A>.or(optional<A>): optional<A>', (optional: Optional, other: Optional) =>
    optional.hasValue ? optional : other,
  ),
]
