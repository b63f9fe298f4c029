import {
  identityAnnotation,
  namedPortsAnnotation,
  namedPortsOf,
  parseIdentity,
  parseNamedPorts,
} from '#api/core/pod/identity.ts'
import type { Pod } from '#api/gen/core-v1.ts'
import type { KubeObject } from '#api/meta/resource.ts'
import { assignedAddresses } from '../endpoints/address.ts'
import type { PeerPod } from './numbering.ts'

/**
 * Pods that have addresses of their own: bound and not yet ended. One that has ended keeps its object, but its address may
 * be another's by now (KEP-753 aside, phases never go back). A pod on the host's network has none and is its node.
 */
export const livePodsSelector = 'spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed'

/**
 * What a pod is as a peer; undefined: it has no address of its own, or none yet. Its metadata suffices where our API server
 * wrote it. Another writes neither addresses nor ports there: then they are in the pod itself, some time after it has started.
 * Pure; throws for annotations that are not ours.
 */
export function reflectPeer(
  object: Pick<KubeObject, 'metadata'> & Partial<Pick<Pod, 'spec' | 'status'>>,
): PeerPod | undefined {
  const { metadata, spec, status } = object
  const assigned = assignedAddresses({ metadata } as Pod)
  const reported = spec === undefined || spec.hostNetwork ? [] : (status?.podIPs ?? []).map(({ ip }) => ip)
  const addresses = assigned ?? reported
  if (addresses.length === 0) return undefined
  const { namespace = '', name = '', uid = '', labels = {}, annotations = {} } = metadata
  return {
    key: `${namespace}/${name}`,
    uid,
    namespace,
    labels,
    ports: spec === undefined ? parseNamedPorts(annotations[namedPortsAnnotation]) : namedPortsOf({ spec }),
    addresses,
    identity: parseIdentity(annotations[identityAnnotation]),
  }
}
