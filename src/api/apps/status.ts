import type { DaemonSet, Deployment, ReplicaSet } from '../gen/apps-v1.ts'
import { nonNegativeError } from '../meta/names.ts'
import { type FieldError, fieldError } from '../meta/status.ts'

/** What a controller may report: counts that are possible (kk:pkg/apis/apps/validation). */

interface Counts {
  readonly replicas?: number
  readonly fullyLabeledReplicas?: number
  readonly updatedReplicas?: number
  readonly readyReplicas?: number
  readonly availableReplicas?: number
}

/** Every number of a status, at its own place. */
function notNegative(status: object, errors: FieldError[]): void {
  for (const [field, value] of Object.entries(status)) {
    if (typeof value === 'number' && value < 0) {
      errors.push(fieldError.invalid(`status.${field}`, value, nonNegativeError))
    }
  }
}

function partsWithinWhole(status: Counts, errors: FieldError[]): void {
  const { replicas = 0, readyReplicas = 0, availableReplicas = 0 } = status
  for (const field of ['fullyLabeledReplicas', 'updatedReplicas', 'readyReplicas', 'availableReplicas'] as const) {
    const value = status[field] ?? 0
    if (value > replicas) {
      errors.push(fieldError.invalid(`status.${field}`, value, 'cannot be greater than status.replicas'))
    }
  }
  if (availableReplicas > readyReplicas) {
    errors.push(
      fieldError.invalid('status.availableReplicas', availableReplicas, 'cannot be greater than readyReplicas'),
    )
  }
}

export function validateReplicaSetStatus({ status }: ReplicaSet): FieldError[] {
  const errors: FieldError[] = []
  notNegative(status, errors)
  partsWithinWhole(status, errors)
  return errors
}

export function validateDeploymentStatus(next: Deployment, old: Deployment): FieldError[] {
  const errors: FieldError[] = []
  notNegative(next.status, errors)
  partsWithinWhole(next.status, errors)
  collisionsOnlyGrow(next, old, errors)
  return errors
}

export function validateDaemonSetStatus(next: DaemonSet, old: DaemonSet): FieldError[] {
  const errors: FieldError[] = []
  notNegative(next.status, errors)
  collisionsOnlyGrow(next, old, errors)
  return errors
}

/** The count is part of a hash: taken back, old names would come again. */
function collisionsOnlyGrow(next: Deployment | DaemonSet, old: Deployment | DaemonSet, errors: FieldError[]): void {
  const after = next.status.collisionCount ?? 0
  if (after < (old.status.collisionCount ?? 0)) {
    errors.push(fieldError.invalid('status.collisionCount', after, 'cannot be decremented'))
  }
}
