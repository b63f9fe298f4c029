import test from 'ava'
import { StatusError } from '../status.ts'
import { applyJsonPatch, sameJson } from './json.ts'
import { applyMergePatch, type JsonObject } from './merge.ts'
import { applyStrategicPatch } from './strategic.ts'

test('a merge patch sets, removes and replaces lists whole', (t) => {
  const target = { a: { b: 1, c: 2 }, list: [1, 2], keep: true }
  t.deepEqual(applyMergePatch(target, { a: { b: null, d: 3 }, list: [3], new: { x: null } }), {
    a: { c: 2, d: 3 },
    list: [3],
    keep: true,
    new: {},
  })
  t.deepEqual(target.a, { b: 1, c: 2 })
  const odd = applyMergePatch({}, JSON.parse('{"__proto__":{"polluted":1}}'))
  t.true(Object.hasOwn(odd as object, '__proto__'))
  t.is(({} as { polluted?: number }).polluted, undefined)
})

test('a JSON patch applies its operations in order', (t) => {
  const document = { a: [1, 2], b: { 'x/y': 1, 'm~n': 2 } }
  const patch = [
    { op: 'add', path: '/a/1', value: 9 },
    { op: 'add', path: '/a/-', value: 3 },
    { op: 'remove', path: '/a/0' },
    { op: 'replace', path: '/b/x~1y', value: 5 },
    { op: 'copy', from: '/b/m~0n', path: '/c' },
    { op: 'move', from: '/b', path: '/d' },
    { op: 'test', path: '/d/x~1y', value: 5 },
    { op: 'test', path: '/nothing', value: null },
  ]
  t.deepEqual(applyJsonPatch(document, patch), { a: [9, 2, 3], c: 2, d: { 'x/y': 5, 'm~n': 2 } })
  t.deepEqual(document.a, [1, 2])
})

test('a JSON patch that does not apply is a 422 in upstream\u2019s words', (t) => {
  const wrong = [
    [{ op: 'test', path: '/a', value: 2 }],
    [{ op: 'replace', path: '/b', value: 2 }],
    [{ op: 'remove', path: '/l/5' }],
    [{ op: 'add', path: '/l/7', value: 1 }],
    [{ op: 'add', path: '/l/01', value: 1 }],
    [{ op: 'jump', path: '/a' }],
    [{ op: 'add', path: '/a' }],
    [{ op: 'move', from: '/l', path: '/l/0' }],
  ]
  for (const patch of wrong) {
    const error = t.throws(() => applyJsonPatch({ a: 1, l: [1] }, patch), { instanceOf: StatusError })
    t.deepEqual(
      [error?.code, error?.reason, error?.message],
      [422, 'Invalid', 'the server rejected our request due to an error in our request'],
    )
  }
})

test('a JSON patch has limits', (t) => {
  const many = Array.from({ length: 10_001 }, () => ({ op: 'test', path: '', value: {} }))
  t.is(
    t.throws(() => applyJsonPatch({}, many), { instanceOf: StatusError })?.message,
    'The allowed maximum operations in a JSON patch is 10000, got 10001',
  )
  const grow = Array.from({ length: 200 }, () => ({ op: 'copy', from: '', path: '/more' }))
  t.is(t.throws(() => applyJsonPatch({ a: 'x'.repeat(1000) }, grow), { instanceOf: StatusError })?.code, 413)
  t.is(t.throws(() => applyJsonPatch({}, { op: 'add' }), { instanceOf: StatusError })?.code, 400)
})

const deployment = (containers: unknown[]): JsonObject => ({
  spec: { template: { spec: { containers } }, strategy: { type: 'RollingUpdate', rollingUpdate: { maxSurge: 1 } } },
})
const strategic = (original: JsonObject, patch: unknown): JsonObject =>
  applyStrategicPatch(original, patch, 'apps/v1.Deployment')
const containersOf = (object: JsonObject): unknown =>
  (object as { spec: { template: { spec: { containers: unknown } } } }).spec.template.spec.containers
const ofContainers = (containers: unknown[], more: JsonObject = {}) => ({
  spec: { template: { spec: { containers, ...more } } },
})

