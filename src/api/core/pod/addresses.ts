/**
 * Where a pod's addresses are written when it is bound, the main one first: `10.244.1.7,fd00:10:244:1::7`.
 * Only the API server writes it; the agent gives a sandbox these addresses.
 */
export const podAddressesAnnotation = 'weft.dev/pod-ips'
