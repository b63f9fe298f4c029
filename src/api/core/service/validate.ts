import type { Service, ServicePort, ServiceSpec } from '../../gen/core-v1.ts'
import { addressFamily, validateAddress, validatePrefix } from '../../meta/ip.ts'
import { validateLabels } from '../../meta/labels.ts'
import { dns1123Label, dns1123Subdomain, portNumber, qualifiedName } from '../../meta/names.ts'
import { sameJson } from '../../meta/patch/json.ts'
import { type FieldError, fieldError } from '../../meta/status.ts'
import { validateChoice } from '../pod/containers.ts'
import { validatePort } from '../pod/probes.ts'

/** kk:pkg/apis/core/validation ValidateService. */

const types = ['ClusterIP', 'ExternalName', 'LoadBalancer', 'NodePort']
const protocols = ['SCTP', 'TCP', 'UDP']
const affinities = ['ClientIP', 'None']
const policies = ['Cluster', 'Local']
const distributions = ['PreferClose', 'PreferSameZone', 'PreferSameNode']
const familyPolicies = ['PreferDualStack', 'RequireDualStack', 'SingleStack']
const affinitySecondsMax = 86400

const isHeadless = ({ clusterIP, clusterIPs }: ServiceSpec): boolean => (clusterIPs?.[0] ?? clusterIP) === 'None'

export function validateService({ spec }: Service): FieldError[] {
  const errors: FieldError[] = []
  const isExternalName = spec.type === 'ExternalName'
  if ((spec.ports ?? []).length === 0 && !isHeadless(spec) && !isExternalName) {
    errors.push(fieldError.required('spec.ports'))
  }
  validateByType(spec, errors)
  validatePorts(spec, errors)
  if (spec.selector) errors.push(...validateLabels(spec.selector, 'spec.selector'))
  validateAffinity(spec, errors)
  validateAddresses(spec, errors)
  validateChoice(spec.type, types, 'spec.type', errors)
  const isPublished = spec.type === 'NodePort' || spec.type === 'LoadBalancer'
  validatePolicies(spec, isPublished, errors)
  if (spec.type !== 'LoadBalancer') {
    if ((spec.loadBalancerSourceRanges ?? []).length > 0) {
      errors.push(
        fieldError.forbidden('spec.LoadBalancerSourceRanges', "may only be used when `type` is 'LoadBalancer'"),
      )
    }
    if (spec.allocateLoadBalancerNodePorts !== undefined) {
      errors.push(
        fieldError.forbidden('spec.allocateLoadBalancerNodePorts', "may only be used when `type` is 'LoadBalancer'"),
      )
    }
    if (spec.loadBalancerClass !== undefined) {
      errors.push(fieldError.forbidden('spec.loadBalancerClass', "may only be used when `type` is 'LoadBalancer'"))
    }
  } else {
    for (const [i, range] of (spec.loadBalancerSourceRanges ?? []).entries()) {
      errors.push(...validatePrefix(range.trim(), `spec.LoadBalancerSourceRanges[${i}]`))
    }
  }
  return errors
}

function validateByType(spec: ServiceSpec, errors: FieldError[]): void {
  if (spec.type === 'LoadBalancer' || spec.type === 'NodePort') {
    if (isHeadless(spec)) {
      errors.push(
        fieldError.invalid('spec.clusterIPs[0]', 'None', `may not be set to 'None' for ${spec.type} services`),
      )
    }
    return
  }
  if (spec.type !== 'ExternalName') return
  if (spec.clusterIP || (spec.clusterIPs ?? []).length > 0) {
    errors.push(fieldError.forbidden('spec.clusterIPs', 'may not be set for ExternalName services'))
  }
  const name = (spec.externalName ?? '').replace(/\.$/, '')
  if (name === '') errors.push(fieldError.required('spec.externalName'))
  else for (const words of dns1123Subdomain(name)) errors.push(fieldError.invalid('spec.externalName', name, words))
}

