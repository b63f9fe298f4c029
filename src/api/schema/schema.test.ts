import { isDeepStrictEqual } from 'node:util'
import test from 'ava'
import fc from 'fast-check'
import { StatusError } from '#api/meta/status.ts'
import { conform, DecodeError } from './conform.ts'
import { compilePattern } from './custom/pattern.ts'
import { decodeBody, type Expected, type Format } from './decode.ts'
import { parseJson, SyntaxProblem } from './json.ts'
import { closeEnvelope, messageOfKind, openEnvelope } from './protobuf.ts'
import { decodeMessage } from './protobuf-decode.ts'
import { encodeMessage } from './protobuf-encode.ts'
import { fieldValidationOf, settleProblems } from './strict.ts'
import { structuralErrors } from './structural.ts'
import { type Field, getMessage, messageNames } from './table.ts'
import { canonicalMicroTime, canonicalTime, formatDuration, parseDuration } from './times.ts'
import { parseYaml } from './yaml.ts'

const deployment: Expected = { apiVersion: 'apps/v1', kind: 'Deployment', message: 'apps/v1.Deployment' }
const configMap: Expected = { apiVersion: 'v1', kind: 'ConfigMap', message: 'core/v1.ConfigMap' }
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)

/** What a refused body is answered with: code and message. */
function refusal(body: string | Uint8Array, format: Format, expected: Expected): string {
  try {
    decodeBody(typeof body === 'string' ? bytes(body) : body, format, expected)
  } catch (error) {
    if (error instanceof StatusError) return `${error.code} ${error.message}`
    throw error
  }
  return 'taken'
}

function conformed(message: string, value: unknown): { value: unknown; unknown: readonly string[] } {
  const unknown = conform(message, value)
  return { value, unknown }
}

test('conform() fills what upstream always writes', (t) => {
  t.deepEqual(
    conformed('apps/v1.Deployment', {
      spec: { template: { spec: { containers: [{ ports: [{ containerPort: 80 }] }] } } },
    }).value,
    {
      metadata: {},
      spec: {
        strategy: {},
        template: {
          metadata: {},
          spec: { containers: [{ name: '', resources: {}, ports: [{ containerPort: 80, protocol: 'TCP' }] }] },
        },
      },
      status: {},
    },
  )
})

test('conform() removes unknown fields and tells their paths', (t) => {
  const { value, unknown } = conformed('core/v1.Pod', {
    spec: { containers: [{ name: 'a', imagee: 'x' }], foo: { bar: 1 } },
    metadata: { labels: { any: 'thing' } },
  })
  t.deepEqual(unknown, ['spec.containers[0].imagee', 'spec.foo'])
  t.deepEqual(value, {
    spec: { containers: [{ name: 'a', resources: {} }] },
    metadata: { labels: { any: 'thing' } },
    status: {},
  })
})

test('conform() drops nulls, and makes zeros of them in lists and maps', (t) => {
  t.deepEqual(
    conformed('core/v1.ConfigMap', { data: { a: null }, immutable: null, metadata: { finalizers: [null] } }).value,
    {
      data: { a: '' },
      metadata: { finalizers: [''] },
    },
  )
})

test('conform() writes quantities and times in their one form', (t) => {
  t.deepEqual(
    conformed('core/v1.Container', {
      name: 'a',
      resources: { limits: { cpu: 0.5, memory: '1024Mi' }, requests: { cpu: '1000m' } },
    }).value,
    { name: 'a', resources: { limits: { cpu: '500m', memory: '1Gi' }, requests: { cpu: '1' } } },
  )
  t.is(canonicalTime('2026-01-02T03:04:05.9+02:00'), '2026-01-02T01:04:05Z')
  t.is(canonicalMicroTime('2026-01-02T03:04:05Z'), '2026-01-02T03:04:05.000000Z')
  t.is(canonicalTime('2026-02-30T00:00:00Z'), undefined)
})

test('durations are read and written as Go does', (t) => {
  t.is(parseDuration('1h30m'), 5400e9)
  t.is(formatDuration(5400e9), '1h30m0s')
  t.is(formatDuration(1.5e9), '1.5s')
  t.is(parseDuration('5'), undefined)
})

