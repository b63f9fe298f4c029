import type { Event } from '../gen/core-v1.ts'
import { events } from '../gen/resources.ts'
import type { Column } from '../kind.ts'
import { column, wideColumn } from '../meta/columns.ts'
import { defineKind } from '../meta/define.ts'
import { qualifiedName } from '../meta/names.ts'
import { type FieldError, fieldError } from '../meta/status.ts'
import { age } from '../meta/time.ts'

const lengths = { reportingInstance: 128, action: 128, reason: 128, message: 1024 } as const

/**
 * What every event must be. An event is about an object of its own namespace, or of the cluster; one that comes with
 * `eventTime` says who reported it and why. `reporter` is the name of that field in the form that was sent.
 */
export function validateEvent(event: Event, reporter: 'reportingComponent' | 'reportingController'): FieldError[] {
  const errors: FieldError[] = []
  const about = event.involvedObject?.namespace ?? ''
  const { namespace } = event.metadata
  const mismatch = fieldError.invalid('involvedObject.namespace', about, 'does not match event.namespace')
  if (event.eventTime === undefined || event.eventTime === null) {
    if (about === '' ? namespace !== 'default' : namespace !== about) errors.push(mismatch)
    return errors
  }
  if (about === '' && namespace !== 'default' && namespace !== 'kube-system') errors.push(mismatch)
  const component = event.reportingComponent ?? ''
  if (component === '') errors.push(fieldError.required(reporter))
  for (const words of qualifiedName(component)) errors.push(fieldError.invalid(reporter, component, words))
  for (const field of ['reportingInstance', 'action', 'reason'] as const) {
    if (!event[field]) errors.push(fieldError.required(field))
  }
  for (const field of ['reportingInstance', 'action', 'reason', 'message'] as const) {
    const max = lengths[field]
    if ((event[field] ?? '').length > max) {
      errors.push(fieldError.invalid(field, '', `can have at most ${max} characters`))
    }
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
  validate: (object) => validateEvent(object, 'reportingComponent'),
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
