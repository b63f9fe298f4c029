import type { KindDefinition, Subresource } from '#api/kind.ts'
import { formatApiVersion } from '#api/meta/gvk.ts'
import { messageOfKind } from '#api/schema/protobuf.ts'
import { definitionOfKind, definitionOfMessage } from './names.ts'
import { gvkOf, listMessageOf, refTo, type Schema, type Style } from './schemas.ts'

type Method = 'get' | 'put' | 'post' | 'delete' | 'patch'

/** One parameter, in the words both versions share. */
interface Parameter {
  readonly name: string
  readonly in: 'query' | 'path'
  readonly type: 'string' | 'integer' | 'boolean'
  readonly description: string
}

const query = (name: string, type: Parameter['type'], description: string): Parameter => ({
  name,
  in: 'query',
  type,
  description,
})

const pretty = query('pretty', 'string', 'Indents the answer.')
const dryRun = query('dryRun', 'string', 'All: everything but the write itself is done.')
const fieldManager = query('fieldManager', 'string', 'Who is writing, for the record of managed fields.')
const fieldValidation = query(
  'fieldValidation',
  'string',
  'What unknown and duplicate fields lead to: Ignore, Warn or Strict.',
)
const force = query('force', 'boolean', 'Takes over fields that others manage.')
const resourceVersion = query('resourceVersion', 'string', 'The revision to read at or to start from.')
const listParameters: readonly Parameter[] = [
  query('allowWatchBookmarks', 'boolean', 'Lets the server send bookmarks in a watch.'),
  query('continue', 'string', 'The next page of a list.'),
  query('fieldSelector', 'string', 'Chooses objects by fields.'),
  query('labelSelector', 'string', 'Chooses objects by labels.'),
  query('limit', 'integer', 'The most objects to return at once.'),
  resourceVersion,
  query('resourceVersionMatch', 'string', 'How the revision is meant: Exact or NotOlderThan.'),
  query('sendInitialEvents', 'boolean', 'Starts a watch with what there is.'),
  query('timeoutSeconds', 'integer', 'Ends the request after this many seconds.'),
  query('watch', 'boolean', 'Follows changes instead of listing.'),
]
const deleteParameters: readonly Parameter[] = [
  dryRun,
  query('gracePeriodSeconds', 'integer', 'Seconds for an orderly end.'),
  query('ignoreStoreReadErrorWithClusterBreakingPotential', 'boolean', 'Removes an object that can no longer be read.'),
  query('orphanDependents', 'boolean', 'Leaves the objects that this one owns.'),
  query(
    'propagationPolicy',
    'string',
    'What becomes of the objects that this one owns: Orphan, Background or Foreground.',
  ),
]

const bodyTypes = ['application/json', 'application/yaml', 'application/vnd.kubernetes.protobuf']
const answerTypes = ['application/json', 'application/yaml']
const patchTypes = ['application/json-patch+json', 'application/merge-patch+json', 'application/apply-patch+yaml']

/** Paths and operations of what is served: clients look here for the parameters that a kind takes. */
export function buildPaths(kinds: readonly KindDefinition[], style: Style): Schema {
  const paths: Schema = {}
  for (const kind of kinds) Object.assign(paths, pathsOfKind(kind, style))
  return paths
}

function pathsOfKind(kind: KindDefinition, style: Style): Schema {
  const { group, version, resource, namespaced } = kind.resource
  const root = group === '' ? `/api/${version}` : `/apis/${group}/${version}`
  const base = namespaced ? `${root}/namespaces/{namespace}/${resource}` : `${root}/${resource}`
  const definition = definitionOfKind(kind)
  const listName = listMessageOf(kind)
  const list = listName === undefined ? `${definition}List` : definitionOfMessage(listName)
  const has = (verb: string): boolean => kind.verbs.includes(verb)
  const op = (method: Method, action: string, extra: Partial<Described>): Described => ({
    method,
    action,
    kind,
    gvk: gvkOf(kind.resource),
    answer: definition,
    parameters: [],
    ...extra,
  })
  const write = [dryRun, fieldManager, fieldValidation]
  const collection = [
    has('list') && op('get', 'list', { parameters: listParameters, answer: list }),
    has('create') && op('post', 'post', { parameters: write, body: definition }),
    has('deletecollection') &&
      op('delete', 'deletecollection', {
        parameters: [
          ...listParameters.filter((p) => p.name !== 'watch' && p.name !== 'allowWatchBookmarks'),
          ...deleteParameters,
        ],
        body: definitionOfMessage('meta/v1.DeleteOptions'),
        answer: definitionOfMessage('meta/v1.Status'),
      }),
  ]
  const item = [
    has('get') && op('get', 'get', {}),
    has('update') && op('put', 'put', { parameters: write, body: definition }),
    has('patch') && op('patch', 'patch', { parameters: [...write, force], body: definitionOfMessage('meta/v1.Patch') }),
    has('delete') &&
      op('delete', 'delete', {
        parameters: deleteParameters,
        body: definitionOfMessage('meta/v1.DeleteOptions'),
        answer: definitionOfMessage('meta/v1.Status'),
      }),
  ]
  const out: Schema = {}
  const add = (path: string, operations: readonly (Described | false)[]): void => {
    const kept = operations.filter((o) => o !== false)
    if (kept.length > 0) out[path] = pathItem(path, kept, style)
  }
  if (namespaced && has('list'))
    add(`${root}/${resource}`, [op('get', 'list', { parameters: listParameters, answer: list, everywhere: true })])
  add(base, collection)
  add(`${base}/{name}`, item)
  for (const sub of kind.subresources) add(`${base}/{name}/${sub.name}`, subresourceOperations(kind, sub, definition))
  return out
}

