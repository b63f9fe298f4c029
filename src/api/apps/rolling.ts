import { type IntOrString, parsePercent } from '../meta/intstr.ts'
import { nonNegativeError, regexError } from '../meta/names.ts'
import { type FieldError, fieldError } from '../meta/status.ts'

/** `maxSurge` and `maxUnavailable`: whole numbers or percentages. */
export function validateAmount(value: IntOrString | undefined, path: string, errors: FieldError[]): void {
  if (typeof value === 'number') {
    if (value < 0) errors.push(fieldError.invalid(path, value, nonNegativeError))
  } else if (value !== undefined && parsePercent(value) === undefined) {
    errors.push(
      fieldError.invalid(
        path,
        value,
        regexError("a valid percent string must be a numeric string followed by an ending '%'", '[0-9]+%', '1%', '93%'),
      ),
    )
  }
}

export function atMostAll(value: IntOrString | undefined, path: string, errors: FieldError[]): void {
  const percent = value === undefined ? undefined : parsePercent(value)
  if (percent !== undefined && percent > 100) {
    errors.push(fieldError.invalid(path, value, 'must not be greater than 100%'))
  }
}

/** Zero in either writing; what is neither counts as nothing, as upstream has it. */
export const isNothing = (value: IntOrString | undefined): boolean =>
  value === undefined || value === 0 || (typeof value === 'string' && (parsePercent(value) ?? 0) === 0)
