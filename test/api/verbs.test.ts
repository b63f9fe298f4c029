import test, { type ExecutionContext } from 'ava'
import { stringify } from 'yaml'
import type { KindDefinition } from '#api/kind.ts'
import { closeEnvelope } from '#api/schema/protobuf.ts'
import { encodeMessage } from '#api/schema/protobuf-encode.ts'
import { kinds } from '#api/scheme.ts'
import { type Answer, openWatch, type Shown, startTrial, type Trial } from '#apiserver/trial.ts'
import { eventually } from '#base/async/eventually.ts'
import { manifestOf, minimal } from './minimal.ts'

/** The table of kinds and verbs: every kind that is stored is asked for everything that it says it takes, and for what it does not. */
const table = { accept: 'application/json;as=Table;v=v1;g=meta.k8s.io' }
const partial = { accept: 'application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io' }
const patches = {
  'application/merge-patch+json': (name: string) => ({ metadata: { labels: { [name]: 'merge' } } }),
  'application/strategic-merge-patch+json': (name: string) => ({ metadata: { labels: { [name]: 'strategic' } } }),
  'application/json-patch+json': (name: string) => [{ op: 'add', path: `/metadata/labels/${name}`, value: 'json' }],
}
const every = ['create', 'get', 'list', 'watch', 'update', 'patch', 'delete', 'deletecollection']

/** What only one object may have: the name says more of these kinds than that it is one. */
const fixedNames: Readonly<Record<string, string>> = { CustomResourceDefinition: 'things.example.com' }

/** What the whole server wants beyond what the kind alone does: a request that can be read, a namespace to ask about. */
const more: Readonly<Record<string, object>> = {
  CertificateSigningRequest: {
    spec: { ...(minimal.CertificateSigningRequest?.spec as object), signerName: 'a.example/b' },
  },
  SelfSubjectRulesReview: { spec: { namespace: 'default' } },
}

interface Asked {
  readonly kind: KindDefinition
  readonly path: string
  object(name: string): Record<string, unknown>
}

function about(kind: KindDefinition): Asked {
  const { group, version, resource, namespaced, kind: kindName } = kind.resource
  const apiVersion = group === '' ? version : `${group}/${version}`
  const place = namespaced ? '/namespaces/default' : ''
  const { metadata = {}, ...rest } = manifestOf(kind) as { metadata?: object }
  return {
    kind,
    path: `${group === '' ? `/api/${version}` : `/apis/${apiVersion}`}${place}/${resource}`,
    object: (name) => ({
      apiVersion,
      kind: kindName,
      metadata: { ...metadata, name: fixedNames[kindName] ?? name, labels: { made: 'here' } },
      ...rest,
      ...more[kindName],
    }),
  }
}

const title = ({ resource: { group, kind } }: KindDefinition): string => (group === '' ? kind : `${kind}.${group}`)

async function start(): Promise<Trial> {
  const trial = await startTrial({ kinds })
  // Pods wait for it otherwise.
  const account = { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'default' } }
  await trial.call('POST', '/api/v1/namespaces/default/serviceaccounts', account)
  return trial
}

for (const kind of kinds.filter(({ verbs }) => verbs.includes('get')))
  test(`${title(kind)}: every verb, in every form`, async (t) => {
    await using trial = await start()
    const asked = about(kind)
    await bodies(t, trial, asked)
    await reads(t, trial, asked)
    await writes(t, trial, asked)
    await parts(t, trial, asked)
    await ends(t, trial, asked)
    await refusals(t, trial, asked)
  })

/** A Binding answers for a pod that is there: src/apiserver/subresources. */
const questions = kinds.filter(({ verbs, resource }) => !verbs.includes('get') && resource.kind !== 'Binding')
for (const kind of questions)
  test(`${title(kind)}: a question in every form, and nothing that is kept`, async (t) => {
    await using trial = await start()
    const asked = about(kind)
    t.deepEqual(kind.verbs, ['create'])
    for (const [type, body] of Object.entries(formsOf(asked))) {
      const answer = ok(t, await trial.call('POST', asked.path, body, { 'content-type': type }), 201, type)
      t.is(answer.kind, kind.resource.kind)
    }
    await refusals(t, trial, asked)
  })

const ok = (t: ExecutionContext, answer: Answer, status: number, what: string): Shown => {
  t.is(answer.status, status, `${what}: ${answer.text.slice(0, 400)}`)
  return answer.object
}

