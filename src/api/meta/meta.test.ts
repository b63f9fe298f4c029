import test from 'ava'
import fc from 'fast-check'
import { type ConditionLike, withCondition } from './conditions.ts'
import { customShape, shapeOf } from './field-shape.ts'
import { exactField, parseFieldSelector } from './fields.ts'
import { generateName, safeEncode } from './generate-name.ts'
import { scaledValue } from './intstr.ts'
import { isStrictlyInside, parsePrefix, validateAddress, validatePrefix } from './ip.ts'
import { managerFromUserAgent, trackFields, type Write } from './managed-fields.ts'
import {
  configKey,
  dns1035Label,
  dns1123Label,
  dns1123Subdomain,
  envName,
  labelValue,
  nameIsDnsSubdomain,
  portName,
  qualifiedName,
} from './names.ts'
import { canonicalQuantity, compareQuantity, parseQuantity, quantityMilli, quantityValue } from './quantity.ts'
import type { KubeObject } from './resource.ts'
import { formatSelector, parseSelector, SelectorError, selectorFrom } from './selector.ts'
import { StatusError } from './status.ts'
import { age, formatMicroTime, formatTime, humanDuration, parseTime } from './time.ts'

const object = (name: string, rest: object = {}): KubeObject =>
  ({ apiVersion: 'v1', kind: 'Pod', metadata: { name, namespace: 'default' }, ...rest }) as unknown as KubeObject

test('parseSelector() reads what formatSelector() writes', (t) => {
  for (const text of ['a=b', 'a==b', 'a!=b', 'a in (b,c)', '!a', 'a', 'a notin (,x)', 'a>3', 'a=', 'in in (in)']) {
    t.is(formatSelector(parseSelector(text)), text)
  }
  t.is(formatSelector(parseSelector(' z = 1 , a notin ( y , x ) ')), 'a notin (x,y),z=1')
})

test('parseSelector() says what it found instead', (t) => {
  const wrong: Record<string, string> = {
    'a b': "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt",
    'a in': "unable to parse requirement: found '' expected: '('",
    'a in (b c)': "unable to parse requirement: found 'c', expected: ',' or ')'",
    'a,': "found '', expected: identifier after ','",
    'a=b=c': "found '=', expected: ',' or 'end of string'",
    '(': "found '(', expected: !, identifier, or 'end of string'",
    'a>x': `unable to parse requirement: values[0]: Invalid value: "x": for 'Gt', 'Lt' operators, the value must be an integer`,
  }
  for (const [text, words] of Object.entries(wrong)) {
    t.is(t.throws(() => parseSelector(text), { instanceOf: SelectorError })?.message, words)
  }
  t.regex(
    t.throws(() => parseSelector('-a=b'))?.message ?? '',
    /^unable to parse requirement: <nil>: Invalid value: "-a": name part must consist/,
  )
})

test('selectors match as upstream does: an absent label is not in, and not equal', (t) => {
  const labels = { app: 'web', n: '10' }
  const holds = (text: string) => parseSelector(text).matches(labels)
  t.true(['app=web', 'app in (web,db)', 'app', '!x', 'x!=1', 'x notin (1)', 'n>9', 'n<11', ''].every(holds))
  t.false(['app=db', 'app notin (web)', '!app', 'x', 'x=1', 'x in (1)', 'n>10', 'app>1', 'app=web,x'].some(holds))
  t.true(parseSelector('x notin (1)').matches(undefined))
  t.deepEqual([parseSelector('constructor').matches({}), parseSelector('!toString').matches({})], [false, true])
})

test('selectorFrom() selects nothing for no selector and everything for an empty one', (t) => {
  t.false(selectorFrom(undefined).matches({ a: 'b' }))
  t.true(selectorFrom({}).matches(undefined))
  const both = selectorFrom({ matchLabels: { a: 'b' }, matchExpressions: [{ key: 'c', operator: 'DoesNotExist' }] })
  t.deepEqual([both.matches({ a: 'b' }), both.matches({ a: 'b', c: '' })], [true, false])
  t.throws(() => selectorFrom({ matchExpressions: [{ key: 'a', operator: 'in' }] }), {
    message: '"in" is not a valid label selector operator',
  })
})

test('parseFieldSelector() refuses labels the kind does not know, in upstream\u2019s words', (t) => {
  const fields = { 'spec.nodeName': () => 'n' }
  const selector = parseFieldSelector('spec.nodeName=n,metadata.name!=a\\,b', fields)
  t.deepEqual([selector.matches(object('x')), selector.matches(object('a,b'))], [true, false])
  t.is(exactField(selector, 'spec.nodeName'), 'n')
  const message = (text: string, known = {}) => {
    const error = t.throws(() => parseFieldSelector(text, known), { instanceOf: StatusError })
    t.is(error?.code, 400)
    return error?.message
  }
  t.is(message('foo=1', fields), 'field label not supported: foo')
  t.is(message('foo=1'), '"foo" is not a known field selector: only "metadata.name", "metadata.namespace"')
  t.is(message('foo'), "invalid selector: 'foo'; can't understand 'foo'")
  t.is(message('metadata.name=a=b'), 'invalid field selector: unescaped character in value: 61')
})

