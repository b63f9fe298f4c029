import type { Pod, PodStatus } from '../../gen/core-v1.ts'
import { addressFamily, validateAddress } from '../../meta/ip.ts'
import { dns1123Subdomain } from '../../meta/names.ts'
import { type FieldError, fieldError } from '../../meta/status.ts'

/** One address and the list of them are one thing in two writings; where they differ, the one is right. */
export function defaultPodStatus(status: PodStatus): void {
  const { podIP, podIPs = [] } = status
  if (podIP && podIPs[0]?.ip !== podIP) status.podIPs = [{ ip: podIP }]
  else if (!podIP && podIPs[0] !== undefined) status.podIP = podIPs[0].ip
}

export function validatePodStatusUpdate(next: Pod, old: Pod): FieldError[] {
  const errors: FieldError[] = []
  const { nominatedNodeName = '', podIPs = [], observedGeneration = 0 } = next.status
  if (nominatedNodeName !== '' && nominatedNodeName !== old.status.nominatedNodeName) {
    for (const words of dns1123Subdomain(nominatedNodeName)) {
      errors.push(fieldError.invalid('status.nominatedNodeName', nominatedNodeName, words))
    }
    if (old.spec.nodeName) {
      errors.push(
        fieldError.forbidden('status.nominatedNodeName', 'may not be set on pods that are already bound to a node'),
      )
    }
  }
  if (observedGeneration < 0) {
    errors.push(fieldError.invalid('status.observedGeneration', observedGeneration, 'must be a non-negative integer'))
  }
  for (const [i, { ip }] of podIPs.entries()) errors.push(...validateAddress(ip, `status.podIPs[${i}]`))
  if (new Set(podIPs.map(({ ip }) => addressFamily(ip))).size < podIPs.length) {
    errors.push(fieldError.invalid('status.podIPs', podIPs, 'may specify no more than one IP for each IP family'))
  }
  return errors
}
