import { type Cidr, cidrContains, isMapped, parseAddress, parseCidr } from '#base/net/address.ts'

/** Who an external IP is for: everybody, only those who come from outside, or nobody. */
export type ExternalUse = 'all' | 'outside' | 'none'

export interface ExternalRules {
  /** Networks of pods and Services. */
  readonly clusterCidrs: readonly string[]
  /** Addresses that are somebody's already: nodes, load balancers. */
  readonly taken: ReadonlySet<string>
  /** Networks whose addresses pods may be led to a Service by. */
  readonly allowed: readonly string[]
}

/** Nobody's to give away: this host, link-local, multicast. */
const never = ['0.0.0.0/8', '127.0.0.0/8', '169.254.0.0/16', '224.0.0.0/3', '::/127', 'fe80::/10', 'ff00::/8']

/**
 * Whoever may write Services could otherwise draw other pods' traffic to any address on himself (CVE-2020-8554). So an external
 * IP works for what comes from outside to this node for it (somebody routed it here), and for pods only where the cluster's
 * owner allows the address; never for an address that is the cluster's own. Returns a function of the address. Pure.
 */
export function externalUses(rules: ExternalRules): (address: string) => ExternalUse {
  const parse = (texts: readonly string[]): Cidr[] => texts.flatMap((text) => parseCidr(text) ?? [])
  const forbidden = parse([...never, ...rules.clusterCidrs])
  const allowed = parse(rules.allowed)
  return (text) => {
    const address = parseAddress(text)
    if (address === undefined || isMapped(address)) return 'none'
    if (rules.taken.has(text) || forbidden.some((c) => cidrContains(c, address))) return 'none'
    return allowed.some((c) => cidrContains(c, address)) ? 'all' : 'outside'
  }
}
