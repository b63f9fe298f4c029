import type { EndpointAddress, EndpointSubset, Endpoints } from '../gen/core-v1.ts'
import { endpoints as endpointsResource } from '../gen/resources.ts'
import { ageColumn, column, nameColumn } from '../meta/columns.ts'
import { defineKind } from '../meta/define.ts'
import { validateAddress } from '../meta/ip.ts'
import { dns1123Label, dns1123Subdomain, portNumber } from '../meta/names.ts'
import { type FieldError, fieldError } from '../meta/status.ts'
import { validateChoice } from './pod/containers.ts'

const shownMax = 3

function validateSubset(subset: EndpointSubset, path: string, errors: FieldError[]): void {
  const { addresses = [], notReadyAddresses = [], ports = [] } = subset
  if (addresses.length === 0 && notReadyAddresses.length === 0) {
    errors.push(fieldError.required(path, 'must specify `addresses` or `notReadyAddresses`'))
  }
  for (const [i, address] of addresses.entries()) validateEndpoint(address, `${path}.addresses[${i}]`, errors)
  for (const [i, address] of notReadyAddresses.entries()) {
    validateEndpoint(address, `${path}.notReadyAddresses[${i}]`, errors)
  }
  for (const [i, port] of ports.entries()) {
    const at = `${path}.ports[${i}]`
    if (!port.name) {
      if (ports.length > 1) errors.push(fieldError.required(`${at}.name`))
    } else for (const words of dns1123Label(port.name)) errors.push(fieldError.invalid(`${at}.name`, port.name, words))
    for (const words of portNumber(port.port)) errors.push(fieldError.invalid(`${at}.port`, port.port, words))
    validateChoice(port.protocol, ['SCTP', 'TCP', 'UDP'], `${at}.protocol`, errors)
  }
}

function validateEndpoint({ ip, hostname, nodeName }: EndpointAddress, path: string, errors: FieldError[]): void {
  const found = validateAddress(ip, `${path}.ip`)
  errors.push(...found)
  if (found.length === 0) errors.push(...notForEndpoints(ip, `${path}.ip`))
  else errors.push(fieldError.invalid(`${path}.ip`, ip, 'must be a valid IP address'))
  if (hostname)
    for (const words of dns1123Label(hostname)) errors.push(fieldError.invalid(`${path}.hostname`, hostname, words))
  if (nodeName) {
    for (const words of dns1123Subdomain(nodeName)) errors.push(fieldError.invalid(`${path}.nodeName`, nodeName, words))
  }
}

/** Addresses that mean something else on every machine. */
export function notForEndpoints(ip: string, path: string): FieldError[] {
  const lower = ip.toLowerCase()
  if (ip === '0.0.0.0' || lower === '::') return [fieldError.invalid(path, ip, `may not be unspecified (${ip})`)]
  if (ip.startsWith('127.') || lower === '::1') {
    return [fieldError.invalid(path, ip, 'may not be in the loopback range (127.0.0.0/8, ::1/128)')]
  }
  if (ip.startsWith('169.254.') || /^fe[89ab]/.test(lower)) {
    return [fieldError.invalid(path, ip, 'may not be in the link-local range (169.254.0.0/16, fe80::/10)')]
  }
  if (/^224\.0\.0\./.test(ip) || /^ff[0-9a-f]2:/.test(lower)) {
    return [fieldError.invalid(path, ip, 'may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)')]
  }
  return []
}

function endpointsText({ subsets = [] }: Endpoints): string {
  const all: string[] = []
  for (const { addresses = [], ports = [] } of subsets) {
    for (const { ip } of ports.length === 0 ? addresses : []) all.push(ip)
    for (const { port } of ports)
      for (const { ip } of addresses) all.push(ip.includes(':') ? `[${ip}]:${port}` : `${ip}:${port}`)
  }
  if (subsets.length === 0) return '<none>'
  const shown = all.slice(0, shownMax).join(',')
  return all.length > shownMax ? `${shown} + ${all.length - shownMax} more...` : shown
}

export const endpoints = defineKind<Endpoints>({
  resource: endpointsResource,
  message: 'core/v1.Endpoints',
  description: 'Addresses behind a Service, as older clients read them.',
  shortNames: ['ep'],
  createOnUpdate: true,
  defaults(object) {
    for (const { ports } of object.subsets ?? []) for (const port of ports ?? []) port.protocol ||= 'TCP'
  },
  validate({ subsets = [] }) {
    const errors: FieldError[] = []
    for (const [i, subset] of subsets.entries()) validateSubset(subset, `subsets[${i}]`, errors)
    return errors
  },
  columns: [nameColumn, column('Endpoints', 'Addresses and ports.', endpointsText), ageColumn],
})