for (const [message, value, words] of [
  [
    'apps/v1.Deployment',
    { spec: { replicas: '3' } },
    'json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32',
  ],
  [
    'core/v1.Pod',
    { spec: { containers: [{ name: 1 }] } },
    'json: cannot unmarshal number into Go struct field Container.spec.containers.name of type string',
  ],
  [
    'core/v1.Pod',
    { spec: { containers: {} } },
    'json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container',
  ],
  [
    'core/v1.Pod',
    { spec: { restartPolicy: true } },
    'json: cannot unmarshal bool into Go struct field PodSpec.spec.restartPolicy of type v1.RestartPolicy',
  ],
  [
    'core/v1.ConfigMap',
    { data: { a: 1 } },
    'json: cannot unmarshal number into Go struct field ConfigMap.data of type string',
  ],
  [
    'core/v1.Service',
    { spec: { ports: [{ port: 2147483648 }] } },
    'json: cannot unmarshal number 2147483648 into Go struct field ServicePort.spec.ports.port of type int32',
  ],
  ['core/v1.Secret', { data: { a: '!' } }, 'illegal base64 data at input byte 0'],
  [
    'core/v1.Container',
    { resources: { limits: { cpu: 'much' } } },
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
  ],
  [
    'meta/v1.ObjectMeta',
    { creationTimestamp: 'now' },
    'parsing time "now" as "2006-01-02T15:04:05Z07:00": cannot parse "now" as "2006"',
  ],
] as const)
  test(`conform() refuses ${JSON.stringify(value)} in upstream's words`, (t) => {
    t.throws(() => conform(message, structuredClone(value)), { instanceOf: DecodeError, message: words })
  })

test('parseJson() finds keys that come twice', (t) => {
  const { value, duplicates } = parseJson('{"a":1,"b":{"c":[{"d":1,"d":2}]},"a":3,"q\\"x":":"}')
  t.deepEqual(value, { a: 3, b: { c: [{ d: 2 }] }, 'q"x': ':' })
  t.deepEqual(duplicates, ['b.c[0].d', 'a'])
})

for (const [text, words] of Object.entries({
  '': 'unexpected end of JSON input',
  '{"a":': 'unexpected end of JSON input',
  '{a:1}': "invalid character 'a' looking for beginning of object key string",
  '{"a":1}x': "invalid character 'x' after top-level value",
  '{"a" 1}': "invalid character '1' after object key",
  '[1 2]': "invalid character '2' after array element",
  nul: 'unexpected end of JSON input',
}))
  test(`parseJson() refuses ${JSON.stringify(text)} in upstream's words`, (t) => {
    t.throws(() => parseJson(text), { instanceOf: SyntaxProblem, message: words })
  })

test('parseJson() agrees with JSON.parse and finds no duplicates where there are none', (t) => {
  fc.assert(
    fc.property(fc.jsonValue(), (value) => {
      const text = JSON.stringify(value)
      t.deepEqual(parseJson(text), { value: JSON.parse(text), duplicates: [] })
    }),
  )
})

test('deep nesting is refused in every format', (t) => {
  const deep = '['.repeat(5000)
  t.throws(() => parseJson(deep), { message: 'exceeded max depth' })
  t.throws(() => parseYaml(deep), { message: 'exceeded max depth' })
  t.throws(() => parseYaml('- '.repeat(5000)), { instanceOf: SyntaxProblem })
})

test('parseYaml() reads what upstream reads: booleans, octal numbers, dates as text', (t) => {
  t.deepEqual(parseYaml('a: yes\nm: 0644\nd: 2020-01-01\nq: "yes"\n---\nb: 1').value, {
    a: true,
    m: 420,
    d: '2020-01-01',
    q: 'yes',
  })
})

test('parseYaml() refuses aliases that multiply', (t) => {
  const bomb =
    'a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c]\n'
  t.throws(() => parseYaml(bomb), { instanceOf: SyntaxProblem })
})

test('decodeBody() gathers unknown and duplicate fields', (t) => {
  const { object, problems } = decodeBody(
    bytes('{"apiVersion":"apps/v1","kind":"Deployment","spec":{"replica":1,"paused":true,"paused":false}}'),
    'json',
    deployment,
  )
  t.deepEqual(problems, ['unknown field "spec.replica"', 'duplicate field "spec.paused"'])
  t.is((object as unknown as { spec: { paused: boolean } }).spec.paused, false)
})

test('decodeBody() names the line of a duplicate in YAML', (t) => {
  const { problems } = decodeBody(
    bytes('kind: ConfigMap\napiVersion: v1\ndata:\n  a: "1"\n  a: "2"\n'),
    'yaml',
    configMap,
  )
  t.deepEqual(problems, ['yaml: unmarshal errors:\n  line 5: key "a" already set in map'])
})

test('decodeBody() takes the kind of the URL when the body names none', (t) => {
  t.like(decodeBody(bytes('{"data":{"a":"b"}}'), 'json', configMap).object, { apiVersion: 'v1', kind: 'ConfigMap' })
})

