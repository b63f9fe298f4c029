import test, { type ExecutionContext } from 'ava'
import type { CustomResourceDefinition } from '#api/gen/apiextensions-v1.ts'
import { customResourceDefinitions } from '#api/gen/resources.ts'
import type { KindDefinition } from '#api/kind.ts'
import type { KubeObject, Resource } from '#api/meta/resource.ts'
import { kinds as builtIn } from '#api/scheme.ts'
import { eventually } from '#base/async/eventually.ts'
import { FakeClock } from '#base/clock.ts'
import { silentLog } from '#base/log/log.ts'
import { FakeRegistry } from '../fake-registry.ts'
import { type Answer, startTrial } from '../trial.ts'
import { CustomResources, cleanupFinalizer } from './crd.ts'
import { fromCustomResourceDefinition } from './custom-kind.ts'
import { installDefinitions } from './install.ts'
import type { CustomKind } from './kind.ts'
import { decideNames } from './names.ts'
import { definition, errorsOf, type Json, kindOf, widget } from './widgets.ts'

test('a custom kind is pruned by its schema, and tells what it removed', (t) => {
  const object = widget({
    size: 1,
    foo: 1,
    any: { kept: { deep: true } },
    parts: [{ id: 'a', bar: 1 }],
    limits: { x: 1 },
    pod: { apiVersion: 'v1', kind: 'Pod', metadata: { name: 'p' }, other: 1 },
  })
  t.deepEqual(kindOf(definition()).conform?.(object), ['spec.foo', 'spec.parts[0].bar', 'spec.pod.other'])
  t.deepEqual(object.spec, {
    size: 1,
    any: { kept: { deep: true } },
    parts: [{ id: 'a' }],
    limits: { x: 1 },
    pod: { apiVersion: 'v1', kind: 'Pod', metadata: { name: 'p' } },
  })
})

test('defaults are filled in at every depth, also for a null that is not allowed', (t) => {
  const object = widget({ size: 1, color: null, maybe: null, name: null, parts: [{ id: 'a' }, { id: 'b', weight: 2 }] })
  kindOf(definition()).defaults(object)
  t.deepEqual(object.spec, {
    size: 1,
    color: 'red',
    maybe: null,
    parts: [
      { id: 'a', weight: 1 },
      { id: 'b', weight: 2 },
    ],
  })
})

for (const [spec, words] of [
  [{}, ['spec.size: Required value']],
  [{ size: 'x' }, ['spec.size: Invalid value: "string": spec.size in body must be of type integer: "string"']],
  [{ size: 0 }, ['spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1']],
  [{ size: 11 }, ['spec.size: Invalid value: 11: spec.size in body should be less than or equal to 10']],
  [{ size: 1, color: 'blue' }, ['spec.color: Unsupported value: "blue": supported values: "red", "green"']],
  [{ size: 1, name: 'A1' }, [`spec.name: Invalid value: "A1": spec.name in body should match '^[a-z]+$'`]],
  [{ size: 1, name: 'abcdef' }, ['spec.name: Too long: may not be more than 5 bytes']],
  [
    { size: 1, when: 'today' },
    ['spec.when: Invalid value: "today": spec.when in body must be of type date-time: "today"'],
  ],
  [
    { size: 1, port: true },
    ['spec.port: Invalid value: "boolean": spec.port in body must be of type integer,string: "boolean"'],
  ],
  [{ size: 1, tags: ['a', 'b', 'a'] }, ['spec.tags[2]: Duplicate value: "a"']],
  [{ size: 1, tags: ['a', 'b', 'c', 'd'] }, ['spec.tags: Too many: 4: must have at most 3 items']],
  [{ size: 1, parts: [{ id: 'a' }, { id: 'a' }] }, ['spec.parts[1]: Duplicate value: {"id":"a"}']],
  [
    { size: 1, limits: { x: 'y' } },
    ['spec.limits.x: Invalid value: "string": spec.limits.x in body must be of type integer: "string"'],
  ],
  [
    { size: 1, port: 80, name: 'a' },
    [
      'spec: Invalid value: {"size":1,"port":80,"name":"a"}: "spec" must validate one and only one schema (oneOf). Found 2 valid alternatives',
    ],
  ],
  [{ size: 1, port: '80', maybe: null }, []],
] as const)
  test(`validation of ${JSON.stringify(spec)} ${words.length === 0 ? 'finds nothing' : 'uses upstream words'}`, (t) => {
    t.deepEqual(errorsOf(spec as Json), [...words])
  })

