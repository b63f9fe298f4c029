import type { Scale } from '../gen/autoscaling-v1.ts'
import { defineKind } from '../meta/define.ts'
import { nonNegativeError } from '../meta/names.ts'
import type { Resource } from '../meta/resource.ts'
import { fieldError } from '../meta/status.ts'

/** The number of replicas of another object, served below it: `deployments/scale`. */
export const scales: Resource<Scale> = {
  group: 'autoscaling',
  version: 'v1',
  resource: 'scales',
  kind: 'Scale',
  namespaced: true,
}

export const scale = defineKind<Scale>({
  resource: scales,
  message: 'autoscaling/v1.Scale',
  description: 'How many replicas an object has and should have.',
  verbs: ['get', 'patch', 'update'],
  validate: ({ spec }) =>
    (spec?.replicas ?? 0) < 0 ? [fieldError.invalid('spec.replicas', spec.replicas, nonNegativeError)] : [],
})
