import test from 'ava'
import { AggregatorRegistry } from 'prom-client'
import type { ConfigMap } from '#api/gen/core-v1.ts'
import { configMaps, pods } from '#api/gen/resources.ts'
import { forbidden } from '#api/meta/status.ts'
import { eventually } from '#base/async/eventually.ts'
import { Scope } from '#base/async/scope.ts'
import { FakeClock } from '#base/clock.ts'
import { silentLog } from '#base/log/log.ts'
import { FakeClient } from '#client/fake.ts'
import { Informers } from '#client/informer.ts'
import { awaitChange, Controller, requeueAfter } from './controller.ts'
import { isAccessDenied, TerminalError } from './errors.ts'
import { createLoop } from './loop.ts'
import { Manager, type Part } from './manager.ts'
import { ReconcileMetrics } from './metrics.ts'
import { OwnWrites } from './own-writes.ts'
import { WorkQueue } from './workqueue.ts'

test('a WorkQueue gives a key to one worker at a time, and again if it was added meanwhile', async (t) => {
  const queue = new WorkQueue({ clock: new FakeClock() })
  queue.add('a')
  queue.add('a')
  queue.add('b')
  t.is(await queue.take(), 'a')
  queue.add('a')
  t.is(await queue.take(), 'b')
  t.is(queue.size, 0)
  queue.done('a')
  t.is(await queue.take(), 'a')
  queue.done('a')
  t.is(queue.size, 0)
})

test('a WorkQueue doubles the pause from 5 ms to 1000 s, and forgets it on success', (t) => {
  const clock = new FakeClock()
  const queue = new WorkQueue({ clock })
  const pauses = Array.from({ length: 20 }, () => queue.retry('a'))
  t.deepEqual(pauses.slice(0, 4), [5, 10, 20, 40])
  t.is(pauses.at(-1), 1_000_000)
  queue.forget('a')
  t.is(queue.retry('a'), 5)
})

test('a WorkQueue paces all retries together once their burst is used up', (t) => {
  const queue = new WorkQueue({ clock: new FakeClock() })
  const pauses = Array.from({ length: 120 }, (_, i) => queue.retry(`k${i}`))
  t.is(pauses[99], 5)
  t.is(pauses[119], 2_000)
})

test('a WorkQueue adds later, at the earliest of the times asked for', async (t) => {
  const clock = new FakeClock()
  const queue = new WorkQueue({ clock })
  queue.addAfter('a', 1_000)
  queue.addAfter('a', 500)
  queue.addAfter('a', 2_000)
  clock.advance(499)
  t.is(queue.size, 0)
  clock.advance(1)
  t.is(queue.size, 1)
  t.is(await queue.take(), 'a')
  queue.done('a')
  clock.advance(5_000)
  t.is(queue.size, 0)
})

test('a closed WorkQueue lets its takers go', async (t) => {
  const queue = new WorkQueue({ clock: new FakeClock() })
  const taken = queue.take()
  queue.close()
  t.is(await taken, undefined)
})

test('queues speak under the names of upstream', async (t) => {
  const metrics = new ReconcileMetrics()
  const queue = new WorkQueue({ clock: new FakeClock(), metrics: metrics.queue('deployment') })
  queue.add('a')
  queue.add('b')
  await queue.take()
  queue.retry('c')
  const text = await AggregatorRegistry.aggregate([metrics.families()]).metrics()
  t.regex(text, /^workqueue_depth\{name="deployment"\} 1$/m)
  t.regex(text, /^workqueue_adds_total\{name="deployment"\} 2$/m)
  t.regex(text, /^workqueue_retries_total\{name="deployment"\} 1$/m)
  t.regex(text, /^workqueue_queue_duration_seconds_count\{name="deployment"\} 1$/m)
  t.regex(text, /^workqueue_queue_duration_seconds_bucket\{name="deployment",le="0.001"\} 1$/m)
  t.regex(text, /^workqueue_queue_duration_seconds_bucket\{name="deployment",le="\+Inf"\} 1$/m)
})

