import test from 'ava'
import * as resources from '#api/gen/resources.ts'
import type { KindDefinition } from '#api/kind.ts'
import { allVerbs, defineKind, scaleSubresource, statusSubresource } from '#api/meta/define.ts'
import { messageOfKind } from '#api/schema/protobuf.ts'
import { Reader } from '#api/schema/protobuf-reader.ts'
import { type Field, findMessage, getMessage } from '#api/schema/table.ts'
import { kinds as served } from '#api/scheme.ts'
import type { ApiResponse } from '#api/wire.ts'
import type { CustomKind } from '../crd/kind.ts'
import { definitionOfMessage, scalarDefinitions } from './names.ts'
import { buildOpenApi } from './openapi.ts'

type Json = Record<string, unknown>

/** Every kind of the table, as if all were served. */
const builtIn = Object.values(resources)
  .map((resource) => {
    const { group, version, kind } = resource
    const message = messageOfKind(group === '' ? version : `${group}/${version}`, kind) ?? ''
    const subresources = kind === 'Deployment' ? [statusSubresource, scaleSubresource] : []
    return defineKind({ resource: resource as never, message, description: `One ${kind}.`, subresources })
  })
  .filter((kind) => kind.message !== '') as unknown as KindDefinition[]

const widget = {
  ...builtIn[0],
  resource: { group: 'example.com', version: 'v1', resource: 'widgets', kind: 'Widget', namespaced: true },
  message: undefined,
  definition: 'widgets.example.com',
  listKind: 'WidgetList',
  verbs: allVerbs,
  subresources: [],
  description: 'A widget.',
  schema: {
    type: 'object',
    properties: {
      spec: {
        type: 'object',
        properties: {
          size: { type: 'integer', nullable: true },
          port: { 'x-kubernetes-int-or-string': true },
          any: { type: 'object', 'x-kubernetes-preserve-unknown-fields': true },
        },
        oneOf: [{ required: ['size'] }, { required: ['port'] }],
      },
    },
  },
} as unknown as CustomKind

const openApi = buildOpenApi([...builtIn, widget], 'v1.36.0')
const protobuf = 'application/com.github.proto-openapi.spec.v2@v1.0+protobuf'

function ask(url: string, accept?: string, ifNoneMatch?: string): ApiResponse | undefined {
  const { pathname, searchParams } = new URL(url, 'http://localhost')
  return openApi({ path: pathname, query: searchParams, accept, ifNoneMatch })
}

function read(url: string): Json {
  return JSON.parse(Buffer.from(ask(url)?.body as Uint8Array).toString()) as Json
}

const v2 = read('/openapi/v2')
const definitions = v2.definitions as Record<string, Json>
const index = read('/openapi/v3').paths as Record<string, { serverRelativeURL: string }>
const v3Schemas = Object.assign(
  {},
  ...Object.values(index).map(({ serverRelativeURL }) => (read(serverRelativeURL).components as Json).schemas),
) as Record<string, Json>

/** The definition that a schema refers to, wherever the version puts the reference. */
function refOf(schema: Json | undefined): string | undefined {
  const inner = (schema?.allOf as Json[] | undefined)?.[0] ?? schema
  return (inner?.$ref as string | undefined)?.split('/').at(-1)
}

/** The properties of a schema, or of the property at the end of the path. */
function propertiesOf(schema: Json | undefined, ...path: string[]): Record<string, Json> {
  const properties = (schema?.properties ?? {}) as Record<string, Json>
  const [first, ...rest] = path
  return first === undefined ? properties : propertiesOf(properties[first], ...rest)
}

function checkField(field: Field, schema: Json | undefined): string | undefined {
  if (schema === undefined) return 'is missing'
  let element: Json | undefined = schema
  if (field.map) {
    if (schema.type !== 'object') return 'is no map'
    element = schema.additionalProperties as Json
  }
  if (field.repeated) {
    if (element?.type !== 'array') return 'is no list'
    element = element.items as Json
  }
  const scalar = scalarDefinitions[field.scalar as keyof typeof scalarDefinitions]
  const wanted = field.message === undefined ? scalar : definitionOfMessage(field.message)
  if (wanted !== undefined && refOf(element) !== wanted) return `does not refer to ${wanted}`
  if (wanted === undefined && element?.type === undefined) return 'has no type'
  if (field.patchMergeKey && schema['x-kubernetes-patch-merge-key'] !== field.patchMergeKey) return 'has no merge key'
  if (field.listType && schema['x-kubernetes-list-type'] !== field.listType) return 'has no list type'
  return undefined
}

for (const [version, schemas] of [
  ['v2', definitions],
  ['v3', v3Schemas],
] as const)
  test(`every field of every kind is in OpenAPI ${version}, with its type and merge keys`, (t) => {
    const seen = new Set<string>()
    const visit = (name: string): void => {
      if (seen.has(name)) return
      seen.add(name)
      const properties = (schemas[definitionOfMessage(name)]?.properties ?? {}) as Record<string, Json>
      for (const field of getMessage(name).fields.values()) {
        const wrong = checkField(field, properties[field.name])
        if (wrong !== undefined) t.fail(`${name}.${field.name} ${wrong}`)
        if (field.message !== undefined) visit(field.message)
      }
    }
    for (const { message } of builtIn) {
      visit(message ?? '')
      if (findMessage(`${message}List`)) visit(`${message}List`)
    }
    t.true(seen.size > 500)
  })

