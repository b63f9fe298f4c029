import type { Namespace } from '../gen/core-v1.ts'
import { namespaces } from '../gen/resources.ts'
import { ageColumn, column, nameColumn } from '../meta/columns.ts'
import { defineKind, statusSubresource } from '../meta/define.ts'
import { contentFinalizer, orphanFinalizer } from '../meta/finalizers.ts'
import { nameIsDnsLabel, qualifiedName } from '../meta/names.ts'
import { type FieldError, fieldError } from '../meta/status.ts'

const nameLabel = 'kubernetes.io/metadata.name'
/** Held by the namespace controller until everything inside is gone. */
export const namespace = defineKind<Namespace>({
  resource: namespaces,
  message: 'core/v1.Namespace',
  description: 'A place for names: objects in it are deleted with it, and rights can be given for it.',
  shortNames: ['ns'],
  verbs: ['create', 'delete', 'get', 'list', 'patch', 'update', 'watch'],
  subresources: [{ name: 'finalize', verbs: ['update'] }, statusSubresource],
  nameCheck: nameIsDnsLabel,
  defaults(object) {
    object.spec ??= {}
    object.status ??= {}
    object.status.phase ??= 'Active'
    // Selectors of other kinds find a namespace by its name through this label.
    if (object.metadata.name) {
      object.metadata.labels ??= {}
      object.metadata.labels[nameLabel] = object.metadata.name
    }
  },
  prepareCreate(object) {
    object.status = { phase: 'Active' }
    const finalizers = object.spec.finalizers ?? []
    if (!finalizers.includes(contentFinalizer))
      object.spec = { ...object.spec, finalizers: [...finalizers, contentFinalizer] }
  },
  prepareUpdate(next, old) {
    // Only `/finalize` takes them away.
    const { finalizers } = old.spec
    next.spec = { ...next.spec }
    if (finalizers === undefined) delete next.spec.finalizers
    else next.spec.finalizers = finalizers
  },
  validate(object) {
    const errors: FieldError[] = []
    for (const name of object.spec.finalizers ?? []) {
      for (const words of qualifiedName(name)) errors.push(fieldError.invalid('spec.finalizers', name, words))
      if (!name.includes('/') && name !== contentFinalizer && name !== orphanFinalizer) {
        errors.push(
          fieldError.invalid(
            'spec.finalizers',
            name,
            'name is neither a standard finalizer name nor is it fully qualified',
          ),
        )
      }
    }
    return errors
  },
  columns: [
    nameColumn,
    column('Status', 'Active, or Terminating while it is emptied.', ({ status }) => status.phase ?? ''),
    ageColumn,
  ],
  selectableFields: { 'status.phase': ({ status }) => status.phase ?? '' },
})
