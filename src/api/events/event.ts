import { eventColumns, validateEvent } from '../core/event.ts'
import type { Event as CoreEvent } from '../gen/core-v1.ts'
import type { Event } from '../gen/events-v1.ts'
import { eventsEvents } from '../gen/resources.ts'
import type { Column, KindDefinition } from '../kind.ts'
import { defineKind } from '../meta/define.ts'
import { immutable } from '../meta/object-meta.ts'
import { sameJson } from '../meta/patch/json.ts'
import { type FieldError, fieldError } from '../meta/status.ts'

/** The newer form of events. Both forms are one object in the store, kept in the older. */

function toCoreEvent(event: Event): CoreEvent {
  const { regarding, note, reportingController, ...rest } = event
  const { deprecatedSource, deprecatedFirstTimestamp, deprecatedLastTimestamp, deprecatedCount, ...same } = rest
  return {
    ...same,
    apiVersion: 'v1',
    involvedObject: regarding ?? {},
    source: deprecatedSource ?? {},
    ...(note === undefined ? {} : { message: note }),
    ...(reportingController === undefined ? {} : { reportingComponent: reportingController }),
    ...(deprecatedFirstTimestamp === undefined ? {} : { firstTimestamp: deprecatedFirstTimestamp }),
    ...(deprecatedLastTimestamp === undefined ? {} : { lastTimestamp: deprecatedLastTimestamp }),
    ...(deprecatedCount === undefined ? {} : { count: deprecatedCount }),
  }
}

function fromCoreEvent(event: CoreEvent): Event {
  const { involvedObject, message, reportingComponent, source, firstTimestamp, lastTimestamp, count, ...same } = event
  const { eventTime, series, ...rest } = same
  return {
    ...rest,
    apiVersion: 'events.k8s.io/v1',
    // Required in this form: events of the older one have none.
    eventTime: (eventTime ?? null) as string,
    regarding: involvedObject ?? {},
    deprecatedSource: source ?? {},
    ...(series === undefined
      ? {}
      : { series: { count: series.count ?? 0, lastObservedTime: (series.lastObservedTime ?? null) as string } }),
    ...(message === undefined ? {} : { note: message }),
    ...(reportingComponent === undefined ? {} : { reportingController: reportingComponent }),
    ...(firstTimestamp === undefined ? {} : { deprecatedFirstTimestamp: firstTimestamp }),
    ...(lastTimestamp === undefined ? {} : { deprecatedLastTimestamp: lastTimestamp }),
    ...(count === undefined ? {} : { deprecatedCount: count }),
  }
}

/** Only the series of an event grows: all else is as it was. */
const fixed = [
  ['involvedObject', 'involvedObject'],
  ['reason', 'reason'],
  ['message', 'message'],
  ['source', 'source'],
  ['firstTimestamp', 'firstTimestamp'],
  ['lastTimestamp', 'lastTimestamp'],
  ['count', 'count'],
  ['type', 'type'],
  ['eventTime', 'eventTime'],
  ['action', 'action'],
  ['related', 'related'],
  ['reportingComponent', 'reportingController'],
  ['reportingInstance', 'reportingInstance'],
] as const

function validateSeries({ series }: CoreEvent): FieldError[] {
  if (series === undefined) return []
  const errors: FieldError[] = []
  if ((series.count ?? 0) < 2) errors.push(fieldError.invalid('series.count', '', 'should be at least 2'))
  if (!series.lastObservedTime) errors.push(fieldError.required('series.lastObservedTime'))
  return errors
}

/** The older fields are for reading: what is made in this form leaves them unset. */
function validateNew(event: CoreEvent): FieldError[] {
  const errors = validateSeries(event)
  if (!event.eventTime) errors.push(fieldError.required('eventTime'))
  if (event.type !== 'Normal' && event.type !== 'Warning') {
    errors.push(fieldError.invalid('type', '', `has invalid value: ${event.type ?? ''}`))
  }
  const unset = 'needs to be unset'
  for (const field of ['firstTimestamp', 'lastTimestamp', 'count'] as const) {
    if (event[field]) errors.push(fieldError.invalid(field, '', unset))
  }
  if (event.source.component || event.source.host) errors.push(fieldError.invalid('source', '', unset))
  return errors
}

const columns: readonly Column<Event>[] = eventColumns.map((column) => ({
  ...column,
  cell: (event, now) => column.cell(toCoreEvent(event), now),
}))

export const eventsEvent: KindDefinition<Event> = {
  ...defineKind<Event>({
    resource: eventsEvents,
    message: 'events/v1.Event',
    description: 'Something that happened to an object; kept for an hour.',
    shortNames: ['ev'],
    storage: 'events',
    createOnUpdate: true,
    defaults(object) {
      object.regarding ??= {}
      object.deprecatedSource ??= {}
    },
    validate(object) {
      const stored = toCoreEvent(object)
      return [...validateEvent(stored, 'reportingController'), ...validateNew(stored)]
    },
    validateUpdate(next, old) {
      const [after, before] = [toCoreEvent(next), toCoreEvent(old)]
      const errors = validateEvent(after, 'reportingController')
      if (!sameJson(after.series ?? null, before.series ?? null)) errors.push(...validateSeries(after))
      for (const [field, name] of fixed) errors.push(...immutable(after[field], before[field], name))
      return errors
    },
    columns,
    selectableFields: {
      reason: ({ reason }) => reason ?? '',
      reportingController: ({ reportingController }) => reportingController ?? '',
      type: ({ type }) => type ?? '',
      'regarding.kind': ({ regarding }) => regarding.kind ?? '',
      'regarding.namespace': ({ regarding }) => regarding.namespace ?? '',
      'regarding.name': ({ regarding }) => regarding.name ?? '',
      'regarding.uid': ({ regarding }) => regarding.uid ?? '',
      'regarding.apiVersion': ({ regarding }) => regarding.apiVersion ?? '',
      'regarding.resourceVersion': ({ regarding }) => regarding.resourceVersion ?? '',
      'regarding.fieldPath': ({ regarding }) => regarding.fieldPath ?? '',
    },
  }),
  stored: { apiVersion: 'v1', to: toCoreEvent, from: (object) => fromCoreEvent(object as CoreEvent) },
}