test('an update is not refused for what it does not change', (t) => {
  const kind = kindOf(definition())
  const old = widget({ size: 99, color: 'red' })
  t.deepEqual(kind.validateUpdate(widget({ size: 99, color: 'green' }), old), [])
  t.is(kind.validateUpdate(widget({ size: 98, color: 'green' }), old).length, 1)
})

test('status and scale appear where the definition asks for them, and status is kept from other writes', (t) => {
  const scale = {
    specReplicasPath: '.spec.size',
    statusReplicasPath: '.status.ready',
    labelSelectorPath: '.status.selector',
  }
  const kind = kindOf(definition('widgets', { version: { subresources: { status: {}, scale } } }))
  t.deepEqual(
    kind.subresources.map((s) => s.name),
    ['status', 'scale'],
  )
  t.deepEqual(kind.scale, {
    specReplicas: '.spec.size',
    statusReplicas: '.status.ready',
    labelSelector: '.status.selector',
  })
  const created = widget({ size: 1 }, { status: { ready: 1 } })
  kind.prepareCreate?.(created)
  t.false('status' in created)
  const next = widget({ size: 2 }, { status: { ready: 5 } })
  kind.prepareUpdate?.(next, widget({ size: 1 }, { status: { ready: 1 } }))
  t.deepEqual(next.status, { ready: 1 })
})

test('columns and selectable fields are read by JSONPath', (t) => {
  const kind = kindOf(
    definition('widgets', {
      version: {
        additionalPrinterColumns: [
          { name: 'Size', type: 'integer', jsonPath: '.spec.size' },
          { name: 'Ready', type: 'string', jsonPath: '.status.conditions[?(@.type=="Ready")].status', priority: 1 },
          { name: 'Label', type: 'string', jsonPath: ".metadata.labels['a\\.b/c']" },
          { name: 'Age', type: 'date', jsonPath: '.metadata.creationTimestamp' },
        ],
        selectableFields: [{ jsonPath: '.spec.color' }],
      },
    }),
  )
  const object = widget(
    { size: 3, color: 'red' },
    {
      status: {
        conditions: [
          { type: 'A', status: 'x' },
          { type: 'Ready', status: 'True' },
        ],
      },
    },
  )
  object.metadata.labels = { 'a.b/c': 'yes' }
  const now = Date.parse('2026-01-01T00:05:00Z')
  t.deepEqual(
    kind.columns.map((c) => [c.name, c.priority, c.cell(object, now)]),
    [
      ['Name', 0, 'a'],
      ['Size', 0, 3],
      ['Ready', 1, 'True'],
      ['Label', 0, 'yes'],
      ['Age', 0, '5m'],
    ],
  )
  t.is(kind.selectableFields['spec.color']?.(object), 'red')
})

test('objects of several versions are stored in one form and read in each', (t) => {
  const d = definition()
  const [v1] = d.spec.versions
  if (v1 === undefined) throw new Error('no version')
  const beta = {
    ...v1,
    name: 'v1beta1',
    storage: false,
    schema: {
      openAPIV3Schema: {
        type: 'object',
        properties: { spec: { type: 'object', properties: { size: { type: 'integer' } } } },
      },
    },
  }
  d.spec.versions.push(beta)
  const kind = fromCustomResourceDefinition(d).find((k) => k.resource.version === 'v1beta1')
  t.is(kind?.stored?.to(widget({ size: 1 })).apiVersion, 'example.com/v1')
  const shown = kind?.stored?.from(widget({ size: 1, color: 'red' })) as KubeObject & Json
  t.is(shown.apiVersion, 'example.com/v1beta1')
  t.deepEqual(shown.spec, { size: 1 })
})

class Host {
  readonly served = new Map<string, KindDefinition>()

  async serve(kind: KindDefinition): Promise<void> {
    this.served.set(`${kind.resource.resource}.${kind.resource.version}`, kind)
  }

  forget({ resource, version }: Resource): void {
    this.served.delete(`${resource}.${version}`)
  }
}

/** Runs while the test does; stops and is waited for at its end. */
async function running(t: ExecutionContext, registry: FakeRegistry): Promise<{ host: Host; clock: FakeClock }> {
  const [host, clock] = [new Host(), new FakeClock()]
  const custom = new CustomResources({ registry, host, builtIn: [], clock, log: silentLog })
  const stop = new AbortController()
  await custom.start()
  const run = custom.run(stop.signal)
  t.teardown(async () => {
    stop.abort()
    await run
  })
  return { host, clock }
}

