import type { Acknowledgement } from '#gateway/acknowledge.ts'
import type { Outcome } from '#gateway/engine.ts'
import type { GatewayResult } from '#gateway/gateways.ts'
import { grantsOf } from '#gateway/grants.ts'
import { secretsOf } from '#gateway/model.ts'
import { gatewayGroup, type ReferenceGrant } from '#gateway/objects.ts'

/** `namespace/name` of the Secrets that Gateways name and may use: those that a node may read. Pure. */
export function wantedSecrets(gateways: Iterable<GatewayResult>, grants: Iterable<ReferenceGrant>): Set<string> {
  const { permits } = grantsOf(grants)
  const found = new Set<string>()
  for (const { gateway } of gateways) {
    const from = { group: gatewayGroup, kind: 'Gateway', namespace: gateway.metadata.namespace }
    for (const { namespace, name } of secretsOf(gateway))
      if (permits(from, { group: '', kind: 'Secret', namespace, name })) found.add(`${namespace}/${name}`)
  }
  return found
}

/** What this node says once its engine has taken a state: which Gateways are in force, and what could not be done. Pure. */
export function acknowledge(gateways: Iterable<GatewayResult>, outcome: Outcome): Acknowledgement {
  const inForce = new Map<string, string>()
  for (const { gateway, revision } of gateways) inForce.set(gateway.metadata.uid, revision)
  const faults = new Map<string, string>()
  for (const [id, { of, message }] of outcome.faults) if (of !== 'backend') faults.set(id, message)
  return { gateways: inForce, faults }
}
