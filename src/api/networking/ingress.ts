import type { HTTPIngressPath, Ingress, IngressBackend, IngressRule, IngressTLS } from '../gen/networking-v1.ts'
import { ingresses } from '../gen/resources.ts'
import { ageColumn, column, nameColumn } from '../meta/columns.ts'
import { defineKind, statusSubresource } from '../meta/define.ts'
import { addressFamily } from '../meta/ip.ts'
import { dns1035Label, dns1123Subdomain, portName, portNumber, regexError } from '../meta/names.ts'
import { type FieldError, fieldError } from '../meta/status.ts'

const pathTypes = ['Exact', 'ImplementationSpecific', 'Prefix']
/** What a path of the strict types must not hold, as proxies disagree about what it means. */
const ambiguous = ['//', '/./', '/../', '%2f', '%2F']
const ambiguousEnds = ['/..', '/.']

/** `*.` and a subdomain (apimachinery: IsWildcardDNS1123Subdomain). */
function wildcardSubdomain(host: string): readonly string[] {
  if (/^\*\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/.test(host) && host.length <= 253)
    return []
  const words =
    "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character"
  const expression = '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*'
  return [regexError(words, expression, '*.example.com')]
}

function validateHost(host: string, path: string, errors: FieldError[]): void {
  const found = host.includes('*') ? wildcardSubdomain(host) : dns1123Subdomain(host)
  for (const words of found) errors.push(fieldError.invalid(path, host, words))
}

function validateBackend({ service, resource }: IngressBackend, path: string, errors: FieldError[]): void {
  if (service !== undefined && resource !== undefined) {
    errors.push(fieldError.invalid(path, '', 'cannot set both resource and service backends'))
  } else if (resource !== undefined) {
    if (resource.kind === '') errors.push(fieldError.required(`${path}.resource.kind`))
    if (resource.name === '') errors.push(fieldError.required(`${path}.resource.name`))
  } else if (service === undefined) {
    errors.push(fieldError.invalid(path, '', 'resource or service backend is required'))
  } else {
    if (service.name === undefined || service.name === '') errors.push(fieldError.required(`${path}.service.name`))
    else {
      for (const words of dns1035Label(service.name))
        errors.push(fieldError.invalid(`${path}.service.name`, service.name, words))
    }
    const { name = '', number = 0 } = service.port ?? {}
    if (name !== '' && number > 0) {
      errors.push(fieldError.invalid(path, '', 'cannot set both port name & port number'))
    } else if (name !== '') {
      for (const words of portName(name)) errors.push(fieldError.invalid(`${path}.service.port.name`, name, words))
    } else if (number > 0) {
      for (const words of portNumber(number))
        errors.push(fieldError.invalid(`${path}.service.port.number`, number, words))
    } else errors.push(fieldError.required(path, 'port name or number is required'))
  }
}

function validatePath(
  { path: text = '', pathType, backend }: HTTPIngressPath,
  path: string,
  errors: FieldError[],
): void {
  if (pathType === undefined) {
    errors.push(fieldError.required(`${path}.pathType`, 'pathType must be specified'))
    return
  }
  if (!pathTypes.includes(pathType)) errors.push(fieldError.notSupported(`${path}.pathType`, pathType, pathTypes))
  else if (pathType === 'ImplementationSpecific') {
    if (text !== '' && !text.startsWith('/'))
      errors.push(fieldError.invalid(`${path}.path`, text, 'must be an absolute path'))
  } else {
    if (!text.startsWith('/')) errors.push(fieldError.invalid(`${path}.path`, text, 'must be an absolute path'))
    for (const part of ambiguous)
      if (text.includes(part)) errors.push(fieldError.invalid(`${path}.path`, text, `must not contain '${part}'`))
    for (const end of ambiguousEnds)
      if (text.endsWith(end)) errors.push(fieldError.invalid(`${path}.path`, text, `cannot end with '${end}'`))
  }
  validateBackend(backend ?? {}, `${path}.backend`, errors)
}

function validateRule({ host = '', http }: IngressRule, path: string, errors: FieldError[]): void {
  if (host !== '') {
    if (addressFamily(host) !== undefined)
      errors.push(fieldError.invalid(`${path}.host`, host, 'must be a DNS name, not an IP address'))
    else validateHost(host, `${path}.host`, errors)
  }
  if (http === undefined) return
  const paths = http.paths ?? []
  if (paths.length === 0) errors.push(fieldError.required(`${path}.http.paths`))
  for (const [i, entry] of paths.entries()) validatePath(entry, `${path}.http.paths[${i}]`, errors)
}

function validateTls({ hosts = [], secretName = '' }: IngressTLS, path: string, errors: FieldError[]): void {
  for (const [i, host] of hosts.entries()) validateHost(host, `${path}.hosts[${i}]`, errors)
  if (secretName === '') return
  for (const words of dns1123Subdomain(secretName))
    errors.push(fieldError.invalid(`${path}.secretName`, secretName, words))
}

function validateSpec({ spec }: Ingress): FieldError[] {
  const errors: FieldError[] = []
  const { rules = [], tls = [], defaultBackend, ingressClassName } = spec
  if (rules.length === 0 && defaultBackend === undefined)
    errors.push(fieldError.invalid('spec', rules, 'either `defaultBackend` or `rules` must be specified'))
  for (const [i, rule] of rules.entries()) validateRule(rule, `spec.rules[${i}]`, errors)
  for (const [i, entry] of tls.entries()) validateTls(entry, `spec.tls[${i}]`, errors)
  if (defaultBackend !== undefined) validateBackend(defaultBackend, 'spec.defaultBackend', errors)
  if (ingressClassName !== undefined) {
    for (const words of dns1123Subdomain(ingressClassName))
      errors.push(fieldError.invalid('spec.ingressClassName', ingressClassName, words))
  }
  return errors
}

/** As kubectl shows them: the first three, and how many more. */
function hostsText({ spec }: Ingress): string {
  const hosts = (spec.rules ?? []).flatMap(({ host = '' }) => (host === '' ? [] : [host]))
  if (hosts.length === 0) return '*'
  return hosts.length > 3 ? `${hosts.slice(0, 3).join(',')} + ${hosts.length - 3} more...` : hosts.join(',')
}

export const ingress = defineKind<Ingress>({
  resource: ingresses,
  message: 'networking/v1.Ingress',
  description: 'Which Services answer which hosts and paths from outside.',
  shortNames: ['ing'],
  subresources: [statusSubresource],
  hasGeneration: true,
  prepareCreate(object) {
    object.status = { loadBalancer: {} }
  },
  validate: validateSpec,
  columns: [
    nameColumn,
    column('Class', 'Who serves it.', ({ spec }) => spec.ingressClassName ?? '<none>'),
    column('Hosts', 'Hosts of its rules.', hostsText),
    column('Address', 'Where it is reached.', ({ status }) =>
      (status.loadBalancer?.ingress ?? []).map(({ ip, hostname }) => ip || hostname || '').join(','),
    ),
    column('Ports', 'Ports it is served on.', ({ spec }) => ((spec.tls ?? []).length > 0 ? '80, 443' : '80')),
    ageColumn,
  ],
})
