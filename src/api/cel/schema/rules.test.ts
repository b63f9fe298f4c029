import test from 'ava'
import type { JsonSchema } from '#api/schema/json-schema.ts'
import { checkRules } from './check-rules.ts'
import { definitionRuleErrors } from './definition-rules.ts'
import { isFieldPath } from './field-path.ts'
import type { Rule } from './rule.ts'
import { compileRules } from './rule-tree.ts'

const root = (spec: JsonSchema): JsonSchema => ({ type: 'object', properties: { spec } })
const withRules = (schema: JsonSchema, ...rules: Rule[]): JsonSchema => ({
  ...schema,
  'x-kubernetes-validations': rules as unknown as Record<string, unknown>[],
})
const text: JsonSchema = { type: 'string', maxLength: 20 }
const rule = (expression: string, more: Partial<Rule> = {}): Rule => ({ rule: expression, message: 'no', ...more })

/** `path: message` of what the rules say to an object, and to a change of it. */
function findings(schema: JsonSchema, object: unknown, old?: unknown): string[] {
  const tree = compileRules(schema)
  if (tree === undefined) return ['no rules']
  const { errors, warnings } = checkRules(tree, object, old)
  return [...errors.map((e) => `${e.path}: ${e.message}`), ...warnings.map((w) => `warning ${w}`)]
}
const problems = (schema: JsonSchema): string[] =>
  definitionRuleErrors(schema, 'schema').map((e) => `${e.path}: ${e.message}`)

test('a rule that is broken is said where the value is; whole objects are not shown', (t) => {
  const schema = root(
    withRules({ type: 'object', properties: { a: withRules(text, rule("self != 'x'")) } }, rule('has(self.a)')),
  )
  t.deepEqual(findings(schema, { spec: { a: 'y' } }), [])
  t.deepEqual(findings(schema, { spec: {} }), ['spec: Invalid value: no'])
  t.deepEqual(findings(schema, { spec: { a: 'x' } }), ['spec.a: Invalid value: "x": no'])
})

test('at the root, apiVersion, kind and the name can be spoken of', (t) => {
  const schema = withRules(
    root(text),
    rule("self.metadata.name.startsWith('a') && self.kind == 'K' && self.apiVersion == 'v'"),
  )
  t.deepEqual(findings(schema, { apiVersion: 'v', kind: 'K', metadata: { name: 'ab' } }), [])
  t.deepEqual(findings(schema, { apiVersion: 'v', kind: 'K', metadata: { name: 'b' } }), ['<nil>: Invalid value: no'])
})

test('without a message the rule itself is shown', (t) => {
  t.deepEqual(findings(root(withRules(text, { rule: "self == 'x'" })), { spec: 'y' }), [
    'spec: Invalid value: "y": failed rule: self == \'x\'',
  ])
})

test('messageExpression makes the message, and gives way to the message when it cannot', (t) => {
  const say = (messageExpression: string): string[] =>
    findings(
      root(withRules({ type: 'object', properties: { a: text, b: text } }, rule('false', { messageExpression }))),
      {
        spec: { a: 'x' },
      },
    )
  t.deepEqual(say("'a is ' + self.a"), ['spec: Invalid value: a is x'])
  t.deepEqual(say("'b is ' + self.b"), ['spec: Invalid value: no'])
  t.deepEqual(say("'two\\nlines'"), ['spec: Invalid value: no'])
  t.deepEqual(say("'  '"), ['spec: Invalid value: no'])
})

test('reason and fieldPath say what is wrong and where', (t) => {
  const say = (more: Partial<Rule>): string[] =>
    findings(
      root(
        withRules(
          { type: 'object', properties: { a: text, m: { type: 'object', additionalProperties: text } } },
          rule('false', more),
        ),
      ),
      { spec: {} },
    )
  t.deepEqual(say({ reason: 'FieldValueForbidden' }), ['spec: Forbidden: no'])
  t.deepEqual(say({ reason: 'FieldValueRequired', fieldPath: '.a' }), ['spec.a: Required value: no'])
  t.deepEqual(say({ reason: 'FieldValueDuplicate' }), ['spec: Duplicate value'])
  t.deepEqual(say({ fieldPath: ".m['x.y']" }), ["spec.m['x.y']: Invalid value: no"])
})

test('a rule that fails to run is a finding of its own', (t) => {
  const schema = root(withRules({ type: 'object', properties: { a: text } }, rule("self.a == 'x'")))
  t.deepEqual(findings(schema, { spec: {} }), ['spec: Invalid value: "object": no such key: a evaluating rule: no'])
})

