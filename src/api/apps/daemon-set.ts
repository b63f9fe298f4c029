import { defaultTemplate } from '../core/pod/defaults.ts'
import type { DaemonSet } from '../gen/apps-v1.ts'
import { daemonSets } from '../gen/resources.ts'
import { ageColumn, column, formatLabels, nameColumn } from '../meta/columns.ts'
import { defineKind, statusSubresource } from '../meta/define.ts'
import { goForm } from '../meta/go-form.ts'
import { immutable } from '../meta/object-meta.ts'
import { type FieldError, fieldError } from '../meta/status.ts'
import { templateColumns } from './columns.ts'
import { atMostAll, isNothing, validateAmount } from './rolling.ts'
import { validateDaemonSetStatus } from './status.ts'
import { nonNegative, validateSelectorAndTemplate } from './template.ts'

function validateStrategy({ spec: { updateStrategy } }: DaemonSet, errors: FieldError[]): void {
  const at = 'spec.updateStrategy'
  if (updateStrategy.type === 'OnDelete') return
  if (updateStrategy.type !== 'RollingUpdate') {
    errors.push(
      fieldError.notSupported(at, goForm(updateStrategy, 'apps/v1.DaemonSetUpdateStrategy'), [
        'RollingUpdate',
        'OnDelete',
      ]),
    )
    return
  }
  const { rollingUpdate } = updateStrategy
  if (rollingUpdate === undefined) {
    errors.push(fieldError.required(`${at}.rollingUpdate`))
    return
  }
  const { maxUnavailable, maxSurge } = rollingUpdate
  for (const [field, value] of [
    ['maxUnavailable', maxUnavailable],
    ['maxSurge', maxSurge],
  ] as const) {
    validateAmount(value, `${at}.rollingUpdate.${field}`, errors)
    atMostAll(value, `${at}.rollingUpdate.${field}`, errors)
  }
  if (!isNothing(maxUnavailable) && !isNothing(maxSurge)) {
    errors.push(
      fieldError.invalid(`${at}.rollingUpdate.maxSurge`, maxSurge, 'may not be set when maxUnavailable is non-zero'),
    )
  } else if (isNothing(maxUnavailable) && isNothing(maxSurge)) {
    errors.push(fieldError.required(`${at}.rollingUpdate.maxUnavailable`, 'cannot be 0 when maxSurge is 0'))
  }
}

function validateDaemonSet(object: DaemonSet): FieldError[] {
  const { spec } = object
  const errors: FieldError[] = []
  validateSelectorAndTemplate(spec.selector, spec.template, 'daemonset', errors)
  nonNegative(spec.minReadySeconds, 'spec.minReadySeconds', errors)
  validateStrategy(object, errors)
  nonNegative(spec.revisionHistoryLimit, 'spec.revisionHistoryLimit', errors)
  return errors
}

export const daemonSet = defineKind<DaemonSet>({
  resource: daemonSets,
  message: 'apps/v1.DaemonSet',
  description: 'Keeps one pod on every node that fits.',
  shortNames: ['ds'],
  categories: ['all'],
  hasGeneration: true,
  subresources: [statusSubresource],
  defaults({ spec }) {
    spec.updateStrategy ??= {}
    const { updateStrategy } = spec
    updateStrategy.type ||= 'RollingUpdate'
    if (updateStrategy.type === 'RollingUpdate') {
      updateStrategy.rollingUpdate ??= {}
      updateStrategy.rollingUpdate.maxUnavailable ??= 1
      updateStrategy.rollingUpdate.maxSurge ??= 0
    }
    spec.revisionHistoryLimit ??= 10
    defaultTemplate(spec.template)
  },
  prepareCreate(object) {
    object.status = {
      currentNumberScheduled: 0,
      numberMisscheduled: 0,
      desiredNumberScheduled: 0,
      numberReady: 0,
    }
    setTemplateGeneration(object, 1)
  },
  prepareUpdate(next, old) {
    const before = templateGeneration(old)
    const isChanged = JSON.stringify(next.spec.template) !== JSON.stringify(old.spec.template)
    setTemplateGeneration(next, isChanged ? before + 1 : before)
  },
  validate: validateDaemonSet,
  validateUpdate: (next, old) => [
    ...validateDaemonSet(next),
    ...immutable(next.spec.selector, old.spec.selector, 'spec.selector'),
  ],
  validateStatusUpdate: validateDaemonSetStatus,
  columns: [
    nameColumn,
    column('Desired', 'Nodes it should be on.', ({ status }) => status.desiredNumberScheduled ?? 0, 'integer'),
    column('Current', 'Nodes it is on.', ({ status }) => status.currentNumberScheduled ?? 0, 'integer'),
    column('Ready', 'Nodes where it is ready.', ({ status }) => status.numberReady ?? 0, 'integer'),
    column(
      'Up-to-date',
      'Nodes with the present template.',
      ({ status }) => status.updatedNumberScheduled ?? 0,
      'integer',
    ),
    column(
      'Available',
      'Nodes where it has been ready for long enough.',
      ({ status }) => status.numberAvailable ?? 0,
      'integer',
    ),
    column('Node Selector', 'Labels of the nodes it is for.', ({ spec }) =>
      formatLabels(spec.template?.spec?.nodeSelector),
    ),
    ageColumn,
    ...templateColumns('<error>', '<none>'),
  ],
})

/** Counted by upstream's server; read by clients that roll a DaemonSet back. */
const generationKey = 'deprecated.daemonset.template.generation'

const templateGeneration = ({ metadata }: DaemonSet): number => Number(metadata.annotations?.[generationKey] ?? 0)

function setTemplateGeneration(object: DaemonSet, generation: number): void {
  object.metadata.annotations = { ...object.metadata.annotations, [generationKey]: String(generation) }
}
