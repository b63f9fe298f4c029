import { podAddressesAnnotation } from '#api/core/pod/addresses.ts'
import { nodes, pods, services } from '#api/gen/resources.ts'
import type { IdentityAllocator } from '../allocate/identities.ts'
import type { PodAllocator } from '../allocate/pods.ts'
import type { ServiceAllocator } from '../allocate/services.ts'
import type { AdmissionRequest, Registry } from '../step.ts'
import { reserve } from '../subresources/binding.ts'
import { type AdmissionStep, isAbout, objectOf, oldOf } from './step.ts'

/** What a request on its way holds: given back if its write fails, the registry's own afterwards. */
function holdings() {
  const held = new WeakMap<AdmissionRequest, { release(): void }>()
  return {
    hold(request: AdmissionRequest, take: () => { release(): void }): void {
      held.get(request)?.release()
      held.set(request, take())
    },
    settled(request: AdmissionRequest, outcome: 'written' | 'failed'): void {
      if (outcome === 'failed') held.get(request)?.release()
      held.delete(request)
    },
  }
}

/** Families, cluster addresses and node ports of a Service; after everything that may still change it. */
export function serviceAddresses(allocator: ServiceAllocator): AdmissionStep {
  const { hold, settled } = holdings()
  return {
    name: 'ServiceAddresses',
    mutate(request) {
      const service = objectOf(request, services)
      if (!isAbout(request, services) || service === undefined) return
      hold(request, () => allocator.reserve(service, oldOf(request, services)))
    },
    settled,
  }
}

/**
 * Addresses of a pod that is created with its node (others get theirs when they are bound), and its identity, which follows
 * its labels in the same write. Nobody but the server writes where they stand: a pod that named its own could take another's.
 */
export function podAddresses(
  registry: Registry,
  allocator: PodAllocator,
  identities: IdentityAllocator,
): AdmissionStep {
  const { hold, settled } = holdings()
  return {
    name: 'PodAddresses',
    mutate(request) {
      const { group, resource } = request.attributes
      const { metadata } = request.object ?? {}
      if (group !== '' || resource !== 'pods' || metadata === undefined) return
      if (request.operation === 'UPDATE' && request.old) {
        const before = request.old.metadata.annotations?.[podAddressesAnnotation]
        setAnnotation(metadata, before)
        const changed = objectOf(request, pods)
        if (changed?.spec !== undefined) identities.annotate(changed)
        return
      }
      const pod = objectOf(request, pods)
      if (!isAbout(request, pods) || pod === undefined) return
      setAnnotation(metadata, undefined)
      identities.annotate(pod)
      if (!pod.spec.nodeName) return
      const node = registry.get(nodes, '', pod.spec.nodeName)
      hold(request, () => {
        const reserved = reserve(allocator, pod, node)
        setAnnotation(metadata, reserved.addresses.join(',') || undefined)
        identities.annotate(pod)
        return reserved
      })
    },
    settled,
  }
}

function setAnnotation(metadata: { annotations?: Record<string, string> }, value: string | undefined): void {
  if (value !== undefined) metadata.annotations = { ...metadata.annotations, [podAddressesAnnotation]: value }
  else if (metadata.annotations) delete metadata.annotations[podAddressesAnnotation]
}
