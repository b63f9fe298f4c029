import type { Container, Pod, PodSpec, Toleration } from '../../gen/core-v1.ts'
import { sameJson } from '../../meta/patch/json.ts'
import { type FieldError, fieldError } from '../../meta/status.ts'
import { validatePodOnly, validatePodSpec } from './validate.ts'

/** A pod is made once: images, deadline, gates and a few additions are all that may change. */

const words =
  'pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)'

export function validatePodUpdate(next: Pod, old: Pod): FieldError[] {
  if (sameJson(next.spec, old.spec)) return []
  const errors: FieldError[] = []
  validatePodSpec(next.spec, 'spec', errors)
  validatePodOnly(next.spec, errors)
  for (const list of ['containers', 'initContainers'] as const) {
    if ((next.spec[list] ?? []).length !== (old.spec[list] ?? []).length) {
      errors.push(fieldError.forbidden(`spec.${list}`, 'pod updates may not add or remove containers'))
      return errors
    }
  }
  validateDeadline(next.spec, old.spec, errors)
  validateTolerationsKept(next.spec.tolerations ?? [], old.spec.tolerations ?? [], errors)
  validateGatesOnlyRemoved(next.spec, old.spec, errors)
  validateNarrowed(next.spec, old.spec, errors)
  if (errors.length > 0) return errors
  const changed = changedFields(munged(next.spec, old), old.spec)
  if (changed.length > 0) errors.push(fieldError.forbidden('spec', `${words}\n${changed.join('\n')}\n`))
  return errors
}

function validateDeadline(next: PodSpec, old: PodSpec, errors: FieldError[]): void {
  const path = 'spec.activeDeadlineSeconds'
  const before = old.activeDeadlineSeconds
  const after = next.activeDeadlineSeconds
  if (after === undefined) {
    if (before !== undefined) {
      errors.push(fieldError.invalid(path, null, 'must not update from a positive integer to nil value'))
    }
    return
  }
  if (after < 0 || after > 2 ** 31 - 1) {
    errors.push(fieldError.invalid(path, after, 'must be between 0 and 2147483647, inclusive'))
  } else if (before !== undefined && before < after) {
    errors.push(fieldError.invalid(path, after, 'must be less than or equal to previous value'))
  }
}

function validateTolerationsKept(next: readonly Toleration[], old: readonly Toleration[], errors: FieldError[]): void {
  for (const toleration of old) {
    const { tolerationSeconds: _, ...known } = toleration
    const kept = next.some(({ tolerationSeconds: __, ...candidate }) => sameJson(candidate, known))
    if (!kept) {
      errors.push(
        fieldError.forbidden(
          'spec.tolerations',
          'existing toleration can not be modified except its tolerationSeconds',
        ),
      )
      return
    }
  }
}

function validateGatesOnlyRemoved(next: PodSpec, old: PodSpec, errors: FieldError[]): void {
  const known = new Set((old.schedulingGates ?? []).map(({ name }) => name))
  for (const [i, { name }] of (next.schedulingGates ?? []).entries()) {
    if (!known.has(name)) {
      errors.push(
        fieldError.forbidden(
          `spec.schedulingGates[${i}].name`,
          `only deletion is allowed, but found new scheduling gate '${name}'`,
        ),
      )
    }
  }
}

/** A pod that is still held by gates may be narrowed down further, and only that. */
function validateNarrowed(next: PodSpec, old: PodSpec, errors: FieldError[]): void {
  if ((old.schedulingGates ?? []).length === 0) return
  const kept = Object.entries(old.nodeSelector ?? {}).every(([key, value]) => next.nodeSelector?.[key] === value)
  if (!kept) {
    errors.push(
      fieldError.invalid(
        'spec.nodeSelector',
        next.nodeSelector ?? null,
        'only additions to spec.nodeSelector are allowed (no mutations or deletions)',
      ),
    )
  }
}

/** `next` with what may change taken from the old pod: what still differs was not allowed. */
function munged(next: PodSpec, { spec: old }: Pod): PodSpec {
  const withOldImages = (list: readonly Container[] | undefined, before: readonly Container[] | undefined) =>
    list?.map((container, i) => {
      const image = before?.[i]?.image
      return image === undefined ? container : { ...container, image }
    })
  const copy: Record<string, unknown> = { ...next }
  copy.containers = withOldImages(next.containers, old.containers)
  copy.initContainers = withOldImages(next.initContainers, old.initContainers)
  copy.activeDeadlineSeconds = old.activeDeadlineSeconds
  copy.tolerations = old.tolerations
  copy.schedulingGates = old.schedulingGates
  if ((old.terminationGracePeriodSeconds ?? 0) < 0 && next.terminationGracePeriodSeconds === 1) {
    copy.terminationGracePeriodSeconds = old.terminationGracePeriodSeconds
  }
  if ((old.schedulingGates ?? []).length > 0) {
    copy.nodeSelector = old.nodeSelector
    if (old.affinity?.nodeAffinity === undefined) copy.affinity = withoutNodeAffinity(next, old)
  }
  return copy as unknown as PodSpec
}

function withoutNodeAffinity(next: PodSpec, old: PodSpec): unknown {
  const { nodeAffinity: _, ...rest } = next.affinity ?? {}
  return Object.keys(rest).length === 0 && old.affinity === undefined ? undefined : rest
}

function changedFields(next: PodSpec, old: PodSpec): string[] {
  const before = old as unknown as Record<string, unknown>
  const after = next as unknown as Record<string, unknown>
  return [...new Set([...Object.keys(before), ...Object.keys(after)])]
    .filter((key) => !sameJson(after[key], before[key]) && !(isEmpty(after[key]) && isEmpty(before[key])))
    .sort()
    .map((key) => `  spec.${key}: ${brief(before[key])} -> ${brief(after[key])}`)
}

const isEmpty = (value: unknown): boolean =>
  value === undefined || value === '' || value === false || (Array.isArray(value) && value.length === 0)

/** Long values say little in a message. */
function brief(value: unknown): string {
  const text = JSON.stringify(value) ?? 'nothing'
  return text.length <= 200 ? text : `${text.slice(0, 197)}...`
}
