/**
 * Where the resolver of each node listens, on the node's `lo`. Link-local, so that no cluster's own network can contain
 * them; the first is where upstream's node-local cache listens too. Policy takes them for a pod of kube-dns.
 */
export const resolverAddresses = ['169.254.20.10', 'fd00:169:254:20::10'] as const

export const resolverPort = 53

/** `namespace/name` of the Service whose cluster addresses pods have in their resolv.conf. */
export const resolverService = 'kube-system/kube-dns'