function validatePorts({ ports = [], type, ...spec }: ServiceSpec, errors: FieldError[]): void {
  const names = new Set<string>()
  const numbers = new Set<string>()
  const nodePorts = new Set<string>()
  const isHeadlessService = isHeadless(spec)
  for (const [i, port] of ports.entries()) {
    const at = `spec.ports[${i}]`
    validateServicePort(port, ports.length > 1, isHeadlessService, names, at, errors)
    const number = `${port.protocol}/${port.port}`
    if (numbers.has(number)) {
      errors.push(
        fieldError.duplicate(at, {
          Name: '',
          Protocol: port.protocol,
          AppProtocol: null,
          Port: port.port,
          TargetPort: 0,
          NodePort: 0,
        }),
      )
    }
    numbers.add(number)
    if (!port.nodePort) continue
    for (const words of portNumber(port.nodePort)) {
      errors.push(fieldError.invalid(`${at}.nodePort`, port.nodePort, words))
    }
    if (type === 'ClusterIP') {
      errors.push(fieldError.forbidden(`${at}.nodePort`, "may not be used when `type` is 'ClusterIP'"))
    }
    const nodePort = `${port.protocol}/${port.nodePort}`
    if (nodePorts.has(nodePort)) errors.push(fieldError.duplicate(`${at}.nodePort`, port.nodePort))
    nodePorts.add(nodePort)
  }
}

function validateServicePort(
  port: ServicePort,
  needsName: boolean,
  isHeadlessService: boolean,
  names: Set<string>,
  at: string,
  errors: FieldError[],
): void {
  if (!port.name) {
    if (needsName) errors.push(fieldError.required(`${at}.name`))
  } else {
    for (const words of dns1123Label(port.name)) errors.push(fieldError.invalid(`${at}.name`, port.name, words))
    if (names.has(port.name)) errors.push(fieldError.duplicate(`${at}.name`, port.name))
    names.add(port.name)
  }
  for (const words of portNumber(port.port)) errors.push(fieldError.invalid(`${at}.port`, port.port, words))
  validateChoice(port.protocol, protocols, `${at}.protocol`, errors)
  if (port.targetPort !== undefined) validatePort(port.targetPort, `${at}.targetPort`, errors)
  if (port.appProtocol !== undefined) {
    for (const words of qualifiedName(port.appProtocol)) {
      errors.push(fieldError.invalid(`${at}.appProtocol`, port.appProtocol, words))
    }
  }
  if (isHeadlessService && port.nodePort) {
    errors.push(fieldError.invalid(`${at}.nodePort`, port.nodePort, 'may not be set for headless services'))
  }
}

function validateAffinity({ sessionAffinity, sessionAffinityConfig }: ServiceSpec, errors: FieldError[]): void {
  validateChoice(sessionAffinity, affinities, 'spec.sessionAffinity', errors)
  if (sessionAffinity === 'None') {
    if (sessionAffinityConfig !== undefined) {
      errors.push(fieldError.forbidden('spec.sessionAffinityConfig', 'must not be set when session affinity is None'))
    }
    return
  }
  const seconds = sessionAffinityConfig?.clientIP?.timeoutSeconds
  const at = 'spec.sessionAffinityConfig.clientIP.timeoutSeconds'
  if (sessionAffinity === 'ClientIP' && (seconds === undefined || seconds <= 0 || seconds > affinitySecondsMax)) {
    errors.push(fieldError.invalid(at, seconds ?? null, `must be greater than 0 and less than ${affinitySecondsMax}`))
  }
}

function validateAddresses(spec: ServiceSpec, errors: FieldError[]): void {
  const { clusterIP = '', clusterIPs = [], ipFamilies = [], ipFamilyPolicy } = spec
  if (spec.type !== 'ExternalName') {
    const at = 'spec.clusterIPs'
    if (clusterIP === '' && clusterIPs.length > 0) {
      errors.push(fieldError.invalid(at, clusterIPs, 'must be empty when `clusterIP` is not specified'))
    } else if (clusterIP !== '' && clusterIPs.length > 0 && clusterIPs[0] !== clusterIP) {
      errors.push(fieldError.invalid(at, clusterIPs, 'first value must match `clusterIP`'))
    }
    if (clusterIPs.length > 2) {
      errors.push(fieldError.invalid(at, clusterIPs, 'may only hold up to 2 values'))
    }
    const addresses = clusterIPs
    const path = (i: number): string => `${at}[${i}]`
    const families = new Set(clusterIPs.map((address) => addressFamily(address) ?? address))
    if (families.size < clusterIPs.length) {
      errors.push(fieldError.invalid(at, clusterIPs, 'may specify no more than one IP for each IP family'))
    }
    for (const [i, address] of addresses.entries()) {
      if (address === 'None') {
        if (addresses.length > 1) {
          errors.push(fieldError.invalid(path(i), address, "'None' must be the first and only value"))
        }
      } else errors.push(...validateAddress(address, path(i)))
    }
    for (const [i, family] of ipFamilies.entries()) {
      if (family !== 'IPv4' && family !== 'IPv6') {
        errors.push(fieldError.notSupported(`spec.ipFamilies[${i}]`, family, ['IPv4', 'IPv6']))
      } else if (ipFamilies.indexOf(family) !== i) errors.push(fieldError.duplicate(`spec.ipFamilies[${i}]`, family))
      const address = addresses[i]
      const actual = address === undefined ? undefined : addressFamily(address)
      if (actual !== undefined && actual !== family) {
        errors.push(
          fieldError.invalid(path(i), address, `expected an ${family} value as indicated by \`ipFamilies[${i}]\``),
        )
      }
    }
    if (ipFamilyPolicy !== undefined && !familyPolicies.includes(ipFamilyPolicy)) {
      errors.push(fieldError.notSupported('spec.ipFamilyPolicy', ipFamilyPolicy, familyPolicies))
    }
  }
  for (const [i, address] of (spec.externalIPs ?? []).entries()) {
    const found = validateAddress(address, `spec.externalIPs[${i}]`)
    errors.push(...found)
    if (found.length === 0 && isLocal(address)) {
      errors.push(
        fieldError.invalid(
          `spec.externalIPs[${i}]`,
          address,
          'may not be in the loopback range (127.0.0.0/8, ::1/128)',
        ),
      )
    }
  }
}