for (const [body, words] of Object.entries({
  '': "400 the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: unexpected end of JSON input (<empty>)",
  '{"kind":"ConfigMap"': `400 the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: unexpected end of JSON input ({"kind":"ConfigMap")`,
  '{"kind":"Pod","apiVersion":"v1"}':
    '400 Pod in version "v1" cannot be handled as a ConfigMap: converting (v1.Pod) to (core.ConfigMap): unknown conversion',
  '{"kind":"Nothing","apiVersion":"v1"}':
    '400 Nothing in version "v1" cannot be handled as a ConfigMap: no kind "Nothing" is registered for version "v1"',
  '{"kind":"ConfigMap","apiVersion":"v1","data":[]}':
    '400 ConfigMap in version "v1" cannot be handled as a ConfigMap: json: cannot unmarshal array into Go struct field ConfigMap.data of type map[string]string',
}))
  test(`decodeBody() refuses ${body === '' ? 'an empty body' : body}`, (t) =>
    t.is(refusal(body, 'json', configMap), words))

test('settleProblems() refuses, warns or keeps silent', (t) => {
  const problems = ['unknown field "spec.foo"', 'duplicate field "spec.x"']
  t.deepEqual(settleProblems(problems, 'Warn', deployment), problems)
  t.deepEqual(settleProblems(problems, 'Ignore', deployment), [])
  t.throws(() => settleProblems(problems, 'Strict', deployment), {
    message:
      'Deployment in version "v1" cannot be handled as a Deployment: strict decoding error: unknown field "spec.foo", duplicate field "spec.x"',
  })
  t.is(fieldValidationOf(null, 'CreateOptions'), 'Warn')
  t.throws(() => fieldValidationOf('Loud', 'CreateOptions'), {
    message:
      'CreateOptions.meta.k8s.io "" is invalid: fieldValidation: Unsupported value: "Loud": supported values: "", "Ignore", "Strict", "Warn"',
  })
})

/** An object of the message with every field set, three levels deep. Seeded, so that a failure can be had again. */
function sample(message: string, depth: number, next: () => number): Record<string, unknown> {
  const object: Record<string, unknown> = {}
  const { fields, inline } = getMessage(message)
  const hasTypeMeta = inline.some((i) => i.message === 'meta/v1.TypeMeta')
  for (const field of fields.values()) {
    if (hasTypeMeta && (field.name === 'kind' || field.name === 'apiVersion')) continue
    if (depth > 1 && (field.message !== undefined || field.scalar?.startsWith('schema'))) continue
    const one = (): unknown => (field.message ? sample(field.message, depth + 1, next) : sampleScalar(field, next))
    const list = (): unknown => (field.repeated ? [one(), one()] : one())
    object[field.name] = field.map ? { a: list(), [`k${next() % 9}`]: list() } : list()
  }
  return object
}

function sampleScalar({ scalar }: Field, next: () => number): unknown {
  const either = <T>(a: T, b: T): T => (next() % 2 === 0 ? a : b)
  switch (scalar) {
    case 'string':
      return `s${next() % 100}`
    case 'bool':
      return true
    case 'int32':
      return either(-1 - (next() % 1e9), 2147483647)
    case 'int64':
      return either(-1 - next() * 1000, next() * 4096 + 1)
    case 'double':
      return 1.5
    case 'bytes':
      return 'aGVsbG8='
    case 'time':
      return '2026-01-02T03:04:05Z'
    case 'microtime':
      return '2026-01-02T03:04:05.123456Z'
    case 'duration':
      return '1m30s'
    case 'quantity':
      return either('500m', '1Gi')
    case 'intorstring':
      return either<unknown>('80%', 8080)
    case 'schemaorarray':
      return either<unknown>({ type: 'string' }, [{ type: 'object' }])
    case 'schemaorbool':
      return either<unknown>(true, { type: 'string' })
    case 'schemaorstrings':
      return either<unknown>(['a', 'b'], { type: 'string' })
    default:
      return { x: [1, { y: null }] }
  }
}

function counter(seed: number): () => number {
  let state = seed
  return () => {
    state = (state * 1103515245 + 12345) % 2147483648
    return state
  }
}

const tabled = messageNames().filter((name) => !/meta\/v1\.(Table|TypeMeta)/.test(name))

test('every field of every message survives pruning, and protobuf there and back', (t) => {
  for (const name of tabled) {
    const object = sample(name, 0, counter(7))
    t.deepEqual(conform(name, object), [], name)
    const back = decodeMessage(name, encodeMessage(name, object))
    conform(name, back)
    if (!isDeepStrictEqual(back, JSON.parse(JSON.stringify(object)))) t.deepEqual(back, object, name)
  }
})

test('a field that no message has is found in every message', (t) => {
  for (const name of tabled) {
    const object = { ...sample(name, 1, counter(3)), misspelt: 1 }
    t.deepEqual(conform(name, object), ['misspelt'], name)
  }
})

