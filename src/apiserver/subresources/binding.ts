import { podAddressesAnnotation } from '#api/core/pod/addresses.ts'
import type { Binding, Node, Pod } from '#api/gen/core-v1.ts'
import { nodes, pods } from '#api/gen/resources.ts'
import { withCondition } from '#api/meta/conditions.ts'
import { badRequest, conflict, fieldError, invalid, type StatusError } from '#api/meta/status.ts'
import { formatTime } from '#api/meta/time.ts'
import type { Clock } from '#base/clock.ts'
import type { IdentityAllocator } from '../allocate/identities.ts'
import { PodAddressesFull, type PodAllocator } from '../allocate/pods.ts'
import type { SubresourceHandler } from '../step.ts'
import { podNamed } from '../stream/kubelet.ts'
import { success } from './success.ts'

/** POST pods/{name}/binding (and the older /bindings): gives a pod its node and, in the same write, its addresses and identity. */
export function bindingHandler(
  allocator: PodAllocator,
  identities: IdentityAllocator,
  clock: Clock,
): SubresourceHandler {
  return async ({ registry, attributes, body, dryRun }) => {
    const binding = body as Binding | undefined
    if (binding === undefined) throw badRequest('a Binding is needed in the body')
    const { namespace } = attributes
    const name = attributes.name === '' ? (binding.metadata?.name ?? '') : attributes.name
    checkBinding(binding, name)
    const pod = podNamed(registry, namespace, name)
    checkPod(pod, binding)
    const node = registry.get(nodes, '', binding.target.name ?? '')
    if (dryRun) return { status: 201, object: success }
    const reserved = reserve(allocator, pod, node)
    try {
      await registry.change(pods, namespace, name, attributes.user, (copy) => {
        // Another binding may have come between.
        checkPod(copy, binding)
        const next = bound(copy, binding, reserved.addresses, formatTime(clock.now()))
        identities.annotate(next)
        return next
      })
    } catch (error) {
      reserved.release()
      throw error
    }
    return { status: 201, object: success }
  }
}

function checkBinding({ metadata, target }: Binding, name: string): void {
  if (metadata?.name && metadata.name !== name) throw badRequest('name in URL does not match name in Binding object')
  const kind = target?.kind ?? ''
  if (kind !== '' && kind !== 'Node') {
    throw invalid('', 'Binding', name, [fieldError.notSupported('target.kind', kind, ['Node', '<empty>'])])
  }
  if (!target?.name) throw invalid('', 'Binding', name, [fieldError.required('target.name')])
}

/** Throws Conflict, in upstream's words, for a pod that cannot be bound. */
function checkPod({ metadata, spec }: Pod, binding: Binding): void {
  const refuse = (why: string): StatusError => conflict({ group: '', resource: 'pods/binding' }, metadata.name, why)
  const { uid } = binding.metadata ?? {}
  if (uid && uid !== metadata.uid) {
    throw refuse(`Precondition failed: UID in precondition: ${uid}, UID in object meta: ${metadata.uid}`)
  }
  if (metadata.deletionTimestamp) throw refuse(`pod ${metadata.name} is being deleted, cannot be assigned to a host`)
  if (spec.nodeName) throw refuse(`pod ${metadata.name} is already assigned to node "${spec.nodeName}"`)
  if (spec.schedulingGates?.length) throw refuse(`pod ${metadata.name} has non-empty .spec.schedulingGates`)
}

interface Reserved {
  readonly addresses: readonly string[]
  release(): void
}

/**
 * Addresses from the node's own networks. A pod on the host's network has the node's; so has, as upstream allows binding
 * to it, one bound to a node that is not there. A node whose networks are not chosen yet cannot take a pod.
 */
export function reserve(allocator: PodAllocator, pod: Pod, node: Node | undefined): Reserved {
  if (pod.spec.hostNetwork || node === undefined) return { addresses: [], release() {} }
  const cidrs = node.spec?.podCIDRs ?? []
  const refuse = (why: string): StatusError =>
    conflict({ group: '', resource: 'pods/binding' }, pod.metadata.name, `node "${node.metadata.name}" ${why}`)
  if (cidrs.length === 0) throw refuse('has no pod network yet')
  try {
    return allocator.reserve(pod, cidrs)
  } catch (error) {
    if (error instanceof PodAddressesFull) throw refuse(`has ${error.message}`)
    throw error
  }
}

function bound(pod: Pod, { metadata, target }: Binding, addresses: readonly string[], now: string): Pod {
  const annotations = { ...pod.metadata.annotations, ...metadata?.annotations }
  delete annotations[podAddressesAnnotation]
  if (addresses.length > 0) annotations[podAddressesAnnotation] = addresses.join(',')
  const conditions = withCondition(pod.status?.conditions, { type: 'PodScheduled', status: 'True' }, now)
  return {
    ...pod,
    metadata: { ...pod.metadata, ...(Object.keys(annotations).length > 0 ? { annotations } : {}) },
    spec: { ...pod.spec, nodeName: target.name ?? '' },
    status: { ...pod.status, conditions: [...conditions] },
  }
}