/** Waits for the change of a definition that makes the condition true. */
function until(
  registry: FakeRegistry,
  name: string,
  is: (d: CustomResourceDefinition | undefined) => boolean,
): Promise<void> {
  return new Promise((resolve) => {
    const look = (): void => {
      if (is(registry.get(customResourceDefinitions, '', name))) resolve()
    }
    registry.onChange(customResourceDefinitions, look)
    look()
  })
}

const conditions = (d: CustomResourceDefinition | undefined): Record<string, string> =>
  Object.fromEntries((d?.status.conditions ?? []).map((c) => [c.type, `${c.status} ${c.reason}`]))

const isEstablished = (d: CustomResourceDefinition | undefined): boolean =>
  d?.status.conditions?.some((c) => c.type === 'Established' && c.status === 'True') === true

test('a definition is served first and established then', async (t) => {
  const registry = new FakeRegistry()
  const { host } = await running(t, registry)
  let servedBefore = false
  registry.onChange(customResourceDefinitions, (next) => {
    if (isEstablished(next)) servedBefore = host.served.has('widgets.v1')
  })
  await registry.create(customResourceDefinitions, definition())
  await until(registry, 'widgets.example.com', isEstablished)
  t.true(servedBefore)
  const now = registry.get(customResourceDefinitions, '', 'widgets.example.com')
  t.deepEqual(conditions(now), { NamesAccepted: 'True NoConflicts', Established: 'True InitialNamesAccepted' })
  t.deepEqual(now?.status.acceptedNames, {
    plural: 'widgets',
    singular: 'widget',
    kind: 'Widget',
    listKind: 'WidgetList',
  })
  t.deepEqual(now?.status.storedVersions, ['v1'])
  t.deepEqual(now?.metadata.finalizers, [cleanupFinalizer])
})

test('a name that is taken is not served until it is free', async (t) => {
  const registry = new FakeRegistry()
  const { host } = await running(t, registry)
  await registry.create(customResourceDefinitions, definition('widgets', { shortNames: ['w'] }))
  await until(registry, 'widgets.example.com', isEstablished)
  await registry.create(customResourceDefinitions, definition('wodgets', { shortNames: ['w'] }))
  await until(registry, 'wodgets.example.com', (d) => (d?.status.conditions?.length ?? 0) > 0)
  t.deepEqual(conditions(registry.get(customResourceDefinitions, '', 'wodgets.example.com')), {
    NamesAccepted: 'False ShortNamesConflict',
    Established: 'False NotAccepted',
  })
  t.false(host.served.has('wodgets.v1'))
  await registry.delete(customResourceDefinitions, '', 'widgets.example.com')
  await until(registry, 'wodgets.example.com', isEstablished)
  await eventually(() => !host.served.has('widgets.v1'))
  t.true(host.served.has('wodgets.v1'))
})

test('what is established in the store is served from the start', async (t) => {
  const registry = new FakeRegistry()
  const d = definition()
  d.status.conditions = [{ type: 'Established', status: 'True' }]
  registry.put(customResourceDefinitions, d)
  const { host } = await running(t, registry)
  t.true(host.served.has('widgets.v1'))
})

test('a definition goes only after its objects, and takes no new ones meanwhile', async (t) => {
  const registry = new FakeRegistry()
  const { host, clock } = await running(t, registry)
  await registry.create(customResourceDefinitions, definition())
  await until(registry, 'widgets.example.com', isEstablished)
  const { resource } = host.served.get('widgets.v1') as CustomKind
  registry.put(resource, widget({ size: 1 }))
  const held = widget({ size: 1 })
  held.metadata = { ...held.metadata, name: 'held', finalizers: ['x/y'], deletionTimestamp: '2026-01-01T00:00:00Z' }
  registry.put(resource, held)
  const present = registry.get(customResourceDefinitions, '', 'widgets.example.com') as CustomResourceDefinition
  registry.put(customResourceDefinitions, {
    ...present,
    metadata: { ...present.metadata, deletionTimestamp: '2026-01-01T00:00:00Z' },
  })
  await until(registry, 'widgets.example.com', (d) => conditions(d).Terminating === 'True InstanceDeletionInProgress')
  t.false(host.served.get('widgets.v1')?.verbs.includes('create'))
  await eventually(() => registry.get(resource, 'default', 'a') === undefined)
  t.deepEqual(registry.get(customResourceDefinitions, '', 'widgets.example.com')?.metadata.finalizers, [
    cleanupFinalizer,
  ])
  await registry.delete(resource, 'default', 'held')
  clock.advance(10_000)
  await until(registry, 'widgets.example.com', (d) => (d?.metadata.finalizers ?? []).length === 0)
  t.is(
    conditions(registry.get(customResourceDefinitions, '', 'widgets.example.com')).Terminating,
    'False InstanceDeletionCompleted',
  )
  await registry.delete(customResourceDefinitions, '', 'widgets.example.com')
  await eventually(() => host.served.size === 0)
  t.pass()
})