test('a Controller looks again later, tries failures again, and lets terminal ones be', async (t) => {
  const clock = new FakeClock()
  const seen: string[] = []
  let failures = 0
  const controller = new Controller({
    name: 'c',
    clock,
    async reconcile(key) {
      seen.push(key)
      if (key === 'later') return seen.filter((k) => k === 'later').length < 2 ? requeueAfter(1_000) : awaitChange
      if (key === 'flaky' && failures++ < 2) throw new Error('not yet')
      if (key === 'hopeless') throw new TerminalError('never')
      return awaitChange
    },
  })
  await using scope = new Scope()
  scope.start((signal) => controller.run(signal))
  for (const key of ['later', 'flaky', 'hopeless']) controller.enqueue(key)
  await eventually(() => seen.length === 3)
  await eventually(() => controller.queue.idle)
  clock.advance(5)
  await eventually(() => seen.length === 4 && controller.queue.idle)
  clock.advance(10)
  await eventually(() => seen.length === 5 && controller.queue.idle)
  clock.advance(10_000)
  await eventually(() => seen.length === 6 && controller.queue.idle)
  t.deepEqual(seen, ['later', 'flaky', 'hopeless', 'flaky', 'flaky', 'later'])
})

test('a Controller finishes what it has in hand before it has stopped', async (t) => {
  const gate = Promise.withResolvers<void>()
  const started = Promise.withResolvers<void>()
  let finished = false
  const controller = new Controller({
    name: 'c',
    clock: new FakeClock(),
    async reconcile() {
      started.resolve()
      await gate.promise
      finished = true
      return awaitChange
    },
  })
  const stop = new AbortController()
  const running = controller.run(stop.signal)
  controller.enqueue('a')
  await started.promise
  stop.abort()
  gate.resolve()
  await running
  t.true(finished)
})

test('a Controller ends when its identity lacks a right, not when a namespace is going', async (t) => {
  const denied = forbidden({ group: '', resource: 'pods' }, 'p', 'User "u" cannot create resource "pods"')
  t.true(isAccessDenied(denied))
  t.false(isAccessDenied(forbidden({ group: '', resource: 'pods' }, 'p', 'unable to create new content')))
  const controller = new Controller({
    name: 'c',
    clock: new FakeClock(),
    reconcile: async () => {
      throw denied
    },
  })
  controller.enqueue('a')
  await t.throwsAsync(controller.run(new AbortController().signal), { is: denied })
})

test('OwnWrites holds a key back until the copy has what was written under it', async (t) => {
  const client = new FakeClient()
  await using informers = new Informers({ client })
  const copy = informers.of(configMaps)
  const { signal } = new AbortController()
  await copy.whenSynced(signal)
  const writes = new OwnWrites(new FakeClock())
  const made = await client.create<ConfigMap>(configMaps, { metadata: { namespace: 'a', name: 'm' } })
  writes.wrote('key', copy, made)
  await writes.whenSeen('key', signal)
  t.is(copy.get('a/m')?.metadata.uid, made.metadata.uid)
  await client.delete(configMaps, made.metadata)
  writes.deleted('key', copy, made)
  await writes.whenSeen('key', signal)
  t.is(copy.get('a/m'), undefined)
})

