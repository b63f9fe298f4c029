import type { LabelSelector } from '../gen/meta-v1.ts'
import { labelValue, qualifiedName } from './names.ts'
import { type FieldError, fieldError } from './status.ts'

export type Labels = Readonly<Record<string, string>>

/** Labels or annotations: the same keys with the same values. */
export function sameLabels(a: Labels, b: Labels): boolean {
  const keys = Object.keys(a)
  return keys.length === Object.keys(b).length && keys.every((key) => a[key] === b[key])
}

/** Keys and values of labels; both are reported at the map, as upstream does. */
export function validateLabels(labels: Labels | undefined, path: string): FieldError[] {
  const errors: FieldError[] = []
  for (const key in labels) {
    for (const words of qualifiedName(key)) errors.push(fieldError.invalid(path, key, words))
    const value = labels[key] ?? ''
    for (const words of labelValue(value)) errors.push(fieldError.invalid(path, value, words))
  }
  return errors
}

/** `allowInvalidValues`: for objects that were stored before values were checked. */
export function validateLabelSelector(
  selector: LabelSelector | undefined,
  path: string,
  { allowInvalidValues = false } = {},
): FieldError[] {
  if (selector === undefined) return []
  const errors = validateLabels(selector.matchLabels, `${path}.matchLabels`)
  for (const [i, { key, operator, values = [] }] of (selector.matchExpressions ?? []).entries()) {
    const at = `${path}.matchExpressions[${i}]`
    if (operator === 'In' || operator === 'NotIn') {
      if (values.length === 0) {
        errors.push(fieldError.required(`${at}.values`, "must be specified when `operator` is 'In' or 'NotIn'"))
      }
    } else if (operator === 'Exists' || operator === 'DoesNotExist') {
      if (values.length > 0) {
        errors.push(
          fieldError.forbidden(`${at}.values`, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"),
        )
      }
    } else errors.push(fieldError.invalid(`${at}.operator`, operator ?? '', 'not a valid selector operator'))
    for (const words of qualifiedName(key ?? '')) errors.push(fieldError.invalid(`${at}.key`, key ?? '', words))
    if (allowInvalidValues) continue
    for (const [j, value] of values.entries()) {
      for (const words of labelValue(value)) errors.push(fieldError.invalid(`${at}.values[${j}]`, value, words))
    }
  }
  return errors
}

export function isEmptySelector(selector: LabelSelector): boolean {
  return Object.keys(selector.matchLabels ?? {}).length + (selector.matchExpressions ?? []).length === 0
}
