import { identityAnnotation, namedPortsAnnotation, parseIdentity, parseNamedPorts } from '#api/core/pod/identity.ts'
import type { Pod } from '#api/gen/core-v1.ts'
import type { KubeObject } from '#api/meta/resource.ts'
import { assignedAddresses } from '../endpoints/address.ts'
import type { PeerPod } from './numbering.ts'

/**
 * Pods that have addresses of their own: bound and not yet ended. One that has ended keeps its object, but its address may
 * be another's by now (KEP-753 aside, phases never go back). A pod on the host's network has none and is its node.
 */
export const livePodsSelector = 'spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed'

/** What a pod's metadata says of it as a peer; undefined: it has no address yet. Pure; throws for annotations that are not ours. */
export function reflectPeer({ metadata }: Pick<KubeObject, 'metadata'>): PeerPod | undefined {
  const addresses = assignedAddresses({ metadata } as Pod)
  if (addresses === undefined) return undefined
  const { namespace = '', name = '', uid = '', labels = {}, annotations = {} } = metadata
  return {
    key: `${namespace}/${name}`,
    uid,
    namespace,
    labels,
    ports: parseNamedPorts(annotations[namedPortsAnnotation]),
    addresses,
    identity: parseIdentity(annotations[identityAnnotation]),
  }
}
