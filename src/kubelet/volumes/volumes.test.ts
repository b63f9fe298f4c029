import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import type { TokenRequest } from '#api/gen/authentication-v1.ts'
import type { ConfigMap, Pod, Secret, Volume } from '#api/gen/core-v1.ts'
import { configMaps, secrets } from '#api/gen/resources.ts'
import { eventually } from '#base/async/eventually.ts'
import { Scope } from '#base/async/scope.ts'
import { FakeClock } from '#base/clock.ts'
import { FakeClient } from '#client/fake.ts'
import { Objects } from '../objects/objects.ts'
import { type Payload, writeAtomically } from './atomic-writer.ts'
import { contentOf } from './payload.ts'
import { bindSubPath } from './sub-path.ts'
import { createTokenSource } from './tokens.ts'
import { VolumeError, Volumes } from './volumes.ts'

const scratch = (t: { teardown(fn: () => void): void }): string => {
  const dir = mkdtempSync(join(tmpdir(), 'weft-volumes-'))
  t.teardown(() => rmSync(dir, { recursive: true, force: true }))
  return dir
}
const files = (entries: Record<string, string>, mode = 0o644): Payload =>
  new Map(Object.entries(entries).map(([path, text]) => [path, { data: Buffer.from(text), mode }]))

test('writeAtomically() shows files through one link, and swaps all of them at once', (t) => {
  const dir = scratch(t)
  t.true(writeAtomically(dir, files({ a: '1', 'sub/b': '2' }), undefined))
  t.is(readFileSync(join(dir, 'a'), 'utf8'), '1')
  t.is(readFileSync(join(dir, 'sub/b'), 'utf8'), '2')
  t.is(readlinkSync(join(dir, 'a')), '..data/a')
  const first = readlinkSync(join(dir, '..data'))
  t.false(writeAtomically(dir, files({ a: '1', 'sub/b': '2' }), undefined), 'nothing changed')
  t.is(readlinkSync(join(dir, '..data')), first)
  t.true(writeAtomically(dir, files({ a: '3' }), undefined))
  t.deepEqual(
    readdirSync(dir).filter((n) => !n.startsWith('..')),
    ['a'],
  )
  t.is(readFileSync(join(dir, 'a'), 'utf8'), '3')
  t.is(readdirSync(dir).filter((n) => n.startsWith('..20')).length, 1, 'the old directory is gone')
})
test('writeAtomically() mends a link that a crash left out', (t) => {
  const dir = scratch(t)
  writeAtomically(dir, files({ a: '1' }), undefined)
  rmSync(join(dir, 'a'))
  writeAtomically(dir, files({ a: '1' }), undefined)
  t.is(readFileSync(join(dir, 'a'), 'utf8'), '1')
})
test('writeAtomically() keeps modes, and refuses paths that lead out', (t) => {
  const dir = scratch(t)
  writeAtomically(dir, files({ key: 's' }, 0o400), undefined)
  t.is(statSync(join(dir, 'key')).mode & 0o777, 0o400)
  for (const path of ['../x', '/x', 'a/../../x', '..data', ''])
    t.throws(() => writeAtomically(dir, files({ [path]: '' }), undefined))
})
test('bindSubPath() does not follow a link out of the volume', (t) => {
  const dir = scratch(t)
  const volume = join(dir, 'volume')
  mkdirSync(volume)
  symlinkSync('/etc', join(volume, 'out'))
  for (const path of ['out', 'out/passwd', '../x', '/etc', 'out/new'])
    t.throws(() => bindSubPath(volume, path, join(dir, 'target')), { message: /subPath/ }, path)
})

const podOf = (volumes: Volume[], more: Partial<Pod['spec']> = {}): Pod => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: {
    name: 'web',
    namespace: 'default',
    uid: 'u1',
    resourceVersion: '1',
    creationTimestamp: '',
    labels: { app: 'web' },
  },
  spec: { containers: [{ name: 'c', resources: {} }], serviceAccountName: 'bot', volumes, ...more },
  status: {},
})

function setting(t: { teardown(fn: () => Promise<void>): void }) {
  const clock = new FakeClock()
  const client = new FakeClient({ clock })
  const asked: TokenRequest[] = []
  client.answer(({ subresource, body }) => {
    if (subresource !== 'token') return undefined
    asked.push(body as TokenRequest)
    return {
      ...body,
      status: { token: `token-${asked.length}`, expirationTimestamp: new Date(clock.now() + 3_600_000).toISOString() },
    }
  })
  const scope = new Scope()
  t.teardown(() => scope[Symbol.asyncDispose]())
  const objects = new Objects({ client, scope, clock })
  const tokens = createTokenSource(client, clock)
  const node = { name: 'node-1', ips: ['172.30.0.11'], allocatable: { cpu: '2' } }
  const context = (pod: Pod) => ({ pod, node, objects, tokens, now: clock.now(), signal: scope.signal })
  return { clock, client, asked, objects, tokens, node, context }
}
const texts = (payload: Payload) =>
  Object.fromEntries([...payload].map(([path, { data }]) => [path, Buffer.from(data).toString()]))

