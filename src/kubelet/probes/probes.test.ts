import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { promisify } from 'node:util'
import * as grpc from '@grpc/grpc-js'
import test from 'ava'
import type { Container, Pod } from '#api/gen/core-v1.ts'
import { eventually } from '#base/async/eventually.ts'
import { Scope } from '#base/async/scope.ts'
import { FakeClock } from '#base/clock.ts'
import { containerFor, sandboxFor } from '../runtime/conformance.ts'
import { FakeRuntime } from '../runtime/fake.ts'
import { askHttp, connectTcp, portOf } from './ask.ts'
import { askGrpc } from './grpc-health.ts'
import { initialProbe, type ProbeState, stepProbe, thresholdsOf } from './machine.ts'
import { Probes } from './probes.ts'

test('stepProbe() believes a change only at its threshold', (t) => {
  const thresholds = thresholdsOf({ successThreshold: 2, failureThreshold: 3 })
  const beliefs = (answers: string) => {
    let state: ProbeState = initialProbe(false)
    let text = ''
    for (const answer of answers) {
      state = stepProbe(state, answer === '+', thresholds)
      text += state.result ? '+' : '-'
    }
    return text
  }
  t.is(beliefs('++--+---++'), '-+++++' + '+--+')
  t.is(beliefs('+-+-+-'), '------')
})

const container: Container = { name: 'c', resources: {}, ports: [{ name: 'web', containerPort: 8080 }] }
const options = { timeoutMs: 500, signal: new AbortController().signal }
test('portOf() looks a name up', (t) => {
  t.is(portOf('web', container), 8080)
  t.is(portOf(81, container), 81)
  t.throws(() => portOf('nope', container))
})
test('askHttp() takes 200 to 399 for well, follows redirects, and says what went wrong', async (t) => {
  const server = createServer((request, response) => {
    if (request.url === '/redirect') response.writeHead(302, { location: '/ok' })
    else if (request.url === '/loop') response.writeHead(302, { location: '/loop' })
    else if (request.url === '/away') response.writeHead(302, { location: 'http://example.invalid/' })
    else if (request.url === '/slow') return
    else response.writeHead(request.url === '/ok' && request.headers['x-probe'] === 'yes' ? 200 : 500)
    response.end('body')
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  const ask = (path: string, timeoutMs = 500) =>
    askHttp({ path, port, httpHeaders: [{ name: 'X-Probe', value: 'yes' }] }, container, '127.0.0.1', {
      ...options,
      timeoutMs,
    })
  t.deepEqual(await ask('/ok'), { ok: true, message: 'body' })
  t.true((await ask('/redirect')).ok)
  t.true((await ask('/away')).ok)
  t.regex((await ask('/loop')).message, /stopped after 10 redirects/)
  t.deepEqual(await ask('/no'), { ok: false, message: 'HTTP probe failed with statuscode: 500' })
  t.regex((await ask('/slow', 50)).message, /context deadline exceeded/)
  server.closeAllConnections()
  server.close()
  await eventually(async () => {
    const refused = await ask('/ok')
    return /dial tcp 127.0.0.1:\d+: connect: connection refused$/.test(refused.message)
  })
  t.false((await connectTcp('127.0.0.1', port, options)).ok)
})

const podOf = (spec: Container): Pod => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name: 'web', namespace: 'default', uid: 'u1', resourceVersion: '1', creationTimestamp: '' },
  spec: { containers: [spec] },
  status: {},
})

