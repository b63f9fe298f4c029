import type { Binding } from '../gen/core-v1.ts'
import { defineKind } from '../meta/define.ts'
import type { Resource } from '../meta/resource.ts'
import { type FieldError, fieldError } from '../meta/status.ts'

export const bindings: Resource<Binding> = {
  group: '',
  version: 'v1',
  resource: 'bindings',
  kind: 'Binding',
  namespaced: true,
}

/** Written once per pod: it is an act, and nothing is stored. */
export const binding = defineKind<Binding>({
  resource: bindings,
  message: 'core/v1.Binding',
  description: 'Puts a pod on a node.',
  verbs: ['create'],
  validate({ target }) {
    const errors: FieldError[] = []
    if (target.kind && target.kind !== 'Node') {
      errors.push(fieldError.notSupported('target.kind', target.kind, ['Node', '<empty>']))
    }
    if (!target.name) errors.push(fieldError.required('target.name'))
    return errors
  },
})
