import type { IngressClass } from '../gen/networking-v1.ts'
import { ingressClasses } from '../gen/resources.ts'
import { ageColumn, column, nameColumn } from '../meta/columns.ts'
import { defineKind } from '../meta/define.ts'
import { dns1123Label, dns1123Subdomain } from '../meta/names.ts'
import { immutable } from '../meta/object-meta.ts'
import { type FieldError, fieldError } from '../meta/status.ts'

const controllerMax = 250
const scopes = ['Cluster', 'Namespace']

function validateClass({ spec }: IngressClass): FieldError[] {
  const errors: FieldError[] = []
  const { controller = '', parameters } = spec
  if (controller.length > controllerMax) errors.push(fieldError.tooLong('spec.controller', controllerMax))
  const [domain = '', ...path] = controller.split('/')
  if (controller !== '') {
    if (path.length === 0 || path.join('/') === '')
      errors.push(
        fieldError.invalid('spec.controller', controller, 'must be a domain-prefixed path (such as "acme.io/foo")'),
      )
    else for (const words of dns1123Subdomain(domain)) errors.push(fieldError.invalid('spec.controller', domain, words))
  }
  if (parameters === undefined) return errors
  const { apiGroup, kind, name, scope, namespace } = parameters
  const at = 'spec.parameters'
  if (apiGroup !== undefined)
    for (const words of dns1123Subdomain(apiGroup)) errors.push(fieldError.invalid(`${at}.apiGroup`, apiGroup, words))
  if (!kind) errors.push(fieldError.required(`${at}.kind`, 'kind is required'))
  if (!name) errors.push(fieldError.required(`${at}.name`, 'name is required'))
  if (scope === undefined) errors.push(fieldError.required(`${at}.scope`))
  else if (!scopes.includes(scope)) errors.push(fieldError.notSupported(`${at}.scope`, scope, scopes))
  if (scope === 'Namespace') {
    if (!namespace) errors.push(fieldError.required(`${at}.namespace`, "`parameters.scope` is set to 'Namespace'"))
    else
      for (const words of dns1123Label(namespace)) errors.push(fieldError.invalid(`${at}.namespace`, namespace, words))
  }
  if (scope === 'Cluster' && namespace !== undefined)
    errors.push(fieldError.forbidden(`${at}.namespace`, "`parameters.scope` is set to 'Cluster'"))
  return errors
}

export const ingressClass = defineKind<IngressClass>({
  resource: ingressClasses,
  message: 'networking/v1.IngressClass',
  description: 'Who serves the Ingresses that name it.',
  hasGeneration: true,
  defaults({ spec }) {
    if (spec.parameters !== undefined) spec.parameters.scope ??= 'Cluster'
  },
  validate: validateClass,
  validateUpdate: (next, old) => [
    ...validateClass(next),
    ...immutable(next.spec.controller, old.spec.controller, 'spec.controller'),
  ],
  columns: [
    nameColumn,
    column('Controller', 'Who serves it.', ({ spec }) => spec.controller ?? ''),
    column('Parameters', 'What its controller is told.', ({ spec: { parameters } }) => {
      if (parameters === undefined) return '<none>'
      const { apiGroup, kind, name } = parameters
      return apiGroup === undefined ? `${kind}/${name}` : `${kind}.${apiGroup}/${name}`
    }),
    ageColumn,
  ],
})