test('rules about changes run only on changes', (t) => {
  const schema = root(withRules(text, rule('self == oldSelf')))
  t.deepEqual(findings(schema, { spec: 'a' }), [])
  t.deepEqual(findings(schema, { spec: 'a' }, {}), [])
  t.deepEqual(findings(schema, { spec: 'a' }, { spec: 'a' }), [])
  t.deepEqual(findings(schema, { spec: 'b' }, { spec: 'a' }), ['spec: Invalid value: "b": no'])
})

test('with optionalOldSelf a rule about changes runs on new objects, too', (t) => {
  const schema = root(withRules(text, rule("oldSelf.hasValue() || self == 'first'", { optionalOldSelf: true })))
  t.deepEqual(findings(schema, { spec: 'first' }), [])
  t.deepEqual(findings(schema, { spec: 'a' }), ['spec: Invalid value: "a": no'])
  t.deepEqual(findings(schema, { spec: 'a' }, { spec: 'b' }), [])
  const onceSet = root(withRules(text, rule('oldSelf.orValue(self) == self', { optionalOldSelf: true })))
  t.deepEqual(findings(onceSet, { spec: 'a' }, { spec: 'b' }), ['spec: Invalid value: "a": no'])
})

test('what was there before is found by key in maps and in lists that are maps', (t) => {
  const map = root({ type: 'object', additionalProperties: withRules(text, rule('self == oldSelf')) })
  t.deepEqual(findings(map, { spec: { a: '1', b: '3', c: '4' } }, { spec: { b: '2', a: '1' } }), [
    'spec[b]: Invalid value: "3": no',
  ])
  const item = { type: 'object', required: ['k'], properties: { k: text, v: withRules(text, rule('self == oldSelf')) } }
  const list = root({
    type: 'array',
    maxItems: 5,
    items: item,
    'x-kubernetes-list-type': 'map',
    'x-kubernetes-list-map-keys': ['k'],
  })
  const old = {
    spec: [
      { k: 'a', v: '1' },
      { k: 'b', v: '2' },
    ],
  }
  t.deepEqual(
    findings(
      list,
      {
        spec: [
          { k: 'b', v: '2' },
          { k: 'c', v: '9' },
          { k: 'a', v: '5' },
        ],
      },
      old,
    ),
    ['spec[2].v: Invalid value: "5": no'],
  )
})

test('what a request leaves alone is only warned about, unless the rule is about changes', (t) => {
  const schema = root({
    type: 'object',
    properties: {
      a: withRules(text, rule("self == 'x'")),
      list: { type: 'array', items: withRules(text, rule("self == 'x'")) },
    },
  })
  const old = { spec: { a: 'bad', list: ['x', 'bad'] } }
  t.deepEqual(findings(schema, { spec: { a: 'bad', list: ['x', 'bad'], b: 1 } }, old), [
    'warning spec.a: Invalid value: "bad": no',
    'warning spec.list[1]: Invalid value: "bad": no',
  ])
  t.deepEqual(findings(schema, { spec: { a: 'worse', list: ['bad'] } }, old), [
    'spec.a: Invalid value: "worse": no',
    'spec.list[0]: Invalid value: "bad": no',
  ])
})

test('values are what their schema says: whole numbers, times, bytes, names that CEL keeps', (t) => {
  const schema = root(
    withRules(
      {
        type: 'object',
        properties: {
          n: { type: 'integer' },
          r: { type: 'number' },
          at: { type: 'string', format: 'date-time' },
          took: { type: 'string', format: 'duration' },
          data: { type: 'string', format: 'byte' },
          namespace: text,
          port: { 'x-kubernetes-int-or-string': true },
          set: { type: 'array', items: text, 'x-kubernetes-list-type': 'set' },
        },
      },
      rule('self.n + 1 == 4'),
      rule('self.r * 2.0 == 4.0'),
      rule("self.at < timestamp('2030-01-01T00:00:00Z') && self.took == duration('1m') && self.data == b'hello'"),
      rule("self.__namespace__ == 'ns' && (type(self.port) == int ? self.port == 80 : self.port == 'http')"),
      rule("self.set == ['b', 'a'] && self.set + ['a', 'c'] == ['c', 'b', 'a']"),
    ),
  )
  const object = {
    n: 3,
    r: 2,
    at: '2026-01-01T00:00:00Z',
    took: '60s',
    data: 'aGVsbG8=',
    namespace: 'ns',
    set: ['a', 'b'],
  }
  t.deepEqual(findings(schema, { spec: { ...object, port: 80 } }), [])
  t.deepEqual(findings(schema, { spec: { ...object, port: 'http' } }), [])
  t.deepEqual(findings(schema, { spec: { ...object, port: 'x' } }), ['spec: Invalid value: no'])
})