test('a strategic patch merges lists by their key', (t) => {
  const original = deployment([
    { name: 'a', image: 'x', env: [{ name: 'A', value: '1' }] },
    { name: 'b', image: 'y' },
  ])
  const next = strategic(
    original,
    ofContainers([
      { name: 'a', env: [{ name: 'B', value: '2' }] },
      { name: 'c', image: 'z' },
    ]),
  )
  t.deepEqual(containersOf(next), [
    {
      name: 'a',
      image: 'x',
      env: [
        { name: 'B', value: '2' },
        { name: 'A', value: '1' },
      ],
    },
    { name: 'c', image: 'z' },
    { name: 'b', image: 'y' },
  ])
  t.deepEqual((containersOf(original) as unknown[]).length, 2)
})

test('a strategic patch deletes, replaces and orders as its directives say', (t) => {
  const original = deployment([
    { name: 'a', image: 'x' },
    { name: 'b', image: 'y' },
  ])
  t.deepEqual(containersOf(strategic(original, ofContainers([{ name: 'a', $patch: 'delete' }]))), [
    { name: 'b', image: 'y' },
  ])
  t.deepEqual(containersOf(strategic(original, ofContainers([{ $patch: 'replace' }, { name: 'z', image: 'q' }]))), [
    { name: 'z', image: 'q' },
  ])
  const ordered = strategic(
    original,
    ofContainers([{ name: 'c', image: 'w' }], {
      '$setElementOrder/containers': [{ name: 'b' }, { name: 'c' }, { name: 'a' }],
    }),
  )
  t.deepEqual(
    (containersOf(ordered) as { name: string }[]).map(({ name }) => name),
    ['b', 'c', 'a'],
  )
  const retained = strategic(original, { spec: { strategy: { $retainKeys: ['type'], type: 'Recreate' } } })
  t.deepEqual((retained.spec as JsonObject).strategy, { type: 'Recreate' })
  const emptied = strategic(original, { spec: { template: { $patch: 'delete' } } })
  t.deepEqual((emptied.spec as JsonObject).template, {})
})

test('a strategic patch removes members of a list of plain values', (t) => {
  const original = { metadata: { finalizers: ['a/1', 'b/2'] } }
  t.deepEqual(strategic(original, { metadata: { '$deleteFromPrimitiveList/finalizers': ['a/1'] } }), {
    metadata: { finalizers: ['b/2'] },
  })
  t.deepEqual(strategic(original, { metadata: { finalizers: ['c/3'] } }), {
    metadata: { finalizers: ['c/3', 'a/1', 'b/2'] },
  })
})

test('a strategic patch that kubectl apply makes of three sides adds, changes and removes', (t) => {
  const live = deployment([
    {
      name: 'a',
      image: 'x',
      env: [
        { name: 'A', value: '1' },
        { name: 'B', value: '2' },
      ],
      imagePullPolicy: 'Always',
    },
    { name: 'injected', image: 's' },
  ])
  const patch = ofContainers(
    [
      {
        name: 'a',
        '$setElementOrder/env': [{ name: 'C' }, { name: 'A' }],
        env: [
          { name: 'C', value: '3' },
          { name: 'B', $patch: 'delete' },
        ],
      },
    ],
    { '$setElementOrder/containers': [{ name: 'a' }] },
  )
  t.deepEqual(containersOf(strategic(live, patch)), [
    {
      name: 'a',
      image: 'x',
      env: [
        { name: 'C', value: '3' },
        { name: 'A', value: '1' },
      ],
      imagePullPolicy: 'Always',
    },
    { name: 'injected', image: 's' },
  ])
})

test('a strategic patch that is malformed is a 400, one that does not fit a 422', (t) => {
  const original = deployment([{ name: 'a' }])
  const code = (patch: unknown) => t.throws(() => strategic(original, patch), { instanceOf: StatusError })?.code
  t.is(code([]), 400)
  t.is(code({ spec: { strategy: { $retainKeys: 'type' } } }), 400)
  t.is(code(ofContainers([{ name: 'b' }], { '$setElementOrder/containers': [{ name: 'c' }] })), 400)
  t.is(code(ofContainers([{ image: 'x' }])), 422)
  t.is(code({ spec: { $patch: 'explode' } }), 422)
})

test('sameJson() ignores the order of keys and what is undefined', (t) => {
  t.true(sameJson({ a: 1, b: [{ c: 2 }] }, { b: [{ c: 2 }], a: 1, d: undefined }))
  t.false(sameJson({ a: 1 }, { a: 1, b: null }) || sameJson([1, 2], [2, 1]) || sameJson({}, []))
})