test('quantities have one form each', (t) => {
  const forms: Record<string, string> = {
    '0.5': '500m',
    '1024Mi': '1Gi',
    '1025Mi': '1025Mi',
    '1e3': '1e3',
    '12E': '12E',
    '1.5Gi': '1536Mi',
    '0.1Ki': '102400m',
    '1000m': '1',
    '1500m': '1500m',
    '-1.5': '-1500m',
    '.5': '500m',
    '0': '0',
    '0.0000000001': '1n',
    '1000k': '1M',
  }
  for (const [text, form] of Object.entries(forms)) t.is(canonicalQuantity(text), form, text)
  for (const text of ['', '1..2', '.', 'abc', '1 Gi', '--1'])
    t.throws(() => parseQuantity(text), { name: 'QuantityError' }, text)
  t.throws(() => parseQuantity('1Mik'), { message: "unable to parse quantity's suffix" })
})

test('quantities add and compare exactly', (t) => {
  t.is(compareQuantity(parseQuantity('0.1'), parseQuantity('100m')), 0)
  t.is(compareQuantity(parseQuantity('1Gi'), parseQuantity('1G')), 1)
  const odd = parseQuantity('1.3')
  t.deepEqual([quantityMilli(odd), quantityValue(odd)], [1300n, 2n])
  fc.assert(
    fc.property(fc.bigInt(-(10n ** 15n), 10n ** 15n), fc.constantFrom('', 'm', 'k', 'Mi', 'u'), (n, suffix) => {
      const quantity = parseQuantity(`${n}${suffix}`)
      return compareQuantity(parseQuantity(canonicalQuantity(`${n}${suffix}`)), quantity) === 0
    }),
  )
})

test('names are refused in upstream\u2019s words', (t) => {
  t.deepEqual(dns1123Label('a.b'), ['must not contain dots'])
  t.deepEqual(dns1123Label('A'), [
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
  ])
  t.deepEqual(dns1123Label('a'.repeat(64)), ['must be no more than 63 characters'])
  t.is(dns1123Subdomain('a.b-c.d').length, 0)
  t.regex(dns1123Subdomain('a_b')[0] ?? '', /^a lowercase RFC 1123 subdomain must consist/)
  t.regex(dns1035Label('1a')[0] ?? '', /^a DNS-1035 label must consist/)
  t.deepEqual(qualifiedName('/a'), ['prefix part must be non-empty'])
  t.deepEqual(qualifiedName(`a/${'b'.repeat(64)}`), ['name part must be no more than 63 bytes'])
  t.regex(qualifiedName('a/b/c')[0] ?? '', /^a valid label key must consist .* with an optional DNS subdomain prefix/)
  t.is(labelValue('').length + labelValue('a_b').length, 0)
  t.regex(labelValue('-a')[0] ?? '', /^a valid label must be an empty string or consist/)
  t.deepEqual(portName('A--1'), [
    'must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)',
    'must contain at least one letter (a-z)',
    'must not contain consecutive hyphens',
  ])
  t.deepEqual(configKey('..'), ["must not be '..'"])
  t.is(envName('1.a b').length, 0)
  t.regex(envName('a=b')[0] ?? '', /must consist only of printable ASCII/)
  t.deepEqual([nameIsDnsSubdomain('web-', true), nameIsDnsSubdomain('web-', false).length], [[], 1])
})

test('ages are as rough as kubectl shows them', (t) => {
  const s = 1000
  const forms: [number, string][] = [
    [0, '0s'],
    [119 * s, '119s'],
    [120 * s, '2m'],
    [125 * s, '2m5s'],
    [11 * 60 * s, '11m'],
    [3 * 3600 * s, '3h'],
    [200 * 60 * s, '3h20m'],
    [9 * 3600 * s, '9h'],
    [49 * 3600 * s, '2d1h'],
    [10 * 86400 * s, '10d'],
    [800 * 86400 * s, '2y70d'],
    [-5 * s, '<invalid>'],
  ]
  for (const [ms, text] of forms) t.is(humanDuration(ms), text)
  t.is(age(undefined, 0), '<unknown>')
  t.is(age('2026-01-01T00:00:00Z', Date.UTC(2026, 0, 1, 0, 0, 7)), '7s')
  t.deepEqual([formatTime(123), formatMicroTime(123)], ['1970-01-01T00:00:00Z', '1970-01-01T00:00:00.123000Z'])
  t.deepEqual([parseTime('1970-01-01T01:00:01+01:00'), parseTime('yesterday')], [1000, undefined])
})

