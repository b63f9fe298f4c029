import type { Scale } from '#api/gen/autoscaling-v1.ts'
import type { KubeObject } from '#api/meta/resource.ts'
import { badRequest, fieldError, invalid, methodNotAllowed, notFound, StatusError } from '#api/meta/status.ts'
import { decodeBody, type Expected } from '#api/schema/decode.ts'
import { settleProblems } from '#api/schema/strict.ts'
import type { ApiResponse } from '#api/wire.ts'
import {
  bodyOf,
  checkedName,
  contextOf,
  dryRunOf,
  encodingFor,
  handlerExpected,
  integer,
  namespaceOf,
  notServed,
  placeIn,
  type ResourceCall,
  shown,
  validationOf,
} from './call.ts'
import { serveDelete, serveDeleteCollection } from './deletion.ts'
import { bodyFormat, type Form, negotiate } from './negotiate.ts'
import { parsePatch } from './patch.ts'
import { listObjects, parseRevision, tooLargeRevision } from './registry/list.ts'
import type { Registry } from './registry/registry.ts'
import { selectionOf } from './registry/select.ts'
import type { Served } from './registry/served.ts'
import type { Outcome, UpdateRequest } from './registry/write.ts'
import { asYaml, jsonResponse, Pieces, WatchBody } from './respond.ts'
import type { Route } from './route.ts'
import { applyScale, scaleExpected, scaleOf } from './scale.ts'
import type { SubresourceHandler } from './step.ts'
import { Watch, type WatchObserver, watchQueryOf } from './watch/watch.ts'

export interface ResourceParts {
  readonly registry: Registry
  /** `group/resource/subresource`, or `group/resource` for kinds that are not stored. */
  readonly subresources: ReadonlyMap<string, SubresourceHandler>
  readonly observe: (group: string, version: string, resource: string) => WatchObserver
  readonly random?: () => number
}

const noQuery = new URLSearchParams()
/** As for patches of whole objects. */
const patchTriesMax = 5

/** The verbs on stored objects, and the way to the handlers of everything else. */
export class Resources {
  readonly #parts: ResourceParts

  constructor(parts: ResourceParts) {
    this.#parts = parts
  }

  /** Whether the path leads anywhere: others are 404 whoever asks. */
  find(route: Route): Served | SubresourceHandler | undefined {
    const { group, version, resource, subresource } = route
    const served = this.#parts.registry.find(group, version, resource)
    if (subresource === '') return served ?? this.#parts.subresources.get(`${group}/${resource}`)
    if (!served?.definition.subresources.some((each) => each.name === subresource)) return undefined
    return served
  }

