import type { DeleteOptions } from '#api/gen/meta-v1.ts'
import { foregroundFinalizer, orphanFinalizer } from '#api/meta/finalizers.ts'
import type { KubeObject } from '#api/meta/resource.ts'
import { badRequest, conflict, fieldError, invalid, notFound } from '#api/meta/status.ts'
import { formatTime } from '#api/meta/time.ts'
import type { Item } from './item.ts'
import type { Served } from './served.ts'
import { type Outcome, StaleRead, type WriteContext, type Writer } from './write.ts'

export type Options = Partial<DeleteOptions>

const deleteTries = 20

/** What a DELETE comes to: gone now, or marked and waiting for its finalizers or its grace. */
export async function deleteObject(
  writer: Writer,
  served: Served,
  namespace: string,
  name: string,
  options: Options,
  context: WriteContext,
  now: number,
): Promise<Outcome & { readonly gone: boolean }> {
  checkOptions(options)
  for (let attempt = 1; ; attempt++) {
    const item = served.collection.get(namespace, name)
    if (item === undefined) throw notFound(served.definition.resource, name)
    checkPreconditions(served, item, options)
    const marked = planDeletion(served, served.copyOf(item), options, now)
    try {
      if (marked === 'gone') return { ...(await writer.delete(served, item, context)), gone: true }
      if (marked === 'unchanged') return { item, written: false, gone: false }
      return { ...(await writer.mark(served, item, marked, context)), gone: false }
    } catch (error) {
      if (!(error instanceof StaleRead) || attempt >= deleteTries) throw error
    }
  }
}

function checkOptions({ propagationPolicy, orphanDependents, gracePeriodSeconds, preconditions }: Options): void {
  const errors = []
  if (propagationPolicy !== undefined && orphanDependents !== undefined) {
    errors.push(
      fieldError.invalid(
        'propagationPolicy',
        propagationPolicy,
        'orphanDependents and deletionPropagation cannot be both set',
      ),
    )
  }
  const policies = ['Foreground', 'Background', 'Orphan']
  if (propagationPolicy !== undefined && !policies.includes(propagationPolicy)) {
    errors.push(fieldError.notSupported('propagationPolicy', propagationPolicy, [...policies, 'nil']))
  }
  if (errors.length > 0) throw invalid('meta.k8s.io', 'DeleteOptions', '', errors)
  if (gracePeriodSeconds !== undefined && gracePeriodSeconds < 0 && gracePeriodSeconds !== -1) {
    throw badRequest('gracePeriodSeconds must be non-negative')
  }
  if (preconditions !== undefined && typeof preconditions !== 'object')
    throw badRequest('preconditions must be an object')
}

function checkPreconditions({ definition }: Served, item: Item, { preconditions }: Options): void {
  const { uid, resourceVersion } = item.object.metadata
  if (preconditions?.uid !== undefined && preconditions.uid !== uid) {
    throw conflict(
      definition.resource,
      item.name,
      `Precondition failed: UID in precondition: ${preconditions.uid}, UID in object meta: ${uid}`,
    )
  }
  if (preconditions?.resourceVersion !== undefined && preconditions.resourceVersion !== resourceVersion) {
    throw conflict(
      definition.resource,
      item.name,
      `Precondition failed: ResourceVersion in precondition: ${preconditions.resourceVersion}, ResourceVersion in object meta: ${resourceVersion}`,
    )
  }
}

/** The object marked for deletion (the argument, changed), or that it may go at once, or that nothing changes. Pure. */
export function planDeletion(
  { definition }: Pick<Served, 'definition'>,
  object: KubeObject,
  options: Options,
  now: number,
): KubeObject | 'gone' | 'unchanged' {
  const before = JSON.stringify(object)
  const { metadata } = object
  const finalizers = finalizersFor(metadata.finalizers ?? [], options, definition.defaultPropagation)
  const asked = options.gracePeriodSeconds
  const grace = Math.max(0, definition.graceSeconds?.(object, asked) ?? 0)
  if (finalizers.length > 0) metadata.finalizers = finalizers
  else delete metadata.finalizers
  if (metadata.deletionTimestamp === undefined) {
    if (finalizers.length === 0 && grace === 0 && !heldNamespace(object)) return 'gone'
    metadata.deletionTimestamp = formatTime(now + grace * 1000)
    metadata.deletionGracePeriodSeconds = grace
    if (definition.hasGeneration && (metadata.generation ?? 0) > 0) metadata.generation = (metadata.generation ?? 0) + 1
    if (object.kind === 'Namespace') setPhase(object, 'Terminating')
    return object
  }
  // Asked again: the time left can only get shorter.
  const left = metadata.deletionGracePeriodSeconds ?? 0
  if (grace < left && (asked !== undefined || grace === 0)) {
    const started = Date.parse(metadata.deletionTimestamp) - left * 1000
    metadata.deletionTimestamp = formatTime(started + grace * 1000)
    metadata.deletionGracePeriodSeconds = grace
  }
  const rest = metadata.deletionGracePeriodSeconds ?? 0
  if (rest === 0 && finalizers.length === 0 && !heldNamespace(object)) return 'gone'
  return JSON.stringify(object) === before ? 'unchanged' : object
}

/** `propagationPolicy` works through two finalizers that the garbage collector takes off. */
function finalizersFor(
  present: readonly string[],
  { propagationPolicy, orphanDependents }: Options,
  byDefault: 'Background' | 'Orphan' | undefined,
): string[] {
  const others = present.filter((each) => each !== orphanFinalizer && each !== foregroundFinalizer)
  const asked =
    propagationPolicy ?? (orphanDependents === undefined ? undefined : orphanDependents ? 'Orphan' : 'Background')
  if (asked === undefined && others.length < present.length) return [...present]
  switch (asked ?? byDefault) {
    case 'Orphan':
      return [...others, orphanFinalizer]
    case 'Foreground':
      return [...others, foregroundFinalizer]
    default:
      return others
  }
}

/** Namespaces are held by `spec.finalizers`, which the namespace controller takes off through `/finalize`. */
function heldNamespace(object: KubeObject): boolean {
  if (object.kind !== 'Namespace' || object.apiVersion !== 'v1') return false
  return ((object as { spec?: { finalizers?: readonly string[] } }).spec?.finalizers?.length ?? 0) > 0
}

function setPhase(object: KubeObject, phase: string): void {
  const holder = object as { status?: Record<string, unknown> }
  holder.status = { ...holder.status, phase }
}