test('the condition of a protected group says where it was approved', (t) => {
  const of = (annotations: Record<string, string>): Record<string, string> => {
    const d = definition('widgets', { group: 'x.k8s.io' })
    d.metadata.annotations = annotations
    const { conditions: found } = decideNames(d, { resources: new Set(), kinds: new Set() })
    return conditions({ ...d, status: { ...d.status, conditions: [...found] } })
  }
  const type = 'KubernetesAPIApprovalPolicyConformant'
  t.is(of({ 'api-approved.kubernetes.io': 'https://example.com' })[type], 'True ApprovedAnnotation')
  t.is(of({ 'api-approved.kubernetes.io': 'unapproved, a test' })[type], 'False UnapprovedAnnotation')
  t.is(of({})[type], 'False MissingAnnotation')
})

test('a kind is served within 100 ms of its definition', async (t) => {
  await using trial = await startTrial({ kinds: builtIn })
  const tookMs: number[] = []
  for (const plural of ['ants', 'bees', 'cats', 'dogs', 'elks']) {
    const { metadata, spec } = definition(plural)
    const { name } = metadata
    const body = { apiVersion: 'apiextensions.k8s.io/v1', kind: 'CustomResourceDefinition', metadata: { name }, spec }
    const sent = performance.now()
    t.is((await trial.call('POST', '/apis/apiextensions.k8s.io/v1/customresourcedefinitions', body)).status, 201)
    const path = `/apis/example.com/v1/namespaces/default/${plural}`
    await eventually(async () => (await trial.call('GET', path)).status === 200)
    tookMs.push(performance.now() - sent)
  }
  // The quickest: tests share two cores.
  t.true(Math.min(...tookMs) < 100, `${tookMs.map(Math.round).join(', ')} ms`)
})

test('through the whole server: defined, created, judged, shown and removed', async (t) => {
  await using trial = await startTrial({ kinds: builtIn })
  const path = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions'
  const { metadata, spec } = definition('widgets', {
    version: { additionalPrinterColumns: [{ name: 'Size', type: 'integer', jsonPath: '.spec.size' }] },
  })
  const body = {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: metadata.name },
    spec,
  }
  t.is((await trial.call('POST', path, body)).status, 201)
  const widgets = '/apis/example.com/v1/namespaces/default/widgets'
  const one = { apiVersion: 'example.com/v1', kind: 'Widget', metadata: { name: 'a' }, spec: { size: 1, foo: 1 } }
  let created = await trial.call('POST', widgets, one)
  while (created.status === 404) created = await trial.call('POST', widgets, one)
  t.is(created.status, 201)
  t.deepEqual(created.object.spec, { size: 1, color: 'red' })
  t.regex(created.headers.warning ?? '', /unknown field \\"spec.foo\\"/)
  const strict = await trial.call('POST', `${widgets}?fieldValidation=Strict`, { ...one, metadata: { name: 'b' } })
  t.is(strict.status, 400)
  t.is(
    strict.object.message,
    'Widget in version "v1" cannot be handled as a Widget: strict decoding error: unknown field "spec.foo"',
  )
  const wrong = await trial.call('PUT', `${widgets}/a`, { ...created.object, spec: { size: 99 } })
  t.is(wrong.status, 422)
  t.regex(
    wrong.object.message ?? '',
    /spec.size: Invalid value: 99: spec.size in body should be less than or equal to 10/,
  )
  const discovered = await trial.call('GET', '/apis/example.com/v1')
  t.regex(discovered.text, /"name":"widgets"/)
  t.regex((await trial.call('GET', '/openapi/v3/apis/example.com/v1')).text, /com\.example\.v1\.Widget/)
  t.is((await trial.call('DELETE', `${path}/${metadata.name}`)).status, 200)
  await eventually(async () => (await trial.call('GET', `${path}/${metadata.name}`)).status === 404)
  await eventually(async () => (await trial.call('GET', widgets)).status === 404)
})

