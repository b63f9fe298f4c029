import { notForEndpoints } from '../core/endpoints.ts'
import type { Endpoint, EndpointSlice } from '../gen/discovery-v1.ts'
import { endpointSlices } from '../gen/resources.ts'
import { ageColumn, column, nameColumn } from '../meta/columns.ts'
import { defineKind } from '../meta/define.ts'
import { addressFamily, validateAddress } from '../meta/ip.ts'
import { dns1123Label, dns1123Subdomain, qualifiedName } from '../meta/names.ts'
import { immutable } from '../meta/object-meta.ts'
import { type FieldError, fieldError } from '../meta/status.ts'

const addressTypes = ['FQDN', 'IPv4', 'IPv6']
const endpointsMax = 1000
const addressesMax = 100
const portsMax = 20000
const shownMax = 3

function validateSlice(slice: EndpointSlice): FieldError[] {
  const errors: FieldError[] = []
  if (!slice.addressType) errors.push(fieldError.required('addressType'))
  else if (!addressTypes.includes(slice.addressType)) {
    errors.push(fieldError.notSupported('addressType', slice.addressType, addressTypes))
  }
  const endpoints = slice.endpoints ?? []
  if (endpoints.length > endpointsMax) {
    errors.push(fieldError.tooMany('endpoints', endpoints.length, endpointsMax))
    return errors
  }
  for (const [i, endpoint] of endpoints.entries()) {
    validateEndpoint(endpoint, slice.addressType, `endpoints[${i}]`, errors)
  }
  validatePorts(slice, errors)
  return errors
}

function validateEndpoint(endpoint: Endpoint, type: string, path: string, errors: FieldError[]): void {
  const { addresses = [], nodeName, hostname } = endpoint
  if (addresses.length === 0) errors.push(fieldError.required(`${path}.addresses`, 'must contain at least 1 address'))
  else if (addresses.length > addressesMax) {
    errors.push(fieldError.tooMany(`${path}.addresses`, addresses.length, addressesMax))
  }
  for (const [i, address] of addresses.entries()) validateAddressOf(address, type, `${path}.addresses[${i}]`, errors)
  if (nodeName !== undefined) {
    for (const words of dns1123Subdomain(nodeName)) errors.push(fieldError.invalid(`${path}.nodeName`, nodeName, words))
  }
  if (hostname !== undefined) {
    for (const words of dns1123Label(hostname)) errors.push(fieldError.invalid(`${path}.hostname`, hostname, words))
  }
}

function validateAddressOf(address: string, type: string, path: string, errors: FieldError[]): void {
  if (type === 'FQDN') {
    for (const words of dns1123Subdomain(address.replace(/\.$/, '')))
      errors.push(fieldError.invalid(path, address, words))
    return
  }
  const family = addressFamily(address)
  if (family === undefined) {
    errors.push(fieldError.invalid(path, address, 'must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)'))
  } else if (family !== type) {
    errors.push(fieldError.invalid(path.replace(/\[\d+\]$/, ''), address, `must be an ${type} address`))
  } else errors.push(...validateAddress(address, path), ...notForEndpoints(address, path))
}

function validatePorts({ ports = [] }: EndpointSlice, errors: FieldError[]): void {
  if (ports.length > portsMax) errors.push(fieldError.tooMany('ports', ports.length, portsMax))
  const names = new Set<string>()
  for (const [i, { name = '', protocol, appProtocol }] of ports.entries()) {
    const at = `ports[${i}]`
    if (name !== '') for (const words of dns1123Label(name)) errors.push(fieldError.invalid(`${at}.name`, name, words))
    if (names.has(name)) errors.push(fieldError.duplicate(`${at}.name`, name))
    names.add(name)
    if (!protocol) errors.push(fieldError.required(`${at}.protocol`))
    else if (!['SCTP', 'TCP', 'UDP'].includes(protocol)) {
      errors.push(fieldError.notSupported(`${at}.protocol`, protocol, ['SCTP', 'TCP', 'UDP']))
    }
    if (appProtocol !== undefined) {
      for (const words of qualifiedName(appProtocol)) {
        errors.push(fieldError.invalid(`${at}.appProtocol`, appProtocol, words))
      }
    }
  }
}

/** The first few of a list, and how many there are beyond. */
function few(items: readonly string[]): string {
  if (items.length <= shownMax) return items.join(',')
  return `${items.slice(0, shownMax).join(',')} + ${items.length - shownMax} more...`
}

export const endpointSlice = defineKind<EndpointSlice>({
  resource: endpointSlices,
  message: 'discovery/v1.EndpointSlice',
  description: 'Some of the addresses behind a Service.',
  hasGeneration: true,
  defaults(object) {
    for (const port of object.ports ?? []) {
      port.name ??= ''
      port.protocol ||= 'TCP'
    }
    for (const endpoint of object.endpoints ?? []) endpoint.conditions ??= {}
  },
  validate: validateSlice,
  validateUpdate: (next, old) => [
    ...validateSlice(next),
    ...immutable(next.addressType, old.addressType, 'addressType'),
  ],
  columns: [
    nameColumn,
    column('AddressType', 'What its addresses are.', ({ addressType }) => addressType),
    column('Ports', 'Its ports.', ({ ports = [] }) =>
      ports.length === 0
        ? '<unset>'
        : few(ports.map(({ port, name }) => (port === undefined ? name || '*' : `${port}`))),
    ),
    column('Endpoints', 'Its addresses.', ({ endpoints = [] }) =>
      endpoints.length === 0 ? '<unset>' : few(endpoints.flatMap(({ addresses }) => addresses ?? [])),
    ),
    ageColumn,
  ],
})