test('a Manager stops in reverse, and one part without rights takes no other with it', async (t) => {
  const clock = new FakeClock()
  const order: string[] = []
  const until = (signal: AbortSignal) =>
    new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }))
  const part = (name: string): Part => ({
    name,
    async run(signal, started) {
      order.push(`+${name}`)
      started()
      await until(signal)
      order.push(`-${name}`)
    },
  })
  let allowed = false
  const denied: Part = {
    name: 'denied',
    async run(signal, started) {
      if (!allowed) throw forbidden({ group: '', resource: 'pods' }, '', 'User "u" cannot list resource "pods"')
      started()
      await until(signal)
    },
  }
  const manager = new Manager({ parts: [part('a'), denied, part('b')], clock })
  const stop = new AbortController()
  const running = manager.run(stop.signal)
  await eventually(() => manager.health().denied?.state === 'waiting')
  t.regex(manager.health().denied?.reason ?? '', /^Forbidden: .*cannot list/)
  t.is(manager.health().a?.state, 'running')
  t.is(manager.health().b?.state, 'running')
  allowed = true
  clock.advance(1_000)
  await eventually(() => manager.health().denied?.state === 'running')
  stop.abort()
  await running
  t.deepEqual(order, ['+a', '+b', '-b', '-a'])
  t.is(manager.health().a?.state, 'stopped')
})

test('createLoop() ends with the very refusal that stopped it', async (t) => {
  const admin = new FakeClient()
  await using informers = new Informers({ client: admin })
  const refused = forbidden({ group: '', resource: 'pods' }, 'p', 'User "u" cannot create resource "pods"')
  const loop = createLoop(
    { name: 'test-controller', client: admin, informers, clock: new FakeClock(), log: silentLog },
    {
      reads: [configMaps],
      begin({ controller }) {
        controller.enqueue('a')
        return async () => {
          throw refused
        }
      },
    },
  )
  await t.throwsAsync(
    loop.run(new AbortController().signal, () => {}),
    { is: refused },
  )
})

test('createLoop() asks for its own rights, then reconciles what is there and what changes', async (t) => {
  const clock = new FakeClock()
  const admin = new FakeClient({ clock })
  await admin.create(configMaps, { metadata: { namespace: 'a', name: 'one' } })
  await using informers = new Informers({ client: admin, clock })
  const seen: string[] = []
  const loop = createLoop(
    { name: 'test-controller', client: admin.as('test'), informers, clock, log: silentLog },
    {
      reads: [configMaps],
      begin({ controller, signal }) {
        controller.watch(informers.of(configMaps), signal)
        return async (key) => {
          seen.push(key)
          return awaitChange
        }
      },
    },
  )
  const allow = admin.deny('test', 'list', configMaps)
  const { signal } = new AbortController()
  t.true(isAccessDenied(await t.throwsAsync(loop.run(signal, () => {}))))
  allow()
  const stop = new AbortController()
  const running = loop.run(stop.signal, () => {})
  await eventually(() => seen.length === 1)
  await admin.create(configMaps, { metadata: { namespace: 'a', name: 'two' } })
  await eventually(() => seen.length === 2)
  stop.abort()
  await running
  await admin.create(pods, { metadata: { namespace: 'a', name: 'p' } })
  t.deepEqual(seen, ['a/one', 'a/two'])
})

test('ReconcileMetrics counts what a part counts by itself, and no more label sets than it may', async (t) => {
  const metrics = new ReconcileMetrics()
  for (let i = 0; i < 3; i++) metrics.count('attempts_total', 'Attempts', { result: 'scheduled' })
  metrics.observe('attempt_seconds', 'Time', { result: 'scheduled' }, 0.05)
  metrics.gauge('pending', 'Waiting', () => [{ labels: { queue: 'active' }, value: 7 }])
  for (let i = 0; i < 1_500; i++) metrics.count('names_total', 'Somebody’s names', { name: `n${i}` })
  const text = await AggregatorRegistry.aggregate([metrics.families()]).metrics()
  t.true(text.includes('attempts_total{result="scheduled"} 3\n'))
  t.true(text.includes('pending{queue="active"} 7\n'))
  t.regex(text, /attempt_seconds_bucket\{[^}]*le="0\.1"[^}]*\} 1\n/)
  t.regex(text, /attempt_seconds_count\{result="scheduled"\} 1\n/)
  t.is(text.match(/^names_total\{/gm)?.length, 1_000)
})
