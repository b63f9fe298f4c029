import type { Acknowledgement } from '#gateway/acknowledge.ts'
import type { Outcome } from '#gateway/engine.ts'
import type { GatewayResult } from '#gateway/gateways.ts'
import { ingressGateway } from '#gateway/ingress.ts'
import type { ReferenceGrant } from '#gateway/objects.ts'
import { permittedSecrets } from '#gateway/secrets.ts'

/** `namespace/name` of the Secrets that Gateways name and may use: those that a node may read. Pure. */
export function wantedSecrets(
  gateways: ReadonlyMap<string, GatewayResult>,
  grants: Iterable<ReferenceGrant>,
): Set<string> {
  const found = new Set<string>()
  for (const [namespace, names] of permittedSecrets(gateways, grants))
    for (const name of names) found.add(`${namespace}/${name}`)
  return found
}

/** What this node says once its engine has taken a state: which Gateways are in force, and what could not be done. Pure. */
export function acknowledge(gateways: ReadonlyMap<string, GatewayResult>, outcome: Outcome): Acknowledgement {
  const inForce = new Map<string, string>()
  // Nobody's condition waits for the Gateway of all Ingresses.
  for (const [key, { gateway, revision }] of gateways)
    if (key !== ingressGateway) inForce.set(gateway.metadata.uid, revision)
  const faults = new Map<string, string>()
  for (const [id, { of, message }] of outcome.faults) if (of !== 'backend') faults.set(id, message)
  return { gateways: inForce, faults }
}
