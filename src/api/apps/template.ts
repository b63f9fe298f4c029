import { validateTemplate } from '../core/pod/validate.ts'
import type { PodTemplateSpec } from '../gen/core-v1.ts'
import type { LabelSelector } from '../gen/meta-v1.ts'
import { isEmptySelector, validateLabelSelector } from '../meta/labels.ts'
import { nonNegativeError } from '../meta/names.ts'
import { SelectorError, selectorFrom } from '../meta/selector.ts'
import { type FieldError, fieldError } from '../meta/status.ts'

/** What workloads share: a selector, and a template whose pods it must find. */

export function nonNegative(value: number | undefined, path: string, errors: FieldError[]): void {
  if (value !== undefined && value < 0) errors.push(fieldError.invalid(path, value, nonNegativeError))
}

/** `noun` is upstream's word for the kind in the complaint about an empty selector. */
export function validateSelectorAndTemplate(
  selector: LabelSelector | undefined,
  template: PodTemplateSpec | undefined,
  noun: 'deployment' | 'daemonset' | 'statefulset',
  errors: FieldError[],
): void {
  if (selector === undefined) {
    // A DaemonSet without one is told that it does not match its own pods.
    if (noun !== 'daemonset') errors.push(fieldError.required('spec.selector'))
  } else {
    errors.push(...validateLabelSelector(selector, 'spec.selector'))
    if (isEmptySelector(selector)) {
      errors.push(fieldError.invalid('spec.selector', selector, `empty selector is invalid for ${noun}`))
    }
  }
  if (template?.spec === undefined) {
    errors.push(fieldError.required('spec.template'))
    return
  }
  validateMatch(selector, template, noun, errors)
  validateTemplate(template, 'spec.template', errors)
  if (template.spec.restartPolicy !== 'Always') {
    errors.push(
      fieldError.notSupported('spec.template.spec.restartPolicy', template.spec.restartPolicy ?? '', ['Always']),
    )
  }
  if (template.spec.activeDeadlineSeconds !== undefined) {
    const kind = noun === 'daemonset' ? 'DaemonSet' : 'ReplicaSet'
    errors.push(
      fieldError.forbidden(
        'spec.template.spec.activeDeadlineSeconds',
        `activeDeadlineSeconds in ${kind} is not Supported`,
      ),
    )
  }
}

function validateMatch(
  selector: LabelSelector | undefined,
  template: PodTemplateSpec,
  noun: string,
  errors: FieldError[],
): void {
  try {
    const matcher = selectorFrom(selector)
    // An empty selector has its own complaint above.
    if (selector !== undefined && isEmptySelector(selector)) return
    if (!matcher.matches(template.metadata?.labels)) {
      errors.push(
        fieldError.invalid(
          'spec.template.metadata.labels',
          template.metadata?.labels ?? null,
          '`selector` does not match template `labels`',
        ),
      )
    }
  } catch (error) {
    if (!(error instanceof SelectorError)) throw error
    if (noun === 'daemonset') return
    errors.push(fieldError.invalid('spec.selector', selector, 'invalid label selector'))
  }
}