const isLocal = (address: string): boolean => address.startsWith('127.') || address === '::1'

function validatePolicies(spec: ServiceSpec, isPublished: boolean, errors: FieldError[]): void {
  const { externalTrafficPolicy, internalTrafficPolicy } = spec
  const isExternal = isPublished || (spec.externalIPs ?? []).length > 0
  if (externalTrafficPolicy !== undefined && !isExternal) {
    errors.push(
      fieldError.invalid(
        'spec.externalTrafficPolicy',
        externalTrafficPolicy,
        'may only be set for externally-accessible services',
      ),
    )
  } else if (isExternal) {
    if (externalTrafficPolicy !== undefined && !policies.includes(externalTrafficPolicy)) {
      errors.push(fieldError.notSupported('spec.externalTrafficPolicy', externalTrafficPolicy, policies))
    }
  }
  const needsHealthCheck = spec.type === 'LoadBalancer' && externalTrafficPolicy === 'Local'
  const { healthCheckNodePort = 0, trafficDistribution } = spec
  if (!needsHealthCheck && healthCheckNodePort !== 0) {
    errors.push(
      fieldError.invalid(
        'spec.healthCheckNodePort',
        healthCheckNodePort,
        "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
      ),
    )
  }
  if (trafficDistribution !== undefined && !distributions.includes(trafficDistribution)) {
    errors.push(fieldError.notSupported('spec.trafficDistribution', trafficDistribution, distributions))
  }
  if (internalTrafficPolicy !== undefined && !policies.includes(internalTrafficPolicy)) {
    errors.push(fieldError.notSupported('spec.internalTrafficPolicy', internalTrafficPolicy, policies))
  }
}

/** An address stays while the type needs one; a second family may come and go. */
export function validateServiceUpdate(next: Service, old: Service): FieldError[] {
  const errors: FieldError[] = []
  const after = addressesOf(next.spec)
  const before = addressesOf(old.spec)
  if (next.spec.type !== 'ExternalName' && old.spec.type !== 'ExternalName' && before.length > 0) {
    if (after.length > 0 && after[0] !== before[0]) {
      errors.push(fieldError.invalid('spec.clusterIPs[0]', after, 'may not change once set'))
    } else if (after.length > 1 && before.length > 1 && after[1] !== before[1]) {
      errors.push(fieldError.invalid('spec.clusterIPs[1]', after, 'may not change once set'))
    }
    const [family] = next.spec.ipFamilies ?? []
    const [was] = old.spec.ipFamilies ?? []
    if (family !== undefined && was !== undefined && family !== was) {
      errors.push(fieldError.invalid('spec.ipFamilies[0]', next.spec.ipFamilies, 'may not change once set'))
    }
  }
  if (next.spec.type === 'LoadBalancer' && old.spec.type === 'LoadBalancer') {
    if (!sameJson(next.spec.loadBalancerClass ?? null, old.spec.loadBalancerClass ?? null)) {
      errors.push(
        fieldError.invalid('spec.loadBalancerClass', next.spec.loadBalancerClass ?? null, 'may not change once set'),
      )
    }
  }
  return [...errors, ...validateService(next)]
}

const addressesOf = ({ clusterIP, clusterIPs }: ServiceSpec): string[] =>
  clusterIPs !== undefined && clusterIPs.length > 0 ? clusterIPs : clusterIP ? [clusterIP] : []
