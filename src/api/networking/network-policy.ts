import { selectorText } from '../apps/columns.ts'
import { validatePort } from '../core/pod/probes.ts'
import type { NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort } from '../gen/networking-v1.ts'
import { networkPolicies } from '../gen/resources.ts'
import { ageColumn, column, nameColumn } from '../meta/columns.ts'
import { defineKind } from '../meta/define.ts'
import { isStrictlyInside, parsePrefix, validatePrefix } from '../meta/ip.ts'
import { validateLabelSelector } from '../meta/labels.ts'
import { inclusiveRangeError } from '../meta/names.ts'
import { type FieldError, fieldError } from '../meta/status.ts'

const protocols = ['TCP', 'UDP', 'SCTP']

function validatePolicyPort(port: NetworkPolicyPort, path: string, errors: FieldError[]): void {
  if (port.protocol !== undefined && !protocols.includes(port.protocol)) {
    errors.push(fieldError.notSupported(`${path}.protocol`, port.protocol, protocols))
  }
  const { endPort } = port
  if (port.port !== undefined) {
    validatePort(port.port, `${path}.port`, errors)
    if (endPort === undefined) return
    if (typeof port.port === 'string') {
      errors.push(fieldError.invalid(`${path}.endPort`, endPort, 'may not be specified when `port` is non-numeric'))
    } else if (endPort < port.port) {
      errors.push(fieldError.invalid(`${path}.endPort`, port.port, 'must be greater than or equal to `port`'))
    }
    if (endPort < 1 || endPort > 65535) {
      errors.push(fieldError.invalid(`${path}.endPort`, endPort, inclusiveRangeError(1, 65535)))
    }
  } else if (endPort !== undefined) {
    errors.push(fieldError.invalid(`${path}.endPort`, endPort, 'may not be specified when `port` is not specified'))
  }
}

function validatePeer(peer: NetworkPolicyPeer, path: string, errors: FieldError[]): void {
  let count = 0
  if (peer.podSelector) {
    count++
    errors.push(...validateLabelSelector(peer.podSelector, `${path}.podSelector`))
  }
  if (peer.namespaceSelector) {
    count++
    errors.push(...validateLabelSelector(peer.namespaceSelector, `${path}.namespaceSelector`))
  }
  if (peer.ipBlock) {
    count++
    const { cidr, except = [] } = peer.ipBlock
    const at = `${path}.ipBlock`
    if (!cidr) errors.push(fieldError.required(`${at}.cidr`))
    else {
      errors.push(...validatePrefix(cidr, `${at}.cidr`))
      const outer = parsePrefix(cidr)
      for (const [i, hole] of except.entries()) {
        errors.push(...validatePrefix(hole, `${at}.except[${i}]`))
        const inner = parsePrefix(hole)
        if (outer && inner && !isStrictlyInside(inner, outer)) {
          errors.push(fieldError.invalid(`${at}.except[${i}]`, hole, 'must be a strict subset of `cidr`'))
        }
      }
    }
  }
  if (count === 0) errors.push(fieldError.required(path, 'must specify a peer'))
  else if (count > 1 && peer.ipBlock) {
    errors.push(fieldError.forbidden(path, 'may not specify both ipBlock and another peer'))
  }
}

export const networkPolicy = defineKind<NetworkPolicy>({
  resource: networkPolicies,
  message: 'networking/v1.NetworkPolicy',
  description: 'Who may talk to the pods it selects, and to whom they may talk.',
  shortNames: ['netpol'],
  hasGeneration: true,
  defaults({ spec }) {
    spec.podSelector ??= {}
    for (const { ports } of [...(spec.ingress ?? []), ...(spec.egress ?? [])]) {
      for (const port of ports ?? []) port.protocol ||= 'TCP'
    }
    if ((spec.policyTypes ?? []).length === 0) {
      spec.policyTypes = (spec.egress ?? []).length > 0 ? ['Ingress', 'Egress'] : ['Ingress']
    }
  },
  validate({ spec }) {
    const errors = validateLabelSelector(spec.podSelector, 'spec.podSelector')
    for (const [i, rule] of (spec.ingress ?? []).entries()) {
      for (const [j, port] of (rule.ports ?? []).entries())
        validatePolicyPort(port, `spec.ingress[${i}].ports[${j}]`, errors)
      for (const [j, peer] of (rule.from ?? []).entries()) validatePeer(peer, `spec.ingress[${i}].from[${j}]`, errors)
    }
    for (const [i, rule] of (spec.egress ?? []).entries()) {
      for (const [j, port] of (rule.ports ?? []).entries())
        validatePolicyPort(port, `spec.egress[${i}].ports[${j}]`, errors)
      for (const [j, peer] of (rule.to ?? []).entries()) validatePeer(peer, `spec.egress[${i}].to[${j}]`, errors)
    }
    const types: readonly string[] = spec.policyTypes ?? []
    if (types.length > 2) {
      errors.push(fieldError.invalid('spec.policyTypes', types, 'may not specify more than two policyTypes'))
    } else {
      for (const [i, type] of types.entries()) {
        if (type !== 'Ingress' && type !== 'Egress') {
          errors.push(fieldError.notSupported(`spec.policyTypes[${i}]`, type, ['Ingress', 'Egress']))
        }
      }
    }
    return errors
  },
  columns: [
    nameColumn,
    column('Pod-Selector', 'Labels of the pods it is for.', ({ spec }) => selectorText(spec.podSelector)),
    ageColumn,
  ],
})