test('percentages of a number of pods round up for surge and down for unavailable', (t) => {
  t.deepEqual([scaledValue('25%', 10, 'up'), scaledValue('25%', 10, 'down'), scaledValue(3, 10, 'up')], [3, 2, 3])
  t.is(scaledValue('7%', 100, 'up'), 7)
  t.throws(() => scaledValue('x', 1, 'up'), { message: /not a percentage/ })
})

test('generateName() adds five safe characters and stays within 63', (t) => {
  t.regex(generateName('web-'), /^web-[bcdfghjklmnpqrstvwxz2456789]{5}$/)
  t.is(generateName('a'.repeat(100)).length, 63)
  t.regex(safeEncode('1234567890'), /^[bcdfghjklmnpqrstvwxz2456789]{10}$/)
})

test('withCondition() moves the time only with the status, and leaves an unchanged list alone', (t) => {
  const first = withCondition<ConditionLike>(undefined, { type: 'Ready', status: 'False' }, 't1')
  t.deepEqual(first, [{ type: 'Ready', status: 'False', lastTransitionTime: 't1' }])
  t.is(withCondition(first, { type: 'Ready', status: 'False' }, 't2'), first)
  t.deepEqual(withCondition(first, { type: 'Ready', status: 'False', reason: 'x' }, 't2'), [
    { type: 'Ready', status: 'False', reason: 'x', lastTransitionTime: 't1' },
  ])
  t.is(withCondition(first, { type: 'Ready', status: 'True' }, 't3')[0]?.lastTransitionTime, 't3')
})

test('prefixes know what lies inside them', (t) => {
  const inside = (a: string, b: string) => {
    const [inner, outer] = [parsePrefix(a), parsePrefix(b)]
    return inner !== undefined && outer !== undefined && isStrictlyInside(inner, outer)
  }
  t.true(inside('10.1.2.0/24', '10.1.0.0/16') && inside('fd00::ff00/120', 'fd00::/64'))
  t.false(inside('10.2.0.0/24', '10.1.0.0/16') || inside('10.1.0.0/16', '10.1.0.0/16') || inside('::/0', '10.0.0.0/8'))
  t.deepEqual(
    [parsePrefix('10.0.0.1/8')?.hasHostBits, parsePrefix('10.0.0.0'), parsePrefix('10.0.0.0/33')],
    [true, undefined, undefined],
  )
})

test('IPv4 written as IPv6 is refused: it is one thing to who reads the text and another to who reads the address', (t) => {
  const words = (errors: readonly { message: string }[]): string[] => errors.map(({ message }) => message)
  for (const text of ['::ffff:10.0.0.1', '::FFFF:a00:1', '0:0:0:0:0:ffff:a00:1'])
    t.regex(words(validateAddress(text, 'a')).join(), /must not be an IPv4-mapped IPv6 address/, text)
  t.regex(words(validatePrefix('::ffff:10.0.0.0/104', 'a')).join(), /must not have an IPv4-mapped IPv6 address/)
  for (const text of ['::/0', '::/96', 'fd00::/8', '10.0.0.0/8']) t.deepEqual(validatePrefix(text, 'a'), [], text)
  for (const text of ['::1', '10.0.0.1', '::10.0.0.1']) t.deepEqual(validateAddress(text, 'a'), [], text)
})

const write = (manager: string, time: string, rest: Partial<Write> = {}): Write => ({
  manager,
  time,
  apiVersion: 'v1',
  subresource: '',
  ignored: ['status'],
  ...rest,
})
const pod = (image: string, labels = {}, rest = {}): KubeObject => {
  const metadata = { name: 'a', namespace: 'b', uid: 'u', labels }
  const spec = { containers: [{ name: 'c', image, resources: {} }], securityContext: {} }
  return object('a', { metadata, spec, status: {}, ...rest })
}

test('trackFields() writes down what a create set, and not what is there anyway', (t) => {
  const created = pod('x', { app: 'web' })
  trackFields(created, undefined, shapeOf('core/v1.Pod'), write('kubectl', 't1'))
  t.deepEqual(created.metadata.managedFields, [
    {
      manager: 'kubectl',
      operation: 'Update',
      apiVersion: 'v1',
      time: 't1',
      fieldsType: 'FieldsV1',
      fieldsV1: {
        'f:metadata': { 'f:labels': { '.': {}, 'f:app': {} } },
        'f:spec': {
          'f:containers': { 'k:{"name":"c"}': { '.': {}, 'f:name': {}, 'f:image': {}, 'f:resources': {} } },
          'f:securityContext': {},
        },
      },
    },
  ])
})