/** A running container on the fake runtime whose exec probes answer what `answers` says of their command. */
async function probed(
  t: { teardown(fn: () => Promise<void>): void },
  spec: Container,
  answers: Record<string, boolean>,
) {
  const clock = new FakeClock()
  const runtime = new FakeRuntime(clock, ['busybox:1'])
  const asked: string[] = []
  runtime.exec = (_, [name = '']) => {
    asked.push(name)
    return { exitCode: answers[name] === true ? 0 : 1, stdout: Buffer.from('out'), stderr: new Uint8Array() }
  }
  const config = sandboxFor('u1', { cgroup: '', logDir: '' })
  const id = await runtime.createContainer(
    await runtime.runSandbox(config),
    containerFor('c', 'busybox:1', 'u1'),
    config,
  )
  await runtime.startContainer(id)
  const record = await runtime.containerStatus(id)
  if (record === undefined) throw new Error('no container')
  const scope = new Scope()
  t.teardown(() => scope[Symbol.asyncDispose]())
  const events: string[] = []
  const probes = new Probes({ runtime, clock, scope, events: { record: (_, note) => events.push(note.message) } })
  const sync = (known?: { ready: boolean; started: boolean }) =>
    probes.sync(podOf(spec), [{ container: spec, record, known }], '127.0.0.1', false)
  const verdict = () => probes.verdicts('u1').get(id)
  /** Moves time on until the condition holds. */
  const until = (holds: () => boolean) =>
    eventually(() => {
      clock.advance(1_000)
      return holds()
    })
  return { clock, probes, sync, verdict, asked, events, until }
}
const exec = (name: string) => ({ exec: { command: [name] }, periodSeconds: 1, failureThreshold: 2 })

test('a startup probe holds the others back until it succeeds', async (t) => {
  const answers = { start: false, ready: true, live: true }
  const spec: Container = {
    ...container,
    startupProbe: { ...exec('start'), failureThreshold: 30 },
    readinessProbe: exec('ready'),
    livenessProbe: exec('live'),
  }
  const { sync, verdict, asked, until } = await probed(t, spec, answers)
  sync()
  await until(() => asked.length >= 3)
  t.deepEqual(new Set(asked), new Set(['start']))
  t.deepEqual(verdict(), { started: false, ready: false, failed: undefined })
  answers.start = true
  await until(() => verdict()?.ready === true)
  t.deepEqual(verdict(), { started: true, ready: true, failed: undefined })
})
test('a liveness probe asks for the end after its threshold, with its own grace', async (t) => {
  const spec: Container = { ...container, livenessProbe: { ...exec('live'), terminationGracePeriodSeconds: 7 } }
  const { sync, verdict, events, asked, until } = await probed(t, spec, { live: false })
  sync()
  await until(() => verdict()?.failed !== undefined)
  t.deepEqual(verdict()?.failed, { probe: 'liveness', graceSeconds: 7 })
  t.is(asked.length, 2)
  t.is(events[0], 'Liveness probe failed: out')
})
test('what the API believed of a container is believed on after a restart', async (t) => {
  const { sync, verdict } = await probed(t, { ...container, readinessProbe: exec('ready') }, { ready: true })
  sync({ ready: true, started: true })
  t.deepEqual(verdict(), { started: true, ready: true, failed: undefined })
})

test('askGrpc() speaks grpc.health.v1', async (t) => {
  const server = new grpc.Server()
  const identity = { serialize: (b: Buffer) => b, deserialize: (b: Buffer) => b }
  const check = {
    path: '/grpc.health.v1.Health/Check',
    requestStream: false as const,
    responseStream: false as const,
    requestSerialize: identity.serialize,
    requestDeserialize: identity.deserialize,
    responseSerialize: identity.serialize,
    responseDeserialize: identity.deserialize,
  }
  server.addService(
    { Check: check },
    {
      // Serving for the service `good` and for the server as a whole (no name), not serving for others.
      Check: (call: grpc.ServerUnaryCall<Buffer, Buffer>, done: grpc.sendUnaryData<Buffer>) => {
        const name = call.request.subarray(2).toString()
        done(null, Buffer.from([0x08, name === '' || name === 'good' ? 1 : 2]))
      },
    },
  )
  const bind = promisify(server.bindAsync.bind(server)) as (a: string, c: grpc.ServerCredentials) => Promise<number>
  const port = await bind('127.0.0.1:0', grpc.ServerCredentials.createInsecure())
  t.deepEqual(await askGrpc('127.0.0.1', port, '', options), { ok: true, message: '' })
  t.true((await askGrpc('127.0.0.1', port, 'good', options)).ok)
  t.deepEqual(await askGrpc('127.0.0.1', port, 'bad', options), {
    ok: false,
    message: 'service unhealthy (responded with "NOT_SERVING")',
  })
  server.forceShutdown()
  t.false((await askGrpc('127.0.0.1', port, '', options)).ok)
})
