import { notFound, StatusError } from '#api/meta/status.ts'
import { decodeBody, type Expected } from '#api/schema/decode.ts'
import type { ApiResponse } from '#api/wire.ts'
import { contextOf, encodingFor, integer, namespaceOf, type ResourceCall, shown } from './call.ts'
import { bodyFormat, negotiate } from './negotiate.ts'
import { deleteObject, type Options } from './registry/delete.ts'
import type { Registry } from './registry/registry.ts'
import { selectionOf } from './registry/select.ts'
import type { Served } from './registry/served.ts'
import type { WriteContext } from './registry/write.ts'
import { jsonResponse } from './respond.ts'
import { isTrue } from './route.ts'

const deletesAtOnce = 64

/** Kinds whose DELETE answers with the object, as upstream has it; the others answer with a Status. */
const returnsObject = new Set([
  'Pod',
  'Service',
  'ServiceAccount',
  'PersistentVolumeClaim',
  'ResourceQuota',
  'PodTemplate',
])

const deleteOptionsExpected: Expected = { apiVersion: 'v1', kind: 'DeleteOptions', message: 'meta/v1.DeleteOptions' }

/** DELETE of one object. */
export async function serveDelete(registry: Registry, call: ResourceCall, served: Served): Promise<ApiResponse> {
  const { route, query } = call
  const form = negotiate(call.request.headers.accept)
  const options = deleteOptions(call)
  const context = contextOf(call, query, 'DeleteOptions', options)
  const namespace = namespaceOf(served, route)
  const item = served.collection.get(namespace, route.name)
  if (item === undefined) throw notFound(served.definition.resource, route.name)
  const outcome = await deleteOne(registry, served, namespace, route.name, options, context)
  const encoding = encodingFor(served, form, query)
  if (outcome.gone && !returnsObject.has(served.definition.resource.kind)) {
    const { group, resource } = served.definition.resource
    const { uid } = item.object.metadata
    return jsonResponse(200, {
      kind: 'Status',
      apiVersion: 'v1',
      metadata: {},
      status: 'Success',
      details: { name: route.name, ...(group === '' ? {} : { group }), kind: resource, uid },
    })
  }
  const cascades = options.orphanDependents === false || options.propagationPolicy === 'Foreground'
  return shown(!outcome.gone && cascades ? 202 : 200, encoding.one(outcome.item), encoding, form)
}

/** DELETE of all that the selectors take, one by one; what has gone meanwhile is no failure. */
export async function serveDeleteCollection(
  registry: Registry,
  call: ResourceCall,
  served: Served,
): Promise<ApiResponse> {
  const { route, query } = call
  const form = negotiate(call.request.headers.accept)
  const options = deleteOptions(call)
  const context = contextOf(call, query, 'DeleteOptions', options)
  const namespace = namespaceOf(served, route)
  const selection = selectionOf(served, namespace, query.get('labelSelector') ?? '', query.get('fieldSelector') ?? '')
  const items = [...served.collection.items(namespace)].filter((item) => selection.matches(item))
  const encoding = encodingFor(served, form, query)
  const resourceVersion = String(registry.revision)
  // In groups, so that the store can flush many at once, but neither all at once.
  for (let at = 0; at < items.length; at += deletesAtOnce) {
    const some = items.slice(at, at + deletesAtOnce)
    await Promise.all(
      some.map((item) => deleteUnlessGone(registry, served, item.namespace, item.name, options, context)),
    )
  }
  const { head, tail } = encoding.list({ resourceVersion })
  const body = Buffer.concat([
    Buffer.from(head),
    joinWithCommas(items.map((item) => encoding.element(item))),
    Buffer.from(tail),
  ])
  return shown(200, body, encoding, form)
}

async function deleteUnlessGone(
  registry: Registry,
  served: Served,
  namespace: string,
  name: string,
  options: Options,
  context: WriteContext,
): Promise<void> {
  try {
    await deleteOne(registry, served, namespace, name, options, context)
  } catch (error) {
    if (!(error instanceof StatusError) || error.code !== 404) throw error
  }
}

async function deleteOne(
  registry: Registry,
  served: Served,
  namespace: string,
  name: string,
  options: Options,
  context: WriteContext,
) {
  const item = served.collection.get(namespace, name)
  const { dryRun } = context
  const attributes = { ...context.attributes, name, namespace }
  const request = {
    attributes,
    operation: 'DELETE' as const,
    object: undefined,
    old: item && served.read(item),
    dryRun,
    warn: (text: string) => context.warn(text),
  }
  let outcome: 'written' | 'failed' = 'failed'
  try {
    registry.admission?.mutate(request)
    registry.admission?.validate(request)
    const result = await deleteObject(registry.writer, served, namespace, name, options, context, registry.clock.now())
    if (!dryRun) outcome = 'written'
    return result
  } finally {
    registry.admission?.settled(request, outcome)
  }
}

/** From the body, and from the query where there is no body. */
function deleteOptions(call: ResourceCall): Options {
  const { query, request } = call
  const body = request.body
  if (body !== undefined && body.length > 0) {
    const format = bodyFormat(request.headers['content-type'], true)
    const { object } = decodeBody(body, format, deleteOptionsExpected)
    return object as unknown as Options
  }
  const grace = query.get('gracePeriodSeconds')
  const policy = query.get('propagationPolicy')
  const orphan = query.get('orphanDependents')
  return {
    ...(grace === null ? {} : { gracePeriodSeconds: integer(query, 'gracePeriodSeconds') }),
    ...(policy === null || policy === '' ? {} : { propagationPolicy: policy }),
    ...(orphan === null ? {} : { orphanDependents: isTrue(orphan) }),
  }
}

function joinWithCommas(pieces: readonly Buffer[]): Buffer {
  return Buffer.concat(pieces.flatMap((piece, i) => (i === 0 ? [piece] : [Buffer.from(','), piece])))
}