test('contentOf() a projected volume of everything', async (t) => {
  const { client, asked, context } = setting(t)
  client.seed<ConfigMap>(configMaps, {
    metadata: { name: 'cm', namespace: 'default' },
    data: { a: '1' },
    binaryData: { b: 'Mg==' },
  })
  client.seed<Secret>(secrets, { metadata: { name: 's', namespace: 'default' }, data: { p: 'MQ==', q: 'Mg==' } })
  const pod = podOf([])
  const volume: Volume = {
    name: 'v',
    projected: {
      sources: [
        { configMap: { name: 'cm' } },
        { secret: { name: 's', items: [{ key: 'q', path: 'deep/q', mode: 0o400 }] } },
        { serviceAccountToken: { path: 'token', audience: 'vault', expirationSeconds: 600 } },
        { downwardAPI: { items: [{ path: 'app', fieldRef: { fieldPath: "metadata.labels['app']" } }] } },
        { configMap: { name: 'absent', optional: true } },
      ],
    },
  }
  const { payload, refreshAt } = await contentOf(volume, context(pod))
  t.deepEqual(texts(payload), { a: '1', b: '2', 'deep/q': '2', token: 'token-1', app: 'web' })
  t.is(payload.get('deep/q')?.mode, 0o400)
  t.is(refreshAt, context(pod).now + 0.8 * 3_600_000)
  t.like(asked[0]?.spec, {
    audiences: ['vault'],
    expirationSeconds: 600,
    boundObjectRef: { kind: 'Pod', name: 'web', uid: 'u1' },
  })
})
test("contentOf() says what is missing in upstream's words", async (t) => {
  const { client, context } = setting(t)
  client.seed<ConfigMap>(configMaps, { metadata: { name: 'cm', namespace: 'default' }, data: { a: '1' } })
  const of = (volume: Omit<Volume, 'name'>) => contentOf({ name: 'v', ...volume }, context(podOf([])))
  await t.throwsAsync(of({ configMap: { name: 'no' } }), { message: 'configmap "no" not found' })
  await t.throwsAsync(of({ secret: { secretName: 'no' } }), { message: 'secret "no" not found' })
  await t.throwsAsync(of({ configMap: { name: 'cm', items: [{ key: 'z', path: 'z' }] } }), {
    message: 'references non-existent configmap key: z in default/cm',
  })
})
test('a token is asked for again when 80 % of its life is over', async (t) => {
  const { clock, tokens, asked } = setting(t)
  const ask = () =>
    tokens.request(podOf([]), { audience: undefined, expirationSeconds: 3600 }, new AbortController().signal)
  t.is((await ask()).token, 'token-1')
  clock.advance(2_879_000)
  t.is((await ask()).token, 'token-1')
  clock.advance(2_000)
  t.is((await ask()).token, 'token-2')
  t.is(asked.length, 2)
})
test('Objects tells the pods that refer to an object of its changes', async (t) => {
  const { client, objects } = setting(t)
  client.seed<ConfigMap>(configMaps, { metadata: { name: 'cm', namespace: 'default' }, data: { a: '1' } })
  const told: string[] = []
  objects.onChange((uid) => told.push(uid))
  t.is((await objects.configMap('u1', 'default', 'cm'))?.data?.a, '1')
  t.deepEqual(told, [])
  await client.patch(configMaps, { namespace: 'default', name: 'cm' }, 'merge', { data: { a: '2' } })
  await eventually(() => told.includes('u1'))
  t.is((await objects.configMap('u1', 'default', 'cm'))?.data?.a, '2')
})
test('Volumes mounts disk volumes, refuses what a hostPath is not, and gives fsGroup its files', async (t) => {
  const parts = setting(t)
  const dir = scratch(t as never)
  parts.client.seed<ConfigMap>(configMaps, { metadata: { name: 'cm', namespace: 'default' }, data: { a: '1' } })
  const volumes = new Volumes({
    podsDir: dir,
    node: () => parts.node,
    objects: parts.objects,
    tokens: parts.tokens,
    clock: parts.clock,
  })
  const signal = new AbortController().signal
  const file = join(dir, 'file')
  writeFileSync(file, '')
  chmodSync(file, 0o600)
  const pod = podOf([
    { name: 'empty', emptyDir: {} },
    { name: 'cm', configMap: { name: 'cm' } },
    { name: 'host', hostPath: { path: file, type: 'File' } },
  ])
  await volumes.mount(pod, signal)
  const container = {
    name: 'c',
    resources: {},
    volumeMounts: [
      { name: 'empty', mountPath: '/e' },
      { name: 'cm', mountPath: '/cm' },
      { name: 'host', mountPath: '/h', readOnly: true },
    ],
  }
  const mounts = volumes.mountsOf(pod, container, new Map())
  t.deepEqual(
    mounts.map((m) => [m.containerPath, m.readonly]),
    [
      ['/e', false],
      ['/cm', true],
      ['/h', true],
    ],
  )
  t.is(statSync(mounts[0]?.hostPath ?? '').mode & 0o777, 0o777)
  t.is(readFileSync(join(mounts[1]?.hostPath ?? '', 'a'), 'utf8'), '1')
  const wrong = podOf([{ name: 'host', hostPath: { path: file, type: 'Directory' } }])
  await t.throwsAsync(volumes.mount(wrong, signal), {
    instanceOf: VolumeError,
    message: /^MountVolume.SetUp failed for volume "host" : hostPath type check failed: .* is not a directory$/,
  })
  volumes.remove('u1')
  t.deepEqual(readdirSync(dir), ['file'])
})
