import { namespaces } from '#api/gen/resources.ts'
import { notFound, StatusError } from '#api/meta/status.ts'
import type { AdmissionRequest, Registry } from '../step.ts'
import { type AdmissionStep, refusal } from './step.ts'

const immortal = ['default', 'kube-system', 'kube-public', 'kube-node-lease']
const reviews = 'authorization.k8s.io'

/** Nothing new in a namespace that is not there or is going, and some namespaces never go. */
export function namespaceLifecycle(registry: Registry): AdmissionStep {
  return {
    name: 'NamespaceLifecycle',
    mutate(request) {
      const { attributes, operation } = request
      const { namespace, group, resource, name } = attributes
      if (operation === 'DELETE' && group === '' && resource === 'namespaces' && immortal.includes(name)) {
        throw refusal(request, 'this namespace may not be deleted')
      }
      if (operation !== 'CREATE' || namespace === '' || resource === 'namespaces' || group === reviews) return
      const found = registry.get(namespaces, '', namespace)
      if (found === undefined) throw notFound(namespaces, namespace)
      if (found.metadata.deletionTimestamp || found.status?.phase === 'Terminating')
        throw terminating(request, namespace)
    },
  }
}

function terminating(request: AdmissionRequest, namespace: string): StatusError {
  const { status } = refusal(
    request,
    `unable to create new content in namespace ${namespace} because it is being terminated`,
  )
  const cause = {
    reason: 'NamespaceTerminating',
    message: `namespace ${namespace} is being terminated`,
    field: 'metadata.namespace',
  }
  return new StatusError({ ...status, details: { ...status.details, causes: [cause] } })
}