test('every kind that is served, and every kind of a subresource, has a definition that names it', (t) => {
  const api = buildOpenApi(served, 'v1.36.0')
  const body = api({
    path: '/openapi/v2',
    query: new URLSearchParams(),
    accept: undefined,
    ifNoneMatch: undefined,
  })?.body
  const all = (JSON.parse(Buffer.from(body as Uint8Array).toString()) as { definitions: Record<string, Json> })
    .definitions
  const named = new Set(
    Object.values(all).flatMap((d) =>
      ((d['x-kubernetes-group-version-kind'] ?? []) as Json[]).map((g) => `${g.group}/${g.version} ${g.kind}`),
    ),
  )
  for (const { resource, subresources } of served) {
    t.true(named.has(`${resource.group}/${resource.version} ${resource.kind}`), resource.kind)
    for (const sub of subresources)
      if (sub.kind !== undefined)
        t.true(named.has(`${sub.group ?? resource.group}/${sub.version ?? 'v1'} ${sub.kind}`), sub.kind)
  }
})

test('every reference leads somewhere', (t) => {
  for (const [schemas, prefix] of [
    [definitions, '#/definitions/'],
    [v3Schemas, '#/components/schemas/'],
  ] as const)
    JSON.stringify(schemas, (key, value: unknown) => {
      if (
        key === '$ref' &&
        typeof value === 'string' &&
        !(value.startsWith(prefix) && schemas[value.slice(prefix.length)])
      )
        t.fail(value)
      return value
    })
  t.pass()
})

test('kinds say their group, version and kind; required fields are named', (t) => {
  t.deepEqual(definitions['io.k8s.api.apps.v1.Deployment']?.['x-kubernetes-group-version-kind'], [
    { group: 'apps', version: 'v1', kind: 'Deployment' },
  ])
  t.deepEqual(definitions['io.k8s.api.apps.v1.DeploymentSpec']?.required, ['selector', 'template'])
  t.deepEqual(v3Schemas['io.k8s.api.core.v1.PodSpec']?.required, ['containers'])
  t.is(definitions['io.k8s.api.core.v1.Pod']?.description, 'One Pod.')
})

test('a patch says which parameters it takes, and scale is of its own kind', (t) => {
  const path = '/apis/apps/v1/namespaces/{namespace}/deployments/{name}'
  const item = (v2.paths as Record<string, Record<string, Json>>)[path]
  const names = ((item?.patch?.parameters ?? []) as Json[]).map((p) => p.name)
  for (const name of ['dryRun', 'fieldManager', 'fieldValidation', 'force']) t.true(names.includes(name), name)
  t.deepEqual(item?.patch?.['x-kubernetes-group-version-kind'], { group: 'apps', version: 'v1', kind: 'Deployment' })
  const scale = (v2.paths as Record<string, Record<string, Json>>)[`${path}/scale`]
  t.deepEqual(scale?.get?.['x-kubernetes-group-version-kind'], { group: 'autoscaling', version: 'v1', kind: 'Scale' })
})

test('a custom kind brings its schema; v2 leaves open what it cannot say', (t) => {
  t.true(propertiesOf(v3Schemas['com.example.v1.Widget'], 'spec').size?.nullable)
  const old = propertiesOf(definitions['com.example.v1.Widget'])
  t.deepEqual(old.spec, {
    type: 'object',
    properties: {
      size: {},
      port: { 'x-kubernetes-int-or-string': true },
      any: { 'x-kubernetes-preserve-unknown-fields': true },
    },
  })
  t.is(refOf(old.metadata), 'io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta')
})

test('the v3 index names each document by a hash that changes with its kinds', (t) => {
  t.regex(index['apis/apps/v1']?.serverRelativeURL ?? '', /^\/openapi\/v3\/apis\/apps\/v1\?hash=[0-9A-F]{128}$/)
  const same = buildOpenApi([...builtIn], 'v1.36.0')
  const other = buildOpenApi([{ ...widget, schema: { type: 'object' } } as CustomKind], 'v1.36.0')
  const of = (api: typeof openApi): Record<string, { serverRelativeURL: string }> => {
    const body = api({
      path: '/openapi/v3',
      query: new URLSearchParams(),
      accept: undefined,
      ifNoneMatch: undefined,
    })?.body
    return (JSON.parse(Buffer.from(body as Uint8Array).toString()) as { paths: typeof index }).paths
  }
  t.deepEqual(of(same)['apis/apps/v1'], index['apis/apps/v1'])
  t.notDeepEqual(of(other)['apis/example.com/v1'], index['apis/example.com/v1'])
  t.is(ask(index['apis/apps/v1']?.serverRelativeURL ?? '')?.headers['cache-control'], 'public, immutable')
})

test('v2 is there as protobuf, with every definition and path', (t) => {
  const response = ask('/openapi/v2', protobuf)
  t.is(response?.headers['content-type'], 'application/com.github.proto-openapi.spec.v2.v1.0+protobuf')
  const names = { paths: 0, definitions: 0 }
  const document = new Reader(response?.body as Uint8Array)
  while (document.more()) {
    const { number, wire } = document.tag()
    if (number !== 8 && number !== 9) {
      document.skip(wire)
      continue
    }
    const inner = new Reader(document.bytes())
    while (inner.more()) {
      inner.skip(inner.tag().wire)
      if (number === 8) names.paths++
      else names.definitions++
    }
  }
  t.deepEqual(names, {
    paths: Object.keys(v2.paths as Json).length,
    definitions: Object.keys(definitions).length,
  })
})

test('what we do not have is refused', (t) => {
  t.is(ask('/openapi/v3/apis/nothing/v1'), undefined)
  t.is(ask('/openapi/v4'), undefined)
  t.throws(() => ask('/openapi/v2', 'text/html'), { message: /only the following media types/ })
  t.is(ask('/openapi/v2', undefined, ask('/openapi/v2')?.headers.etag)?.status, 304)
})