test('trackFields() moves a field to whoever changed it last', (t) => {
  const old = pod('x', { app: 'web', tier: 'a' })
  trackFields(old, undefined, shapeOf('core/v1.Pod'), write('kubectl', 't1'))
  const next = structuredClone(old)
  next.metadata.labels = { app: 'db' }
  trackFields(next, old, shapeOf('core/v1.Pod'), write('editor', 't2'))
  const [first, second] = next.metadata.managedFields ?? []
  t.deepEqual(first?.fieldsV1?.['f:metadata'], { 'f:labels': {} })
  t.is(first?.time, 't1')
  t.deepEqual(second?.fieldsV1, { 'f:metadata': { 'f:labels': { 'f:app': {} } } })
  const same = structuredClone(next)
  trackFields(same, next, shapeOf('core/v1.Pod'), write('third', 't3'))
  t.deepEqual(same.metadata.managedFields, next.metadata.managedFields)
})

test('trackFields() keeps status and spec apart, and set members by value', (t) => {
  const old = pod('x')
  const next = structuredClone(old) as KubeObject & { status: unknown }
  next.metadata.finalizers = ['a/b']
  next.status = { podIPs: [{ ip: '1' }], phase: 'Running' }
  trackFields(next, old, shapeOf('core/v1.Pod'), write('kubelet', 't', { subresource: 'status', ignored: ['spec'] }))
  t.deepEqual(next.metadata.managedFields?.[0]?.fieldsV1, {
    'f:metadata': { 'f:finalizers': { '.': {}, 'v:"a/b"': {} } },
    'f:status': { 'f:podIPs': { '.': {}, 'k:{"ip":"1"}': { '.': {}, 'f:ip': {} } }, 'f:phase': {} },
  })
  t.is(next.metadata.managedFields?.[0]?.subresource, 'status')
})

test('trackFields() folds the oldest of more than ten managers into ancient-changes', (t) => {
  let old = pod('x')
  for (let i = 0; i < 14; i++) {
    const next = structuredClone(old)
    next.metadata.labels = { ...next.metadata.labels, [`l${i}`]: '1' }
    trackFields(next, old, shapeOf('core/v1.Pod'), write(`m${i}`, `2026-01-01T00:00:${10 + i}Z`))
    old = next
  }
  const managers = (old.metadata.managedFields ?? []).map(({ manager }) => manager)
  t.is(managers.length, 10)
  t.is(managers.filter((m) => m === 'ancient-changes').length, 1)
  const folded = (old.metadata.managedFields ?? []).filter(({ manager }) => manager === 'ancient-changes')
  t.deepEqual(
    folded.map(({ fieldsV1 }) => fieldsV1),
    [{ 'f:metadata': { 'f:labels': { '.': {}, 'f:l0': {}, 'f:l1': {}, 'f:l2': {}, 'f:l3': {}, 'f:l4': {} } } }],
  )
})

test('trackFields() forgets all managers when the request says so', (t) => {
  const old = pod('x')
  trackFields(old, undefined, shapeOf('core/v1.Pod'), write('kubectl', 't1'))
  const next = structuredClone(old)
  next.metadata.managedFields = [{}]
  trackFields(next, old, shapeOf('core/v1.Pod'), write('kubectl', 't2'))
  t.false('managedFields' in next.metadata)
})

test('customShape() follows the list types of a schema', (t) => {
  const shape = customShape({
    type: 'object',
    properties: {
      spec: {
        type: 'object',
        properties: {
          ports: {
            type: 'array',
            'x-kubernetes-list-type': 'map',
            'x-kubernetes-list-map-keys': ['port'],
            items: { type: 'object', properties: { port: { type: 'integer' }, note: { type: 'string' } } },
          },
          hosts: { type: 'array', items: { type: 'string' } },
        },
      },
    },
  })
  const custom = object('a', { spec: { ports: [{ port: 1, note: 'x' }], hosts: ['h'], more: { deep: 1 } } })
  trackFields(custom, undefined, shape, write('m', 't'))
  t.deepEqual(custom.metadata.managedFields?.[0]?.fieldsV1, {
    'f:spec': {
      '.': {},
      'f:ports': { '.': {}, 'k:{"port":1}': { '.': {}, 'f:port': {}, 'f:note': {} } },
      'f:hosts': {},
      'f:more': { '.': {}, 'f:deep': {} },
    },
  })
})

test('managerFromUserAgent() takes the program\u2019s name', (t) => {
  t.is(managerFromUserAgent('kubectl/v1.36.3 (linux/amd64)'), 'kubectl')
  t.is(managerFromUserAgent(undefined), 'unknown')
})
