import type { ControllerRevision } from '../gen/apps-v1.ts'
import { controllerRevisions } from '../gen/resources.ts'
import { ageColumn, column, nameColumn } from '../meta/columns.ts'
import { defineKind } from '../meta/define.ts'
import { groupOf } from '../meta/gvk.ts'
import { immutable } from '../meta/object-meta.ts'
import { controllerOf } from '../meta/owner.ts'
import { type FieldError, fieldError } from '../meta/status.ts'
import { nonNegative } from './template.ts'

function validateRevision({ revision, data }: ControllerRevision): FieldError[] {
  const errors: FieldError[] = []
  nonNegative(revision, 'revision', errors)
  if (data === undefined || data === null) errors.push(fieldError.required('data', 'data is mandatory'))
  return errors
}

function controllerText(object: ControllerRevision): string {
  const owner = controllerOf(object)
  if (owner === undefined) return '<none>'
  const group = groupOf(owner.apiVersion)
  const kind = owner.kind.toLowerCase()
  return group === '' ? `${kind}/${owner.name}` : `${kind}.${group}/${owner.name}`
}

export const controllerRevision = defineKind<ControllerRevision>({
  resource: controllerRevisions,
  message: 'apps/v1.ControllerRevision',
  description: 'A template as it once was, to go back to.',
  validate: validateRevision,
  validateUpdate: (next, old) => [...validateRevision(next), ...immutable(next.data, old.data, 'data')],
  columns: [
    nameColumn,
    column('Controller', 'Whose history it is.', controllerText),
    column('Revision', 'Its number; higher is newer.', ({ revision }) => revision, 'string'),
    ageColumn,
  ],
})
