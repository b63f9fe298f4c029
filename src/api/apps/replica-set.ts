import { defaultTemplate } from '../core/pod/defaults.ts'
import type { ReplicaSet } from '../gen/apps-v1.ts'
import { replicaSets } from '../gen/resources.ts'
import { ageColumn, column, nameColumn } from '../meta/columns.ts'
import { defineKind, scaleSubresource, statusSubresource } from '../meta/define.ts'
import { immutable } from '../meta/object-meta.ts'
import type { FieldError } from '../meta/status.ts'
import { templateColumns } from './columns.ts'
import { validateReplicaSetStatus } from './status.ts'
import { nonNegative, validateSelectorAndTemplate } from './template.ts'

function validateReplicaSet({ spec }: ReplicaSet): FieldError[] {
  const errors: FieldError[] = []
  nonNegative(spec.replicas, 'spec.replicas', errors)
  nonNegative(spec.minReadySeconds, 'spec.minReadySeconds', errors)
  validateSelectorAndTemplate(spec.selector, spec.template, 'deployment', errors)
  return errors
}

export const replicaSet = defineKind<ReplicaSet>({
  resource: replicaSets,
  message: 'apps/v1.ReplicaSet',
  description: 'Keeps a number of equal pods running.',
  shortNames: ['rs'],
  categories: ['all'],
  hasGeneration: true,
  subresources: [scaleSubresource, statusSubresource],
  scale: {
    specReplicas: '.spec.replicas',
    statusReplicas: '.status.replicas',
    labelSelector: '.spec.selector',
  },
  defaults({ spec }) {
    spec.replicas ??= 1
    defaultTemplate(spec.template)
  },
  prepareCreate(object) {
    object.status = { replicas: 0 }
  },
  validate: validateReplicaSet,
  validateUpdate: (next, old) => [
    ...validateReplicaSet(next),
    ...immutable(next.spec.selector, old.spec.selector, 'spec.selector'),
  ],
  validateStatusUpdate: validateReplicaSetStatus,
  columns: [
    nameColumn,
    column('Desired', 'Pods there should be.', ({ spec }) => spec.replicas ?? 0, 'integer'),
    column('Current', 'Pods there are.', ({ status }) => status.replicas ?? 0, 'integer'),
    column('Ready', 'Pods that are ready.', ({ status }) => status.readyReplicas ?? 0, 'integer'),
    ageColumn,
    ...templateColumns('<error>', '<none>'),
  ],
})
