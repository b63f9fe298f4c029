import type { Pod } from '../gen/core-v1.ts'
import { pods } from '../gen/resources.ts'
import type { Subresource } from '../kind.ts'
import { defineKind, statusSubresource } from '../meta/define.ts'
import { type FieldError, fieldError } from '../meta/status.ts'
import { podColumns } from './pod/columns.ts'
import { defaultPodOnly, defaultPodSpec } from './pod/defaults.ts'
import { qosClassOf } from './pod/qos.ts'
import { defaultPodStatus, validatePodStatusUpdate } from './pod/status.ts'
import { validatePodUpdate } from './pod/update.ts'
import { validatePodOnly, validatePodSpec } from './pod/validate.ts'

const stream = (name: string): Subresource => ({ name, verbs: ['create', 'get'] })

export const pod = defineKind<Pod>({
  resource: pods,
  message: 'core/v1.Pod',
  description: 'Containers that run together on one node and share its network address and volumes.',
  shortNames: ['po'],
  categories: ['all'],
  hasGeneration: true,
  subresources: [
    stream('attach'),
    { name: 'binding', verbs: ['create'], kind: 'Binding', group: '', version: 'v1' },
    { name: 'eviction', verbs: ['create'], kind: 'Eviction', group: 'policy', version: 'v1' },
    stream('exec'),
    { name: 'log', verbs: ['get'] },
    stream('portforward'),
    statusSubresource,
  ],
  defaults(object) {
    object.spec ??= { containers: [] }
    defaultPodSpec(object.spec)
    defaultPodOnly(object.spec)
    if (object.status !== undefined) defaultPodStatus(object.status)
  },
  prepareCreate(object) {
    object.status = { phase: 'Pending', qosClass: qosClassOf(object.spec) }
  },
  validate(object) {
    const errors: FieldError[] = []
    validatePodSpec(object.spec, 'spec', errors)
    validatePodOnly(object.spec, errors)
    if ((object.spec.ephemeralContainers ?? []).length > 0) {
      errors.push(fieldError.forbidden('spec.ephemeralContainers', 'cannot be set on create'))
    }
    return errors
  },
  validateUpdate: validatePodUpdate,
  validateStatusUpdate: validatePodStatusUpdate,
  columns: podColumns,
  selectableFields: {
    'spec.nodeName': ({ spec }) => spec.nodeName ?? '',
    'spec.restartPolicy': ({ spec }) => spec.restartPolicy ?? '',
    'spec.schedulerName': ({ spec }) => spec.schedulerName ?? '',
    'spec.serviceAccountName': ({ spec }) => spec.serviceAccountName ?? '',
    'spec.hostNetwork': ({ spec }) => String(spec.hostNetwork ?? false),
    'status.phase': ({ status }) => status.phase ?? '',
    'status.podIP': ({ status }) => status.podIPs?.[0]?.ip ?? status.podIP ?? '',
    'status.podIPs': ({ status }) => status.podIPs?.[0]?.ip ?? status.podIP ?? '',
    'status.nominatedNodeName': ({ status }) => status.nominatedNodeName ?? '',
  },
  warnings: podWarnings,
  graceSeconds({ spec, status }, requested) {
    if (!spec.nodeName || status.phase === 'Failed' || status.phase === 'Succeeded') return 0
    const seconds = requested ?? spec.terminationGracePeriodSeconds ?? 0
    return seconds < 0 ? 1 : seconds
  },
})

/** What is allowed and still most likely a mistake. */
function podWarnings({ spec }: Pod): string[] {
  const warnings: string[] = []
  for (const list of ['containers', 'initContainers'] as const) {
    for (const [i, container] of (spec[list] ?? []).entries()) {
      const names = new Set<string>()
      for (const [j, { name }] of (container.env ?? []).entries()) {
        if (names.has(name)) {
          warnings.push(
            `spec.${list}[${i}].env[${j}]: hides previous definition of ${JSON.stringify(name)}, which may be dropped when using apply`,
          )
        }
        names.add(name)
      }
    }
  }
  if ((spec.terminationGracePeriodSeconds ?? 0) < 0) {
    warnings.push(
      'spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1',
    )
  }
  return warnings
}