  async serve(call: ResourceCall): Promise<ApiResponse> {
    const { group, version, resource, subresource } = call.route
    const handler = this.#parts.subresources.get(
      subresource === '' ? `${group}/${resource}` : `${group}/${resource}/${subresource}`,
    )
    const served = this.#parts.registry.find(group, version, resource)
    if (handler) {
      if (served && subresource === '') checkVerb(served, call.route)
      return this.#handled(call, handler, served)
    }
    if (served === undefined) throw notServed()
    if (subresource === 'scale' && served.definition.scale) return this.#scale(call, served)
    if (subresource === '') return this.#verb(call, served)
    const declared = served.definition.subresources.find((each) => each.name === subresource)
    if (declared === undefined) throw notServed()
    if (subresource !== 'status' && subresource !== 'finalize') {
      throw badRequest(`the subresource ${subresource} is reached by an Upgrade to a stream`)
    }
    if (!declared.verbs.includes(call.route.verb)) throw methodNotAllowed(served.definition.resource, call.route.verb)
    switch (call.route.verb) {
      case 'get':
        return this.#get(call, served)
      case 'update':
        return this.#update(call, served, subresource)
      default:
        return this.#patch(call, served, subresource)
    }
  }

  #verb(call: ResourceCall, served: Served): Promise<ApiResponse> | ApiResponse {
    const { route } = call
    checkVerb(served, route)
    const { namespaced } = served.definition.resource
    // Across all namespaces one can only look; and what has no namespace is not found in one.
    if (namespaced && route.namespace === '' && route.verb !== 'list' && route.verb !== 'watch') {
      throw route.name === '' ? methodNotAllowed(served.definition.resource, route.verb) : notServed()
    }
    if (!namespaced && route.namespace !== '' && route.resource !== 'namespaces') throw notServed()
    switch (route.verb) {
      case 'get':
        return this.#get(call, served)
      case 'list':
        return this.#list(call, served)
      case 'watch':
        return this.#watch(call, served)
      case 'create':
        return this.#create(call, served)
      case 'update':
        return this.#update(call, served, '')
      case 'patch':
        return this.#patch(call, served, '')
      case 'delete':
        return serveDelete(this.#parts.registry, call, served)
      case 'deletecollection':
        return serveDeleteCollection(this.#parts.registry, call, served)
      default:
        throw methodNotAllowed(served.definition.resource, route.verb)
    }
  }

  #get(call: ResourceCall, served: Served): ApiResponse | Promise<ApiResponse> {
    const { route, request, query } = call
    const { registry } = this.#parts
    if (query !== noQuery && query.has('resourceVersion')) {
      const wanted = parseRevision(query.get('resourceVersion') ?? '')
      if (wanted > registry.revision) throw tooLargeRevision(wanted, registry.revision)
    }
    const form = negotiate(request.headers.accept)
    const item = served.collection.get(namespaceOf(served, route), route.name)
    if (item === undefined) throw notFound(served.definition.resource, route.name)
    const encoding = encodingFor(served, form, query)
    return shown(200, encoding.one(item), encoding, form)
  }

  async #list(call: ResourceCall, served: Served): Promise<ApiResponse> {
    const { route, request, query } = call
    const form = negotiate(request.headers.accept)
    const encoding = encodingFor(served, form, query)
    const selection = selectionOf(
      served,
      namespaceOf(served, route),
      query.get('labelSelector') ?? '',
      query.get('fieldSelector') ?? '',
    )
    if (query.get('sendInitialEvents')) {
      throw invalid('meta.k8s.io', 'ListOptions', '', [
        fieldError.forbidden('sendInitialEvents', 'sendInitialEvents is forbidden for list'),
      ])
    }
    const pieces = await listObjects(
      served,
      this.#parts.registry.store,
      selection,
      {
        limit: integer(query, 'limit'),
        continue: query.get('continue') ?? '',
        resourceVersion: query.get('resourceVersion') ?? '',
        resourceVersionMatch: query.get('resourceVersionMatch') ?? '',
      },
      encoding,
    )
    const contentType = encoding.contentType.replace('as=PartialObjectMetadata;', 'as=PartialObjectMetadataList;')
    const response = { status: 200, headers: { 'content-type': contentType }, body: new Pieces(pieces) }
    return form.format === 'yaml' ? asYaml(response) : response
  }

  #watch(call: ResourceCall, served: Served): ApiResponse {
    const { route, request, query } = call
    const { registry, observe, random = Math.random } = this.#parts
    const form = negotiate(request.headers.accept)
    if (form.format === 'yaml') throw badRequest('a watch is answered as JSON only')
    const encoding = encodingFor(served, form, query)
    const selection = selectionOf(
      served,
      namespaceOf(served, route),
      query.get('labelSelector') ?? (route.name && !query.has('fieldSelector') ? '' : ''),
      query.get('fieldSelector') ?? (route.name === '' ? '' : `metadata.name=${route.name}`),
    )
    const watchQuery = watchQueryOf((name) => query.get(name) ?? '', parseRevision, random)
    const { group, version, resource } = route
    const watch = new Watch({
      served,
      store: registry.store,
      selection,
      encoding,
      query: watchQuery,
      clock: registry.clock,
      observer: observe(group, version, resource),
    })
    return { status: 200, headers: { 'content-type': encoding.contentType }, body: new WatchBody(watch, request) }
  }

  async #create(call: ResourceCall, served: Served): Promise<ApiResponse> {
    const { route, query } = call
    const form = negotiate(call.request.headers.accept)
    const object = this.#decode(call, served.expected, 'CreateOptions')
    return this.#createObject(call, served, form, object, query, route)
  }

  async #createObject(
    call: ResourceCall,
    served: Served,
    form: Form,
    object: KubeObject,
    query: URLSearchParams,
    route: Route,
  ): Promise<ApiResponse> {
    placeIn(served, object, route)
    const { item } = await this.#parts.registry.writer.create(served, object, contextOf(call, query, 'CreateOptions'))
    const encoding = encodingFor(served, form, query)
    return shown(201, encoding.one(item), encoding, form)
  }

  async #update(call: ResourceCall, served: Served, part: UpdateRequest['part']): Promise<ApiResponse> {
    const { route, query } = call
    const form = negotiate(call.request.headers.accept)
    const object = this.#decode(call, served.expected, 'UpdateOptions')
    placeIn(served, object, route)
    if (!object.metadata.name) {
      throw badRequest(`name must be provided`)
    }
    if (object.metadata.name !== route.name) {
      throw badRequest(
        `the name of the object (${object.metadata.name}) does not match the name on the URL (${route.name})`,
      )
    }
    const namespace = namespaceOf(served, route)
    const { definition, collection } = served
    if (part === '' && definition.createOnUpdate && collection.get(namespace, route.name) === undefined) {
      call.authorize({ ...call.attributes, verb: 'create' })
      if (object.metadata.uid) {
        throw new StatusError({
          status: 'Failure',
          code: 409,
          reason: 'Conflict',
          message: `Operation cannot be fulfilled on ${definition.resource.resource} "${route.name}": StorageError: invalid object, Code: 4, UID in precondition: ${object.metadata.uid}, UID in object meta: `,
        })
      }
      object.metadata.resourceVersion = ''
      return this.#createObject(call, served, form, object, query, route)
    }
    const unconditional = !object.metadata.resourceVersion
    const outcome = await this.#parts.registry.writer.update(
      served,
      {
        namespace,
        name: route.name,
        part,
        next: () => (unconditional ? structuredClone(object) : object) as KubeObject,
        retry: unconditional,
        versionRequired: part === '' && !definition.unconditionalUpdate,
      },
      contextOf(call, query, 'UpdateOptions'),
    )
    return this.#outcome(served, form, query, outcome)
  }

  async #patch(call: ResourceCall, served: Served, part: UpdateRequest['part']): Promise<ApiResponse> {
    const { route, query, request } = call
    const form = negotiate(request.headers.accept)
    const mode = validationOf(query, 'PatchOptions')
    const contentType = request.headers['content-type']
    const { definition, expected } = served
    const patch = parsePatch(bodyOf(call), contentType, definition, expected, mode, (text) => call.warn(text))
    const outcome = await this.#parts.registry.writer.update(
      served,
      {
        namespace: namespaceOf(served, route),
        name: route.name,
        part,
        next: (present) => checkedName(patch.apply(present), route.name),
        retry: true,
        versionRequired: false,
      },
      contextOf(call, query, 'PatchOptions'),
    )
    return this.#outcome(served, form, query, outcome)
  }

  #outcome(served: Served, form: Form, query: URLSearchParams, { item }: Outcome): ApiResponse | Promise<ApiResponse> {
    const encoding = encodingFor(served, form, query)
    return shown(200, encoding.one(item), encoding, form)
  }

  async #scale(call: ResourceCall, served: Served): Promise<ApiResponse> {
    const { route, query, request } = call
    const { scale: paths } = served.definition
    if (paths === undefined) throw notServed()
    const namespace = namespaceOf(served, route)
    const present = served.collection.get(namespace, route.name)
    if (route.verb === 'get') {
      if (present === undefined) throw notFound(served.definition.resource, route.name)
      return jsonResponse(200, scaleOf(served.read(present), paths))
    }
    if (route.verb !== 'update' && route.verb !== 'patch') {
      throw methodNotAllowed(served.definition.resource, route.verb)
    }
    const mode = validationOf(query, 'UpdateOptions')
    const definition = {
      resource: { group: 'autoscaling', version: 'v1', resource: 'scales', kind: 'Scale', namespaced: true },
    }
    const patch =
      route.verb === 'patch' &&
      parsePatch(bodyOf(call), request.headers['content-type'], definition, scaleExpected, mode, (text) =>
        call.warn(text),
      )
    const sent = patch ? undefined : (this.#decode(call, scaleExpected, 'UpdateOptions') as unknown as Scale)
    const { item } = await this.#parts.registry.writer.update(
      served,
      {
        namespace,
        name: route.name,
        part: '',
        next: (object) => {
          const scale = patch ? patch.apply(scaleOf(object, paths) as unknown as KubeObject) : sent
          return applyScale(object, scale as unknown as Scale, paths)
        },
        retry: true,
        versionRequired: false,
      },
      contextOf(call, query, 'UpdateOptions'),
    )
    return jsonResponse(200, scaleOf(served.read(item), paths))
  }

  async #handled(call: ResourceCall, handler: SubresourceHandler, served: Served | undefined): Promise<ApiResponse> {
    const { route, query, request, attributes } = call
    const { registry } = this.#parts
    const form = negotiate(request.headers.accept)
    const dryRun = dryRunOf(query, 'CreateOptions')
    const hand = (body: KubeObject | undefined) => {
      if (body && route.namespace !== '' && body.metadata && !body.metadata.namespace) {
        body.metadata.namespace = route.namespace
      }
      return handler({ request, attributes, body, query, dryRun, registry })
    }
    const answer =
      request.method === 'PATCH' && served
        ? await this.#patched(call, served, hand)
        : await hand(this.#handledBody(call, served))
    if ('object' in answer) {
      const response = jsonResponse(answer.status, answer.object)
      return form.format === 'yaml' ? asYaml(response) : response
    }
    return answer
  }

  #handledBody(call: ResourceCall, served: Served | undefined): KubeObject | undefined {
    const { method } = call.request
    const expected = method === 'POST' || method === 'PUT' ? handlerExpected(served, call.route) : undefined
    return expected && this.#decode(call, expected, method === 'POST' ? 'CreateOptions' : 'UpdateOptions')
  }

  /** A patch of a part that its handler writes: the object is patched and handed over as an update would be. */
  async #patched<T>(call: ResourceCall, served: Served, hand: (body: KubeObject) => Promise<T>): Promise<T> {
    const { route, query, request } = call
    const mode = validationOf(query, 'PatchOptions')
    const { definition, expected } = served
    const contentType = request.headers['content-type']
    const patch = parsePatch(bodyOf(call), contentType, definition, expected, mode, (text) => call.warn(text))
    for (let tries = 1; ; tries++) {
      const item = served.collection.get(namespaceOf(served, route), route.name)
      if (item === undefined) throw notFound(definition.resource, route.name)
      try {
        return await hand(checkedName(patch.apply(served.copyOf(item)), route.name))
      } catch (error) {
        // Somebody else was faster; a version that the patch itself names stays wrong.
        if (!(error instanceof StatusError && error.code === 409) || tries === patchTriesMax) throw error
      }
    }
  }

  #decode(call: ResourceCall, expected: Expected, options: string): KubeObject {
    const format = bodyFormat(call.request.headers['content-type'], expected.message !== undefined)
    const mode = validationOf(call.query, options)
    const { object, problems } = decodeBody(bodyOf(call), format, expected)
    if (problems.length > 0) for (const text of settleProblems(problems, mode, expected)) call.warn(text)
    object.metadata ??= {} as KubeObject['metadata']
    return object
  }
}

/** Throws MethodNotAllowed for what the kind does not take. */
function checkVerb({ definition }: Served, { verb, name }: Route): void {
  // The name of what is made is in its body.
  const isPlaced = verb !== 'create' || name === ''
  if (!definition.verbs.includes(verb) || !isPlaced) throw methodNotAllowed(definition.resource, verb)
}