const connects = new Set(['exec', 'attach', 'portforward', 'proxy'])

function subresourceOperations(kind: KindDefinition, sub: Subresource, parent: string): Described[] {
  const group = sub.kind === undefined ? kind.resource.group : (sub.group ?? kind.resource.group)
  const version = sub.kind === undefined ? kind.resource.version : (sub.version ?? 'v1')
  const name = sub.kind ?? kind.resource.kind
  const message = sub.kind === undefined ? undefined : messageOfKind(formatApiVersion({ group, version }), sub.kind)
  const isStream = connects.has(sub.name) || sub.name === 'log'
  const definition = isStream ? undefined : message === undefined ? parent : definitionOfMessage(message)
  const methods: Readonly<Record<string, Method>> = {
    get: 'get',
    create: 'post',
    update: 'put',
    patch: 'patch',
    delete: 'delete',
  }
  const write = [dryRun, fieldManager, fieldValidation]
  return sub.verbs.flatMap((verb) => {
    const method = methods[verb]
    if (method === undefined) return []
    const body =
      method === 'get' || method === 'delete' || isStream
        ? undefined
        : method === 'patch'
          ? definitionOfMessage('meta/v1.Patch')
          : definition
    return [
      {
        method,
        action: connects.has(sub.name) ? 'connect' : method,
        kind,
        gvk: { group, version, kind: name },
        subresource: sub.name,
        parameters: body === undefined ? [] : method === 'patch' ? [...write, force] : write,
        answer: definition,
        ...(body === undefined ? {} : { body }),
      },
    ]
  })
}

interface Described {
  readonly method: Method
  readonly action: string
  readonly kind: KindDefinition
  readonly gvk: { readonly group: string; readonly version: string; readonly kind: string }
  readonly subresource?: string
  readonly parameters: readonly Parameter[]
  readonly body?: string
  /** Definition of the answer; undefined where it is a stream or a text. */
  readonly answer: string | undefined
  readonly everywhere?: boolean
}

function pathItem(path: string, operations: readonly Described[], style: Style): Schema {
  const inPath: Parameter[] = []
  if (path.includes('{name}'))
    inPath.push({ name: 'name', in: 'path', type: 'string', description: 'Name of the object.' })
  if (path.includes('{namespace}'))
    inPath.push({ name: 'namespace', in: 'path', type: 'string', description: 'Namespace of the object.' })
  return {
    ...Object.fromEntries(operations.map((o) => [o.method, operation(o, style)])),
    parameters: [...inPath, pretty].map((p) => parameter(p, style)),
  }
}

function parameter({ name, in: place, type, description }: Parameter, style: Style): Schema {
  const shape = style === 'v2' ? { type } : { schema: { type } }
  return { name, in: place, description, ...(place === 'path' ? { required: true } : {}), uniqueItems: true, ...shape }
}

const words: Readonly<Record<string, string>> = {
  list: 'Lists or watches',
  get: 'Reads one',
  post: 'Creates one',
  put: 'Replaces one',
  patch: 'Changes parts of one',
  delete: 'Deletes one',
  deletecollection: 'Deletes many',
  connect: 'Opens a connection to one',
}

function operation(described: Described, style: Style): Schema {
  const { method, action, kind, gvk, body, answer } = described
  const { group, version, resource, namespaced } = kind.resource
  const tag = `${group === '' ? 'core' : group.split('.')[0]}_${version}`
  const scope = described.everywhere === true ? 'AllNamespaces' : namespaced ? 'Namespaced' : ''
  const sub = described.subresource ?? ''
  const id = `${action}${tag.replace(/(^|_)(\w)/g, (_, _u, c: string) => c.toUpperCase())}${scope}${kind.resource.kind}${sub.replace(/^./, (c) => c.toUpperCase())}${action === 'connect' ? method : ''}`
  const parameters = described.parameters.map((p) => parameter(p, style))
  const consumes =
    method === 'patch'
      ? kind.message === undefined
        ? patchTypes
        : [...patchTypes, 'application/strategic-merge-patch+json']
      : bodyTypes
  const ok = method === 'post' ? '201' : '200'
  const schema = answer === undefined ? { type: 'string' } : refTo(style, answer)
  const common = {
    tags: [tag],
    operationId: id,
    description: `${words[action] ?? 'Calls'}: ${resource}${sub === '' ? '' : `/${sub}`}.`,
    'x-kubernetes-action': action,
    'x-kubernetes-group-version-kind': gvk,
  }
  if (style === 'v2') {
    const bodyParameter =
      body === undefined
        ? []
        : [{ in: 'body', name: 'body', required: method !== 'delete', schema: refTo(style, body) }]
    return {
      ...common,
      ...(body === undefined ? {} : { consumes }),
      produces: answerTypes,
      parameters: [...bodyParameter, ...parameters],
      responses: { [ok]: { description: 'OK', schema }, '401': { description: 'Unauthorized' } },
    }
  }
  const content = (types: readonly string[], of: Schema): Schema =>
    Object.fromEntries(types.map((t) => [t, { schema: of }]))
  return {
    ...common,
    parameters,
    ...(body === undefined
      ? {}
      : {
          requestBody: {
            required: method !== 'delete',
            content: content(method === 'patch' ? consumes : ['*/*'], refTo(style, body)),
          },
        }),
    responses: {
      [ok]: { description: 'OK', content: content(answerTypes, schema) },
      '401': { description: 'Unauthorized' },
    },
  }
}
