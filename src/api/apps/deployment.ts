import { defaultTemplate } from '../core/pod/defaults.ts'
import type { Deployment } from '../gen/apps-v1.ts'
import { deployments } from '../gen/resources.ts'
import { ageColumn, column, nameColumn } from '../meta/columns.ts'
import { defineKind, scaleSubresource, statusSubresource } from '../meta/define.ts'
import { goForm } from '../meta/go-form.ts'
import { immutable } from '../meta/object-meta.ts'
import { type FieldError, fieldError } from '../meta/status.ts'
import { templateColumns } from './columns.ts'
import { atMostAll, isNothing, validateAmount } from './rolling.ts'
import { validateDeploymentStatus } from './status.ts'
import { nonNegative, validateSelectorAndTemplate } from './template.ts'

const int32Max = 2 ** 31 - 1

function defaultDeployment(object: Deployment): void {
  const { spec } = object
  spec.replicas ??= 1
  spec.strategy ??= {}
  const { strategy } = spec
  strategy.type ||= 'RollingUpdate'
  if (strategy.type === 'RollingUpdate') {
    strategy.rollingUpdate ??= {}
    strategy.rollingUpdate.maxUnavailable ??= '25%'
    strategy.rollingUpdate.maxSurge ??= '25%'
  }
  spec.revisionHistoryLimit ??= 10
  spec.progressDeadlineSeconds ??= 600
  defaultTemplate(spec.template)
}

function validateStrategy({ spec: { strategy } }: Deployment, errors: FieldError[]): void {
  const at = 'spec.strategy'
  if (strategy.type === 'Recreate') {
    if (strategy.rollingUpdate !== undefined) {
      errors.push(
        fieldError.forbidden(`${at}.rollingUpdate`, "may not be specified when strategy `type` is 'Recreate'"),
      )
    }
  } else if (strategy.type === 'RollingUpdate') {
    const { rollingUpdate } = strategy
    if (rollingUpdate === undefined) {
      errors.push(fieldError.required(`${at}.rollingUpdate`, 'this should be defaulted and never be nil'))
      return
    }
    const { maxUnavailable, maxSurge } = rollingUpdate
    validateAmount(maxUnavailable, `${at}.rollingUpdate.maxUnavailable`, errors)
    validateAmount(maxSurge, `${at}.rollingUpdate.maxSurge`, errors)
    if (isNothing(maxUnavailable) && isNothing(maxSurge)) {
      errors.push(
        fieldError.invalid(
          `${at}.rollingUpdate.maxUnavailable`,
          maxUnavailable ?? 0,
          'may not be 0 when `maxSurge` is 0',
        ),
      )
    }
    atMostAll(maxUnavailable, `${at}.rollingUpdate.maxUnavailable`, errors)
  } else {
    errors.push(
      fieldError.notSupported(at, goForm(strategy, 'apps/v1.DeploymentStrategy'), ['Recreate', 'RollingUpdate']),
    )
  }
}

function validateDeployment(object: Deployment): FieldError[] {
  const { spec } = object
  const errors: FieldError[] = []
  nonNegative(spec.replicas, 'spec.replicas', errors)
  validateSelectorAndTemplate(spec.selector, spec.template, 'deployment', errors)
  validateStrategy(object, errors)
  nonNegative(spec.minReadySeconds, 'spec.minReadySeconds', errors)
  nonNegative(spec.revisionHistoryLimit, 'spec.revisionHistoryLimit', errors)
  const deadline = spec.progressDeadlineSeconds
  if (deadline !== undefined) {
    nonNegative(deadline, 'spec.progressDeadlineSeconds', errors)
    // The largest number means: wait for ever.
    if (deadline !== int32Max && deadline <= (spec.minReadySeconds ?? 0)) {
      errors.push(fieldError.invalid('spec.progressDeadlineSeconds', deadline, 'must be greater than minReadySeconds'))
    }
  }
  return errors
}

export const deployment = defineKind<Deployment>({
  resource: deployments,
  message: 'apps/v1.Deployment',
  description: 'Keeps a number of equal pods running, and replaces them step by step when their template changes.',
  shortNames: ['deploy'],
  categories: ['all'],
  hasGeneration: true,
  subresources: [scaleSubresource, statusSubresource],
  scale: {
    specReplicas: '.spec.replicas',
    statusReplicas: '.status.replicas',
    labelSelector: '.spec.selector',
  },
  defaults: defaultDeployment,
  validate: validateDeployment,
  validateUpdate: (next, old) => [
    ...validateDeployment(next),
    ...immutable(next.spec.selector, old.spec.selector, 'spec.selector'),
  ],
  validateStatusUpdate: validateDeploymentStatus,
  columns: [
    nameColumn,
    column(
      'Ready',
      'Pods that are ready, of all that should be.',
      ({ spec, status }) => `${status.readyReplicas ?? 0}/${spec.replicas ?? 0}`,
    ),
    column('Up-to-date', 'Pods that have the present template.', ({ status }) => status.updatedReplicas ?? 0, 'string'),
    column(
      'Available',
      'Pods that have been ready for long enough.',
      ({ status }) => status.availableReplicas ?? 0,
      'string',
    ),
    ageColumn,
    ...templateColumns('<invalid>', ''),
  ],
})