test('rules are checked when they are defined, and at every write', async (t) => {
  await using trial = await startTrial({ kinds: builtIn })
  const path = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions'
  const text = { type: 'string', maxLength: 20 }
  const withRule = (rule: string): Json => {
    const spec = {
      type: 'object',
      properties: { a: text, b: text },
      'x-kubernetes-validations': [{ rule, message: 'a before b' }],
    }
    const openAPIV3Schema = {
      type: 'object',
      properties: { spec, status: { type: 'object', properties: { a: text } } },
    }
    const { metadata, spec: definitionSpec } = definition('widgets', {
      version: { schema: { openAPIV3Schema } as never, subresources: { status: {} } },
    })
    const kind = 'CustomResourceDefinition'
    return { apiVersion: 'apiextensions.k8s.io/v1', kind, metadata: { name: metadata.name }, spec: definitionSpec }
  }
  const refused = await trial.call('POST', path, withRule('self.c == 1'))
  t.is(refused.status, 422)
  t.deepEqual(
    refused.object.details?.causes?.map(({ field, reason }) => `${field} ${reason}`),
    ['spec.validation.openAPIV3Schema.properties[spec].x-kubernetes-validations[0].rule FieldValueInvalid'],
  )
  t.regex(refused.object.message ?? '', /compilation failed: ERROR: <input>:1:5: undefined field 'c'/)
  const defined = await trial.call('POST', path, withRule('self.a < self.b'))
  t.is(defined.status, 201)
  t.is(defined.headers.warning, undefined)
  const widgets = '/apis/example.com/v1/namespaces/default/widgets'
  const one = (a: string, b: string): Json => ({
    apiVersion: 'example.com/v1',
    kind: 'Widget',
    metadata: { name: 'w' },
    spec: { a, b },
  })
  await eventually(async () => (await trial.call('GET', widgets)).status === 200)
  const wrong = await trial.call('POST', widgets, one('y', 'x'))
  t.is(wrong.status, 422)
  t.is(wrong.object.message, 'Widget.example.com "w" is invalid: spec: Invalid value: a before b')
  t.is((await trial.call('POST', widgets, one('x', 'y'))).status, 201)
  const patch = (more: Json): Promise<Answer> =>
    trial.call('PATCH', `${widgets}/w`, more, { 'content-type': 'application/merge-patch+json' })
  t.is((await patch({ spec: { a: 'z' } })).status, 422)
  // A stricter rule does not lock up what is there: it warns.
  const stricter = withRule("self.a == 'nothing'")
  const rules = { 'content-type': 'application/merge-patch+json' }
  t.is((await trial.call('PATCH', `${path}/widgets.example.com`, stricter, rules)).status, 200)
  await eventually(async () => (await patch({ spec: { a: 'q' } })).status === 422)
  const tolerated = await patch({ metadata: { labels: { l: 'm' } } })
  t.is(tolerated.status, 200)
  t.regex(tolerated.headers.warning ?? '', /spec: Invalid value: a before b/)
})

test('definitions that come with the server are put in, and what somebody chose is left', async (t) => {
  const of = (bundle: string): CustomResourceDefinition => {
    const { metadata, spec, ...rest } = definition('widgets')
    return { ...rest, metadata: { ...metadata, annotations: { bundle } }, spec }
  }
  const registry = new FakeRegistry()
  const bundleOf = (d: CustomResourceDefinition | undefined): string | undefined => d?.metadata.annotations?.bundle
  const install = async (bundle: string): Promise<string | undefined> => {
    const supersedes = (ours: CustomResourceDefinition, present: CustomResourceDefinition): boolean =>
      (bundleOf(ours) ?? '') > (bundleOf(present) ?? '')
    await installDefinitions(registry, { definitions: () => [of(bundle)], supersedes }, { name: 'x', groups: [] })
    return bundleOf(registry.get(customResourceDefinitions, '', 'widgets.example.com'))
  }
  t.is(await install('1'), '1')
  t.is(await install('2'), '2')
  t.is(await install('1'), '2')
})

test('a version that objects may be stored in outlives the definition that had it', async (t) => {
  const ours = definition('widgets')
  const old: CustomResourceDefinition = structuredClone(ours)
  const [version] = old.spec.versions
  if (version === undefined) return t.fail('there is no version')
  old.spec.versions = [{ ...version, name: 'v0', storage: true }]
  old.status = { ...old.status, storedVersions: ['v0'] }
  const registry = new FakeRegistry().put(customResourceDefinitions, old)
  await installDefinitions(registry, { definitions: () => [ours], supersedes: () => true }, { name: 'x', groups: [] })
  const now = registry.get(customResourceDefinitions, '', 'widgets.example.com')
  t.deepEqual(
    now?.spec.versions.map(({ name, storage }) => `${name} ${storage}`),
    ['v1 true', 'v0 false'],
  )
  return undefined
})
