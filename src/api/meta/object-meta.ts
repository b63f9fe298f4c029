import type { ObjectMeta, OwnerReference } from '../gen/meta-v1.ts'
import { foregroundFinalizer, orphanFinalizer } from './finalizers.ts'
import { parseApiVersion } from './gvk.ts'
import { validateLabels } from './labels.ts'
import { dns1123Label, immutableError, type NameCheck, nonNegativeError, qualifiedName } from './names.ts'
import { sameJson } from './patch/json.ts'
import type { KubeObject } from './resource.ts'
import { type FieldError, fieldError } from './status.ts'

/** Annotations together, keys and values: 256 KiB. */
const annotationBytesMax = 256 * 1024

/** What holds for metadata of every kind (facts: apimachinery api/validation/objectmeta.go). */
export function validateObjectMeta(
  object: KubeObject,
  namespaced: boolean,
  nameCheck: NameCheck,
  path = 'metadata',
): FieldError[] {
  const meta: Partial<ObjectMeta> = object.metadata
  const errors: FieldError[] = []
  if (meta.generateName) {
    for (const words of nameCheck(meta.generateName, true)) {
      errors.push(fieldError.invalid(`${path}.generateName`, meta.generateName, words))
    }
  }
  if (!meta.name) errors.push(fieldError.required(`${path}.name`, 'name or generateName is required'))
  else {
    for (const words of nameCheck(meta.name, false)) errors.push(fieldError.invalid(`${path}.name`, meta.name, words))
  }
  if (namespaced) {
    if (!meta.namespace) errors.push(fieldError.required(`${path}.namespace`))
    else {
      for (const words of dns1123Label(meta.namespace)) {
        errors.push(fieldError.invalid(`${path}.namespace`, meta.namespace, words))
      }
    }
  } else if (meta.namespace) errors.push(fieldError.forbidden(`${path}.namespace`, 'not allowed on this type'))
  if ((meta.generation ?? 0) < 0) {
    errors.push(fieldError.invalid(`${path}.generation`, meta.generation, nonNegativeError))
  }
  validateCommon(meta, path, errors)
  if (meta.finalizers) validateFinalizers(meta.finalizers, `${path}.finalizers`, errors)
  return errors
}

export function validateObjectMetaUpdate(next: KubeObject, old: KubeObject, path = 'metadata'): FieldError[] {
  const meta: Partial<ObjectMeta> = next.metadata
  const before: Partial<ObjectMeta> = old.metadata
  const errors: FieldError[] = []
  if (before.deletionTimestamp !== undefined) {
    const known = new Set(before.finalizers)
    const added = (meta.finalizers ?? []).filter((finalizer) => !known.has(finalizer)).sort()
    if (added.length > 0) {
      errors.push(
        fieldError.forbidden(
          `${path}.finalizers`,
          `no new finalizers can be added if the object is being deleted, found new finalizers []string{${added.map((f) => JSON.stringify(f)).join(', ')}}`,
        ),
      )
    }
  }
  if (!meta.resourceVersion) {
    errors.push(fieldError.invalid(`${path}.resourceVersion`, '', 'must be specified for an update'))
  }
  if ((meta.generation ?? 0) < (before.generation ?? 0)) {
    errors.push(fieldError.invalid(`${path}.generation`, meta.generation ?? 0, 'must not be decremented'))
  }
  for (const field of immutableMeta) {
    if ((meta[field] ?? '') !== (before[field] ?? '')) {
      errors.push(fieldError.invalid(`${path}.${field}`, meta[field] ?? '', immutableError))
    }
  }
  validateCommon(meta, path, errors)
  return errors
}

const immutableMeta = [
  'name',
  'namespace',
  'uid',
  'creationTimestamp',
  'deletionTimestamp',
  'deletionGracePeriodSeconds',
] as const

function validateCommon(meta: Partial<ObjectMeta>, path: string, errors: FieldError[]): void {
  if (meta.labels) errors.push(...validateLabels(meta.labels, `${path}.labels`))
  if (meta.annotations) validateAnnotations(meta.annotations, `${path}.annotations`, errors)
  if (meta.ownerReferences) validateOwners(meta.ownerReferences, `${path}.ownerReferences`, errors)
  for (const [i, entry] of (meta.managedFields ?? []).entries()) {
    const at = `${path}.managedFields[${i}]`
    if (entry.operation !== 'Apply' && entry.operation !== 'Update') {
      errors.push(fieldError.invalid(`${at}.operation`, entry.operation ?? '', 'must be `Apply` or `Update`'))
    }
    if (entry.fieldsType !== undefined && entry.fieldsType !== '' && entry.fieldsType !== 'FieldsV1') {
      errors.push(fieldError.invalid(`${at}.fieldsType`, entry.fieldsType, 'must be `FieldsV1`'))
    }
  }
}

/** Keys are checked in lower case: annotations may be written in any. */
export function validateAnnotations(
  annotations: Readonly<Record<string, string>>,
  path: string,
  errors: FieldError[],
): void {
  let size = 0
  for (const key in annotations) {
    const value = annotations[key] ?? ''
    for (const words of qualifiedName(key.toLowerCase())) errors.push(fieldError.invalid(path, key, words))
    size += key.length + value.length
  }
  // Characters are at most three bytes: only a large map needs counting exactly.
  if (size * 3 <= annotationBytesMax) return
  size = 0
  for (const key in annotations) size += Buffer.byteLength(key) + Buffer.byteLength(annotations[key] ?? '')
  if (size > annotationBytesMax) errors.push(fieldError.tooLong(path, annotationBytesMax))
}

function validateOwners(owners: readonly OwnerReference[], path: string, errors: FieldError[]): void {
  let controller: string | undefined
  for (const owner of owners) {
    const version = parseApiVersion(owner.apiVersion ?? '')?.version ?? ''
    if (version === '') {
      errors.push(fieldError.invalid(`${path}.apiVersion`, owner.apiVersion ?? '', 'version must not be empty'))
    }
    for (const field of ['kind', 'name', 'uid'] as const) {
      if (!owner[field]) errors.push(fieldError.invalid(`${path}.${field}`, owner[field] ?? '', 'must not be empty'))
    }
    if (owner.apiVersion === 'v1' && owner.kind === 'Event') {
      errors.push(fieldError.invalid(path, owner, '/v1, Kind=Event is disallowed from being an owner'))
    }
    if (owner.controller !== true) continue
    const name = `${owner.kind}/${owner.name}`
    if (controller === undefined) controller = name
    else {
      errors.push(
        fieldError.invalid(
          path,
          owners,
          `Only one reference can have Controller set to true. Found "true" in references for ${controller} and ${name}`,
        ),
      )
    }
  }
}

function validateFinalizers(finalizers: readonly string[], path: string, errors: FieldError[]): void {
  for (const finalizer of finalizers) {
    for (const words of qualifiedName(finalizer)) errors.push(fieldError.invalid(path, finalizer, words))
  }
  if (finalizers.includes(orphanFinalizer) && finalizers.includes(foregroundFinalizer)) {
    errors.push(fieldError.invalid(path, finalizers, 'finalizer orphan and foregroundDeletion cannot be both set'))
  }
}

/** The complaint of an immutable field, where it was changed. Absent and empty are not told apart. */
export function immutable(next: unknown, old: unknown, path: string): FieldError[] {
  return sameJson(next ?? null, old ?? null) ? [] : [fieldError.invalid(path, next ?? null, immutableError)]
}