function formsOf({ kind, object }: Asked): Readonly<Record<string, string | Uint8Array>> {
  const a = object('it')
  const { group, version, kind: kindName } = kind.resource
  const message = encodeMessage(kind.message ?? '', a)
  return {
    'application/json': JSON.stringify(a),
    'application/yaml': stringify(a),
    'application/vnd.kubernetes.protobuf': closeEnvelope(
      group === '' ? version : `${group}/${version}`,
      kindName,
      message,
    ),
  }
}

/** JSON, YAML and protobuf are the same object, and a trial of it leaves nothing. */
async function bodies(t: ExecutionContext, trial: Trial, asked: Asked): Promise<void> {
  const { path, kind } = asked
  const shown: object[] = []
  for (const [type, body] of Object.entries(formsOf(asked))) {
    const made = ok(t, await trial.call('POST', `${path}?dryRun=All`, body, { 'content-type': type }), 201, type)
    const { uid, creationTimestamp, resourceVersion, managedFields, ...metadata } = made.metadata
    t.true(uid !== '' && creationTimestamp !== '' && (managedFields?.length ?? 0) > 0, type)
    // A trial of a Service is given an address that another trial is given, too, or not; a volume's name is drawn.
    const text = JSON.stringify({ ...made, spec: kind.resource.kind === 'Service' ? undefined : made.spec, metadata })
    shown.push(JSON.parse(text.replaceAll(/kube-api-access-\w+/g, 'kube-api-access')))
  }
  for (const each of shown) t.deepEqual(each, shown[0])
  t.is((await trial.call('GET', `${path}/${nameIn(asked.object('it'))}`)).status, 404, 'tried only')
}

const nameIn = (object: Record<string, unknown>): string => (object.metadata as { name: string }).name

async function reads(t: ExecutionContext, trial: Trial, { kind, path, object }: Asked): Promise<void> {
  const a = object('it')
  const name = nameIn(a)
  const since = (await trial.call('GET', `${path}?limit=1`)).object.metadata.resourceVersion
  const made = ok(t, await trial.call('POST', path, a), 201, 'create')
  ok(t, await trial.call('POST', path, a), 409, 'create again')
  const got = ok(t, await trial.call('GET', `${path}/${name}`), 200, 'get')
  t.is(got.metadata.uid, made.metadata.uid)
  const rows = ok(t, await trial.call('GET', `${path}/${name}`, undefined, table), 200, 'Table')
  t.is(rows.kind, 'Table')
  t.is(((rows.rows as { cells: unknown[] }[])[0]?.cells ?? []).length, kind.columns.length)
  t.is(
    ok(t, await trial.call('GET', `${path}/${name}`, undefined, partial), 200, 'partial').kind,
    'PartialObjectMetadata',
  )
  for (const [query, count] of [
    ['labelSelector=made%3Dhere', 1],
    ['labelSelector=made%3Dthere', 0],
    [`fieldSelector=metadata.name%3D${name}`, 1],
    ['fieldSelector=metadata.name%3Danother', 0],
  ] as const) {
    const found = ok(t, await trial.call('GET', `${path}?${query}`), 200, query)
    t.is(found.kind, `${kind.resource.kind}List`)
    t.is(found.items?.length, count, query)
  }
  const watch = await openWatch(trial, `${path}?watch=1&resourceVersion=${since}&labelSelector=made%3Dhere`)
  t.deepEqual(await watch.take(1), [`ADDED ${name}`])
  await trial.call('PATCH', `${path}/${name}`, { metadata: { labels: { seen: 'x' } } }, merge)
  t.deepEqual(await watch.take(1), [`MODIFIED ${name}`])
  await watch.stop()
}

const merge = { 'content-type': 'application/merge-patch+json' }

async function writes(t: ExecutionContext, trial: Trial, { path, object }: Asked): Promise<void> {
  const name = nameIn(object('it'))
  const read = async () => ok(t, await trial.call('GET', `${path}/${name}`), 200, 'get')
  const before = await read()
  const labels = { ...before.metadata.labels, put: 'x' }
  const put = { ...before, metadata: { ...before.metadata, labels } }
  t.is(ok(t, await trial.call('PUT', `${path}/${name}`, put), 200, 'update').metadata.labels?.put, 'x')
  t.is(ok(t, await trial.call('PUT', `${path}/${name}`, put), 409, 'a stale update').reason, 'Conflict')
  for (const [type, patch] of Object.entries(patches)) {
    const label = type.slice(type.indexOf('/') + 1, type.indexOf('-'))
    const headers = { 'content-type': type }
    const dry = await trial.call('PATCH', `${path}/${name}?dryRun=All`, patch(label), headers)
    t.truthy(ok(t, dry, 200, type).metadata.labels?.[label])
    t.is((await read()).metadata.labels?.[label], undefined)
    ok(t, await trial.call('PATCH', `${path}/${name}`, patch(label), headers), 200, type)
    t.truthy((await read()).metadata.labels?.[label])
  }
  const wrong = { ...put, metadata: { ...before.metadata, name: 'another' } }
  ok(t, await trial.call('PUT', `${path}/${name}`, wrong), 400, 'another name')
  const misspelt = { ...object('it'), spelt: 'wrong' }
  const strict = ok(t, await trial.call('POST', `${path}?fieldValidation=Strict`, misspelt), 400, 'a misspelt field')
  t.regex(strict.message ?? '', /strict decoding error: unknown field "spelt"/)
}

