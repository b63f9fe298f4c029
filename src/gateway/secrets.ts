import type { GatewayResult } from './gateways.ts'
import { grantsOf } from './grants.ts'
import { ingressGateway } from './ingress.ts'
import { type Gateway, gatewayGroup, type ReferenceGrant } from './objects.ts'

/** The Secrets that a Gateway's listeners name, whether or not it may. */
export function secretsOf({ metadata, spec }: Gateway): { readonly namespace: string; readonly name: string }[] {
  return (spec.listeners ?? []).flatMap(({ tls }) =>
    (tls?.certificateRefs ?? [])
      .filter(({ group = '', kind = 'Secret' }) => group === '' && kind === 'Secret')
      .map(({ namespace, name }) => ({ namespace: namespace ?? metadata.namespace, name })),
  )
}

/**
 * The Secrets that Gateways may use, by namespace, names in order; namespaces without any are left out. These are what a
 * node may read, and what it reads. An Ingress names Secrets of its own namespace alone, and may.
 */
export function permittedSecrets(
  gateways: ReadonlyMap<string, GatewayResult>,
  grants: Iterable<ReferenceGrant>,
): Map<string, readonly string[]> {
  const { permits } = grantsOf(grants)
  const found = new Map<string, Set<string>>()
  for (const [key, { gateway }] of gateways) {
    const from = { group: gatewayGroup, kind: 'Gateway', namespace: gateway.metadata.namespace }
    for (const { namespace, name } of secretsOf(gateway)) {
      if (key !== ingressGateway && !permits(from, { group: '', kind: 'Secret', namespace, name })) continue
      found.set(namespace, (found.get(namespace) ?? new Set()).add(name))
    }
  }
  return new Map([...found].map(([namespace, names]) => [namespace, [...names].toSorted()]))
}