test('rules stop when the request’s budget is used up', (t) => {
  const heavy = rule('self.all(a, self.all(b, self.all(c, a + b + c >= 0)))')
  const numbers = { spec: Array.from({ length: 60 }, (_, i) => i) }
  const list: JsonSchema = { type: 'array', items: { type: 'integer' } }
  t.deepEqual(findings(root(withRules(list, heavy)), numbers), [
    `spec: Invalid value: "array": 'operation cancelled: actual cost limit exceeded': no further validation rules will be run due to call cost exceeds limit for rule: no`,
  ])
  const medium = rule('self.all(a, self.all(b, self.all(c, a + b + c >= 0))) || true')
  const many = Array.from({ length: 20 }, () => medium)
  const small = { spec: Array.from({ length: 45 }, (_, i) => i) }
  t.deepEqual(findings(root(withRules(list, ...many)), small).slice(-1), [
    'spec: Invalid value: "array": validation failed due to running out of cost budget, no further validation rules will be run',
  ])
})

test('a rule that does not compile is refused with upstream’s words', (t) => {
  const say = (...rules: Rule[]): string[] =>
    problems(root(withRules({ type: 'object', properties: { a: text } }, ...rules)))
  t.regex(
    say(rule('self.b'))[0] ?? '',
    /^schema\.properties\[spec\]\.x-kubernetes-validations\[0\]\.rule: Invalid value: .*: compilation failed: ERROR: <input>:1:5: undefined field 'b'\n \| self\.b\n \| \.\.\.\.\^$/s,
  )
  t.regex(say(rule('self.a'))[0] ?? '', /cel expression must evaluate to a bool$/)
  t.regex(say(rule('true', { messageExpression: '1' }))[0] ?? '', /messageExpression: .* must evaluate to a string$/)
  t.regex(say(rule('true', { messageExpression: '1 +' }))[0] ?? '', /messageExpression compilation failed: ERROR/)
  t.regex(say(rule("duration(self.a) > duration('x')"))[0] ?? '', /invalid duration argument/)
  t.regex(say(rule("self.a.matches('[')"))[0] ?? '', /invalid matches argument/)
  t.regex(say(rule("int('x') > 1"))[0] ?? '', /program instantiation failed: type conversion error/)
})

test('the form of a rule is checked, too', (t) => {
  const say = (more: Partial<Rule>): string[] =>
    problems(root(withRules({ type: 'object', properties: { a: text } }, { rule: 'true', message: 'm', ...more })))
  const at = 'schema.properties[spec].x-kubernetes-validations[0]'
  t.deepEqual(say({ rule: ' ' }), [`${at}.rule: Required value: rule is not specified`])
  t.deepEqual(say({ message: ' ' }), [`${at}.message: Invalid value: " ": must be non-empty if specified`])
  t.deepEqual(say({ message: 'a\nb' }), [`${at}.message: Invalid value: "a\\nb": must not contain line breaks`])
  t.deepEqual(say({ reason: 'Odd' }), [
    `${at}.reason: Unsupported value: "Odd": supported values: "FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"`,
  ])
  t.deepEqual(say({ fieldPath: '.b' }), [`${at}.fieldPath: Invalid value: ".b": must be a valid path`])
  t.deepEqual(say({ optionalOldSelf: true }), [
    `${at}.optionalOldSelf: Invalid value: true: may not be set if oldSelf is not used in rule`,
  ])
  t.true(isFieldPath(".a['b.c'].d", { properties: { a: { properties: { 'b.c': { properties: { d: {} } } } } } }))
  t.false(isFieldPath('a', { properties: { a: {} } }))
  t.false(isFieldPath('.a[0]', { properties: { a: { items: {} } } }))
})

test('oldSelf is refused where an older value cannot be found', (t) => {
  const list = (more: JsonSchema): JsonSchema =>
    root({ type: 'array', maxItems: 3, items: withRules(text, rule('self == oldSelf')), ...more })
  t.deepEqual(problems(list({ 'x-kubernetes-list-type': 'set' })), [
    'schema.properties[spec].items.x-kubernetes-validations[0].rule: Invalid value: "self == oldSelf": oldSelf cannot be used on the uncorrelatable portion of the schema within schema.properties[spec]',
  ])
})

test('rules that may cost too much are refused, by rule and by schema', (t) => {
  const free: JsonSchema = { type: 'array', items: { type: 'string' } }
  const words =
    'exceeds budget by factor of more than 100x (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)'
  const quadratic = rule('self.all(a, self.all(b, a == b))')
  const at = 'schema.properties[spec].x-kubernetes-validations[0].rule'
  t.deepEqual(problems(root(withRules(free, quadratic))), [
    `${at}: Forbidden: estimated rule cost ${words}`,
    `${at}: Forbidden: contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema`,
    `schema: Forbidden: x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema ${words}`,
  ])
  const bounded: JsonSchema = { type: 'array', maxItems: 16, items: { type: 'string', maxLength: 32 } }
  t.deepEqual(problems(root(withRules(bounded, quadratic))), [])
})