async function parts(t: ExecutionContext, trial: Trial, { kind, path, object }: Asked): Promise<void> {
  const name = nameIn(object('it'))
  for (const { name: part, verbs } of kind.subresources) {
    if (part !== 'status' && part !== 'scale') continue
    t.deepEqual([...verbs].toSorted(), ['get', 'patch', 'update'], part)
    const at = `${path}/${name}/${part}`
    const present = ok(t, await trial.call('GET', at), 200, `get ${part}`)
    ok(t, await trial.call('PUT', at, present), 200, `update ${part}`)
    ok(t, await trial.call('PATCH', at, {}, merge), 200, `patch ${part}`)
  }
}

async function ends(t: ExecutionContext, trial: Trial, { kind, path, object }: Asked): Promise<void> {
  const name = nameIn(object('it'))
  const { uid } = ok(t, await trial.call('GET', `${path}/${name}`), 200, 'get').metadata
  const another = { preconditions: { uid: 'another' } }
  ok(t, await trial.call('DELETE', `${path}/${name}`, another), 409, 'another uid')
  ok(t, await trial.call('DELETE', `${path}/${name}`, { preconditions: { uid }, gracePeriodSeconds: 0 }), 200, 'delete')
  await gone(t, trial, kind, path, name)
  if (!kind.verbs.includes('deletecollection')) return
  ok(t, await trial.call('POST', path, object('one')), 201, 'create')
  if (fixedNames[kind.resource.kind] === undefined) ok(t, await trial.call('POST', path, object('two')), 201, 'create')
  ok(t, await trial.call('DELETE', `${path}?labelSelector=made%3Dthere`), 200, 'deletecollection of nothing')
  t.not(ok(t, await trial.call('GET', `${path}?labelSelector=made%3Dhere`), 200, 'list').items?.length, 0)
  ok(t, await trial.call('DELETE', `${path}?labelSelector=made%3Dhere&gracePeriodSeconds=0`), 200, 'deletecollection')
  for (const each of ['one', 'two']) await gone(t, trial, kind, path, fixedNames[kind.resource.kind] ?? each)
}

/** At once; a definition when its objects are gone, and a namespace when somebody has emptied it, whom nobody plays here. */
async function gone(
  t: ExecutionContext,
  trial: Trial,
  { resource }: KindDefinition,
  path: string,
  name: string,
): Promise<void> {
  const answer = await trial.call('GET', `${path}/${name}`)
  if (answer.status === 404) return void t.pass()
  t.truthy(answer.object.metadata.deletionTimestamp, `${name} is there as before`)
  if (resource.kind === 'Namespace') return
  t.is(resource.kind, 'CustomResourceDefinition')
  await eventually(async () => (await trial.call('GET', `${path}/${name}`)).status === 404)
}

/** What a kind does not take is 405, whoever asks. */
async function refusals(t: ExecutionContext, trial: Trial, { kind, path }: Asked): Promise<void> {
  const calls: Readonly<Record<string, () => Promise<Answer>>> = {
    create: () => trial.call('POST', path, {}),
    get: () => trial.call('GET', `${path}/it`),
    list: () => trial.call('GET', path),
    watch: () => trial.call('GET', `${path}?watch=1`),
    update: () => trial.call('PUT', `${path}/it`, {}),
    patch: () => trial.call('PATCH', `${path}/it`, {}, merge),
    delete: () => trial.call('DELETE', `${path}/it`),
    deletecollection: () => trial.call('DELETE', path),
  }
  for (const verb of every.filter((each) => !kind.verbs.includes(each)))
    t.is((await calls[verb]?.())?.status, 405, verb)
  t.is((await trial.call('POST', `${path}/it`, {})).status, 405)
}
