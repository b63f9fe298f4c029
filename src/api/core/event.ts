import type { Event } from '../gen/core-v1.ts'
import { events } from '../gen/resources.ts'
import type { Column } from '../kind.ts'
import { column, wideColumn } from '../meta/columns.ts'
import { defineKind } from '../meta/define.ts'
import { immutable } from '../meta/object-meta.ts'
import { type FieldError, fieldError } from '../meta/status.ts'
import { age } from '../meta/time.ts'

/** An event is about an object of its own namespace; about a cluster object it is in `default`. */
export function validateEvent(event: Event): FieldError[] {
  const at = event.involvedObject?.namespace ?? ''
  const { namespace } = event.metadata
  const fits = at === '' ? namespace === 'default' || namespace === 'kube-system' : at === namespace
  return fits ? [] : [fieldError.invalid('involvedObject.namespace', at, 'does not match event.namespace')]
}

/** What the newer API asks for, of events that come with its time. */
export function validateNewEvent(event: Event): FieldError[] {
  const errors: FieldError[] = []
  if (event.eventTime === undefined) errors.push(fieldError.required('eventTime'))
  if (!event.reportingComponent) errors.push(fieldError.required('reportingController'))
  if (!event.reportingInstance) errors.push(fieldError.required('reportingInstance'))
  else if (event.reportingInstance.length > 128) {
    errors.push(fieldError.invalid('reportingInstance', '', 'can have at most 128 characters'))
  }
  if (!event.action) errors.push(fieldError.required('action'))
  else if (event.action.length > 128) errors.push(fieldError.invalid('action', '', 'can have at most 128 characters'))
  if (!event.reason) errors.push(fieldError.required('reason'))
  else if (event.reason.length > 128) errors.push(fieldError.invalid('reason', '', 'can have at most 128 characters'))
  if ((event.message ?? '').length > 1024) {
    errors.push(fieldError.invalid('message', '', 'can have at most 1024 characters'))
  }
  if (event.type !== 'Normal' && event.type !== 'Warning') {
    errors.push(fieldError.invalid('type', '', 'has invalid value: '))
  }
  return errors
}

const firstSeen = (event: Event): string | undefined => event.firstTimestamp ?? event.eventTime
const lastSeen = (event: Event): string | undefined =>
  event.series?.lastObservedTime ?? event.lastTimestamp ?? firstSeen(event)

function sourceText({ source, reportingComponent, reportingInstance }: Event): string {
  const component = source?.component || reportingComponent || ''
  const host = source?.host || reportingInstance || ''
  return host === '' ? component : `${component}, ${host}`
}

export const eventColumns: readonly Column<Event>[] = [
  column('Last Seen', 'Time since it was last seen.', (event, now) => age(lastSeen(event), now)),
  column('Type', 'Normal or Warning.', ({ type }) => type ?? ''),
  column('Reason', 'Why it was made.', ({ reason }) => reason ?? ''),
  column('Object', 'What it is about.', ({ involvedObject }) =>
    involvedObject.name
      ? `${(involvedObject.kind ?? '').toLowerCase()}/${involvedObject.name}`
      : (involvedObject.kind ?? '').toLowerCase(),
  ),
  wideColumn('Subobject', 'Part of the object.', ({ involvedObject }) => involvedObject.fieldPath ?? ''),
  wideColumn('Source', 'Who reported it.', sourceText),
  column('Message', 'What happened.', ({ message }) => (message ?? '').trim()),
  wideColumn('First Seen', 'Time since it was first seen.', (event, now) => age(firstSeen(event), now)),
  wideColumn('Count', 'How often it was seen.', (event) => event.series?.count ?? (event.count || 1), 'string'),
  { ...wideColumn<Event>('Name', 'Name of the event.', ({ metadata }) => metadata.name), format: 'name' },
]

export const event = defineKind<Event>({
  resource: events,
  message: 'core/v1.Event',
  description: 'Something that happened to an object; kept for an hour.',
  shortNames: ['ev'],
  createOnUpdate: true,
  defaults(object) {
    object.involvedObject ??= {}
    object.source ??= {}
  },
  validate: validateEvent,
  validateUpdate(next, old) {
    const errors = validateEvent(next)
    // Events of the newer form only grow their series.
    if (old.eventTime !== undefined) {
      for (const field of ['involvedObject', 'reason', 'message', 'type', 'eventTime', 'action'] as const) {
        errors.push(...immutable(next[field], old[field], field))
      }
    }
    return errors
  },
  columns: eventColumns,
  selectableFields: {
    'involvedObject.kind': ({ involvedObject }) => involvedObject.kind ?? '',
    'involvedObject.namespace': ({ involvedObject }) => involvedObject.namespace ?? '',
    'involvedObject.name': ({ involvedObject }) => involvedObject.name ?? '',
    'involvedObject.uid': ({ involvedObject }) => involvedObject.uid ?? '',
    'involvedObject.apiVersion': ({ involvedObject }) => involvedObject.apiVersion ?? '',
    'involvedObject.resourceVersion': ({ involvedObject }) => involvedObject.resourceVersion ?? '',
    'involvedObject.fieldPath': ({ involvedObject }) => involvedObject.fieldPath ?? '',
    reason: ({ reason }) => reason ?? '',
    reportingComponent: ({ reportingComponent }) => reportingComponent ?? '',
    source: ({ source, reportingComponent }) => source?.component || (reportingComponent ?? ''),
    type: ({ type }) => type ?? '',
  },
})