test('protobuf bodies are read through the envelope', (t) => {
  const raw = encodeMessage('core/v1.ConfigMap', { metadata: { name: 'a' }, data: { k: 'v' } })
  const body = closeEnvelope('v1', 'ConfigMap', raw)
  t.deepEqual(openEnvelope(body), { apiVersion: 'v1', kind: 'ConfigMap', raw: Buffer.from(raw) })
  t.deepEqual(decodeBody(body, 'protobuf', configMap), {
    object: { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'a' }, data: { k: 'v' } } as never,
    problems: [],
  })
  t.regex(refusal('{}', 'protobuf', configMap), /^400 .*does not appear to be a protobuf message/)
  t.regex(refusal(body, 'protobuf', deployment), /^400 ConfigMap in version "v1" cannot be handled as a Deployment/)
})

test('mangled protobuf is refused or read, and never anything else', (t) => {
  const name = 'core/v1.Pod'
  const good = encodeMessage(name, sample(name, 0, counter(5)))
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { maxLength: 8 }),
      fc.nat(good.length),
      (edits, end) => {
        const bad = Uint8Array.from(good.subarray(0, end))
        for (const [at, value] of edits) if (at < bad.length) bad[at] = value
        try {
          conform(name, decodeMessage(name, bad))
          return true
        } catch (error) {
          return error instanceof DecodeError
        }
      },
    ),
    { numRuns: 300 },
  )
  t.pass()
})

test('protobuf that nests without end is refused', (t) => {
  let raw: Uint8Array = new Uint8Array()
  for (let i = 0; i < 3000; i++) {
    const length = raw.length
    const size: number[] = []
    for (let rest = length; ; rest = Math.floor(rest / 128)) {
      size.push(rest >= 128 ? (rest % 128) | 0x80 : rest)
      if (rest < 128) break
    }
    // JSONSchemaProps.not is field 28.
    raw = Buffer.concat([Uint8Array.of(0xe2, 0x01, ...size), raw])
  }
  t.throws(() => decodeMessage('apiextensions/v1.JSONSchemaProps', raw), { message: 'proto: exceeded max depth' })
})

test('messageOfKind() finds built-in kinds by group and version', (t) => {
  t.is(messageOfKind('v1', 'Pod'), 'core/v1.Pod')
  t.is(messageOfKind('rbac.authorization.k8s.io/v1', 'Role'), 'rbac/v1.Role')
  t.is(messageOfKind('flowcontrol.apiserver.k8s.io/v1', 'FlowSchema'), 'flowcontrol/v1.FlowSchema')
  t.is(messageOfKind('policy/v1', 'DeleteOptions'), 'meta/v1.DeleteOptions')
  t.is(messageOfKind('example.com/v1', 'Widget'), undefined)
})

test('structuralErrors() takes a structural schema', (t) => {
  const schema = {
    type: 'object',
    properties: {
      spec: {
        type: 'object',
        properties: {
          port: { 'x-kubernetes-int-or-string': true, anyOf: [{ type: 'integer' }, { type: 'string' }] },
          list: {
            type: 'array',
            'x-kubernetes-list-type': 'map',
            'x-kubernetes-list-map-keys': ['name'],
            items: { type: 'object', required: ['name'], properties: { name: { type: 'string' } } },
          },
          any: { 'x-kubernetes-preserve-unknown-fields': true },
        },
        oneOf: [{ required: ['port'] }, { required: ['list'] }],
      },
      metadata: { type: 'object', properties: { name: { type: 'string', maxLength: 10 } } },
    },
  } as const
  t.deepEqual(structuralErrors(schema, 'spec.validation.openAPIV3Schema'), [])
})

test("structuralErrors() says what is not structural in upstream's words", (t) => {
  const schema = {
    properties: {
      a: {},
      b: { type: 'array', items: {} },
      c: { type: 'object', additionalProperties: { type: 'string' }, properties: { x: { type: 'string' } } },
      d: { type: 'object', anyOf: [{ type: 'object', properties: { y: { minimum: 1 } } }] },
    },
  } as const
  t.deepEqual(
    structuralErrors(schema, 's').map((e) => `${e.path}: ${e.message}`),
    [
      's.type: Required value: must not be empty at the root',
      's.properties[a].type: Required value: must not be empty for specified object fields',
      's.properties[b].items.type: Required value: must not be empty for specified array items',
      's.properties[c].additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive',
      's.properties[d].anyOf[0].type: Forbidden: must be empty to be structural',
      's.properties[d].properties[y]: Required value: because it is defined in s.properties[d].anyOf[0].properties[y]',
    ],
  )
})

test('compilePattern() takes what Go takes, and no text makes it slow', (t) => {
  t.true(compilePattern('(?i)^a(?P<rest>b+)$')?.test('ABB'))
  t.true(compilePattern('^\\p{L}+$')?.test('äß'))
  t.is(compilePattern('('), undefined)
  // Without the linear engine this takes hours.
  t.false(compilePattern('^(a+)+$')?.test(`${'a'.repeat(60)}!`))
})
