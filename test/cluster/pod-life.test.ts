import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import type { Pod, Service } from '#api/gen/core-v1.ts'
import type { EndpointSlice } from '#api/gen/discovery-v1.ts'
import { endpointSlices, pods, services } from '#api/gen/resources.ts'
import { eventually } from '#base/async/eventually.ts'
import { findCgroups, isPopulated } from '#kernel/cgroup.ts'
import { TestCluster } from './cluster.ts'
import { idle, isReady, type PodDraft, restarts, shell, Watched, waitsFor } from './watched.ts'

/** What becomes of pods: probes, restarts, how they end and are deleted, and an agent that dies under them. */
let cluster: TestCluster
let api: Watched
const scratch = mkdtempSync(join(tmpdir(), 'weft-life-'))
const specs = new Map<string, PodDraft>()

test.before(async () => {
  cluster = TestCluster.up('t-life-pods')
  api = await Watched.start(cluster)
  await api.client.create<Service>(services, {
    metadata: { namespace: 'default', name: 'switched' },
    spec: { selector: { app: 'switched' }, ports: [{ port: 80 }] },
  })
  await Promise.all([...specs].map(([name, spec]) => api.create(name, spec)))
})

test.after.always(async () => {
  await api?.[Symbol.asyncDispose]()
  cluster?.down()
  rmSync(scratch, { recursive: true, force: true })
})

/** A pod that is made before the first test. */
function pod(name: string, spec: PodDraft): void {
  specs.set(name, { terminationGracePeriodSeconds: 1, ...spec })
}
const statusColumn = (name: string): string =>
  cluster.kubectl('get', 'pod', name, '--no-headers').split(/ +/)[2] ?? 'nothing'
const eventOf = (name: string, reason: string, words: RegExp): Promise<unknown> =>
  eventually(async () => (await api.events(name)).some((e) => e.reason === reason && words.test(e.message ?? '')), {
    withinMs: 15_000,
    pauseMs: 50,
  })
const echo = { name: 'c', image: 'weft.local/echo:1' }
const every = { periodSeconds: 1, failureThreshold: 1 }

pod('slow-start', {
  containers: [
    shell('c', `sleep 2; touch /started; ${idle}`, {
      startupProbe: { exec: { command: ['test', '-f', '/started'] }, periodSeconds: 1, failureThreshold: 30 },
      livenessProbe: { exec: { command: ['test', '-f', '/started'] }, ...every },
    }),
  ],
})
pod('never-started', {
  containers: [
    shell('c', idle, { startupProbe: { exec: { command: ['false'] }, periodSeconds: 1, failureThreshold: 2 } }),
  ],
})
test.serial('a startup probe holds liveness back, and ends what does not start', async (t) => {
  t.is(
    (await api.until('slow-start', (p) => p.status.phase === 'Running')).status.containerStatuses?.[0]?.started,
    false,
  )
  const started = await api.until('slow-start', isReady)
  t.is(restarts(started), 0)
  t.is(started.status.containerStatuses?.[0]?.started, true)
  await api.until('never-started', (p) => restarts(p) > 0)
  await eventOf('never-started', 'Killing', /^Container c failed startup probe, will be restarted$/)
})

pod('dead', { containers: [{ ...echo, livenessProbe: { httpGet: { port: 8099, path: '/' }, ...every } }] })
test.serial('a failed liveness probe restarts the container', async (t) => {
  const again = await api.until('dead', (p) => restarts(p) > 0)
  // Told to end before it listens for that, it is killed after its grace.
  const code = again.status.containerStatuses?.[0]?.lastState?.terminated?.exitCode
  t.true(code === 0 || code === 137, String(code))
  await eventOf(
    'dead',
    'Unhealthy',
    /^Liveness probe failed: Get "http:\/\/10\.244\.\d+\.\d+:8099\/": dial tcp .*connection refused$/,
  )
  await eventOf('dead', 'Killing', /^Container c failed liveness probe, will be restarted$/)
})

pod('by-http', {
  containers: [
    {
      ...echo,
      ports: [{ name: 'web', containerPort: 8080 }],
      readinessProbe: { httpGet: { port: 'web', path: '/ready' }, ...every },
    },
  ],
})
pod('by-tcp', { containers: [{ ...echo, readinessProbe: { tcpSocket: { port: 9000 }, ...every } }] })
pod('by-grpc', { containers: [{ ...echo, readinessProbe: { grpc: { port: 5000 }, ...every } }] })
test.serial('readiness by HTTP and TCP; gRPC that nobody answers is not ready', async (t) => {
  await api.until('by-http', isReady)
  await api.until('by-tcp', isReady)
  await eventOf('by-grpc', 'Unhealthy', /^Readiness probe failed: .*(refused|connect)/)
  t.false(api.history('by-grpc').some(isReady))
})

pod('switched', {
  containers: [shell('c', idle, { readinessProbe: { exec: { command: ['test', '-f', '/ready'] }, ...every } })],
})
test.serial('readiness takes the pod out of the EndpointSlice and back within a second', async (t) => {
  const stop = new AbortController()
  const seen: { ready: boolean; at: number }[] = []
  const watching = (async () => {
    const options = {
      namespace: 'default',
      labelSelector: 'kubernetes.io/service-name=switched',
      sendInitialEvents: true,
    }
    for await (const e of api.client.watch<EndpointSlice>(endpointSlices, { ...options, signal: stop.signal })) {
      if (e.type === 'BOOKMARK') continue
      for (const { conditions } of e.object.endpoints ?? [])
        seen.push({ ready: conditions?.ready === true, at: performance.now() })
    }
  })().catch((error) => {
    if (!stop.signal.aborted) throw error
  })
  try {
    const ready = async (wanted: boolean) => {
      cluster.kubectl('exec', 'switched', '--', ...(wanted ? ['touch', '/ready'] : ['rm', '/ready']))
      await api.now('switched', (p) => isReady(p) === wanted)
      const told = performance.now()
      await eventually(() => seen.at(-1)?.ready === wanted, { withinMs: 15_000 })
      return (seen.at(-1)?.at ?? 0) - told
    }
    await api.until('switched', (p) => p.status.phase === 'Running')
    // The quickest of three: what else the machine does is not what is looked at.
    const tookMs = [await ready(true), await ready(false), await ready(true)]
    t.true(Math.min(...tookMs) < 1_000, `${tookMs.map(Math.round).join(', ')} ms`)
  } finally {
    stop.abort()
    await watching
  }
})

const policies = ['Always', 'OnFailure', 'Never'] as const
for (const restartPolicy of policies)
  for (const code of [0, 1])
    pod(`${restartPolicy.toLowerCase()}-${code}`, { restartPolicy, containers: [shell('c', `exit ${code}`)] })
test.serial('restart policies, back-off, and how an end is called', async (t) => {
  for (const name of ['always-0', 'always-1', 'onfailure-1']) {
    const p = await api.until(name, (v) => waitsFor(v) === 'CrashLoopBackOff')
    t.is(restarts(p), 1, name)
    t.is(p.status.phase, 'Running')
    t.regex(
      p.status.containerStatuses?.[0]?.state?.waiting?.message ?? '',
      new RegExp(`^back-off 10s restarting failed container=c pod=${name}_default\\(${p.metadata.uid}\\)$`),
    )
    t.is(p.status.containerStatuses?.[0]?.lastState?.terminated?.reason, name === 'always-0' ? 'Completed' : 'Error')
    await eventOf(name, 'BackOff', /^Back-off restarting failed container c in pod /)
  }
  t.regex(statusColumn('always-1'), /^(CrashLoopBackOff|Error|Running)$/)
  for (const [name, phase, column] of [
    ['onfailure-0', 'Succeeded', 'Completed'],
    ['never-0', 'Succeeded', 'Completed'],
    ['never-1', 'Failed', 'Error'],
  ] as const) {
    const p = await api.until(name, (v) => v.status.phase === 'Succeeded' || v.status.phase === 'Failed')
    t.is(p.status.phase, phase)
    t.is(restarts(p), 0)
    t.is(statusColumn(name), column)
  }
})

pod('bad-name', { containers: [{ name: 'c', image: 'weft.local/Upper:1' }] })
pod('never-pulled', { containers: [{ name: 'c', image: 'weft.local/absent:1', imagePullPolicy: 'Never' }] })
pod('no-program', { containers: [{ ...shell('c', ''), command: ['/absent'] }] })
test.serial('what cannot start is called by its name', async (t) => {
  for (const [name, reason, words] of [
    ['bad-name', 'InvalidImageName', /repository name \(Upper\) must be lowercase$/],
    [
      'never-pulled',
      'ErrImageNeverPull',
      /^Container image "weft.local\/absent:1" is not present with pull policy of Never$/,
    ],
  ] as const) {
    const { status } = await api.until(name, (p) => waitsFor(p) === reason)
    t.regex(status.containerStatuses?.[0]?.state?.waiting?.message ?? '', words)
    t.is(statusColumn(name), reason)
    await eventOf(name, 'Failed', new RegExp(`^Error: ${reason}$`))
  }
  const { status } = await api.until('no-program', (p) => waitsFor(p) === 'CrashLoopBackOff')
  const ended = status.containerStatuses?.[0]?.lastState?.terminated
  t.like(ended, { reason: 'StartError', exitCode: 128 })
  t.regex(ended?.message ?? '', /exec: "\/absent": stat \/absent: no such file or directory/)
})

pod('with-sidecar', {
  restartPolicy: 'Never',
  volumes: [{ name: 's', emptyDir: {} }],
  initContainers: [
    {
      ...shell('side', `touch /s/side; ${idle}`, { volumeMounts: [{ name: 's', mountPath: '/s' }] }),
      restartPolicy: 'Always',
      startupProbe: { exec: { command: ['test', '-f', '/s/side'] }, periodSeconds: 1 },
    },
    shell('after', 'test -f /s/side', { volumeMounts: [{ name: 's', mountPath: '/s' }] }),
  ],
  containers: [shell('c', 'sleep 0.5')],
})
pod('updated', { containers: [shell('c', idle)] })
test.serial(
  'a sidecar runs beside the others and ends after them; a new image begins the container anew',
  async (t) => {
    await api.until('updated', isReady)
    cluster.kubectl('set', 'image', 'pod/updated', 'c=weft.local/echo:1')
    await eventOf('updated', 'Killing', /^Container c definition changed, will be restarted$/)
    const { status } = await api.until('with-sidecar', (p) => p.status.phase === 'Succeeded')
    t.is(status.initContainerStatuses?.[0]?.state?.terminated?.exitCode, 0)
    t.true(api.history('with-sidecar').some((p) => p.status.initContainerStatuses?.[0]?.started === true))
    await api.until('updated', (p) => p.status.containerStatuses?.[0]?.image === 'weft.local/echo:1')
  },
)

pod('fat', {
  restartPolicy: 'Never',
  containers: [shell('c', 'tail /dev/zero', { resources: { limits: { memory: '24Mi' } } })],
})
pod('last-words', {
  restartPolicy: 'Never',
  containers: [shell('c', 'echo bye > /bye; exit 3', { terminationMessagePath: '/bye' })],
})
pod('log-words', {
  restartPolicy: 'Never',
  containers: [shell('c', 'echo one; echo two; exit 3', { terminationMessagePolicy: 'FallbackToLogsOnError' })],
})
pod('late', { activeDeadlineSeconds: 3, containers: [shell('c', idle)] })
test.serial('OOMKilled, last words, and a deadline', async (t) => {
  const ended = async (name: string) => (await api.until(name, (p) => p.status.phase === 'Failed')).status
  t.like((await ended('fat')).containerStatuses?.[0]?.state?.terminated, { reason: 'OOMKilled', exitCode: 137 })
  t.is(statusColumn('fat'), 'OOMKilled')
  t.like((await ended('last-words')).containerStatuses?.[0]?.state?.terminated, { message: 'bye\n', exitCode: 3 })
  t.like((await ended('log-words')).containerStatuses?.[0]?.state?.terminated, { message: 'one\ntwo\n' })
  t.like(await ended('late'), {
    reason: 'DeadlineExceeded',
    message: 'Pod was active on the node longer than the specified deadline',
  })
})

const said = (name: string) => readFileSync(join(scratch, name), 'utf8')
const witness = {
  volumes: [{ name: 'w', hostPath: { path: scratch } }],
}
const at = { volumeMounts: [{ name: 'w', mountPath: '/w' }] }
pod('stubborn', {
  ...witness,
  terminationGracePeriodSeconds: 3,
  containers: [
    shell('c', "trap 'echo term >> /w/stubborn' TERM; while true; do sleep 0.1; done", {
      ...at,
      lifecycle: { preStop: { exec: { command: ['sh', '-c', 'sleep 1; echo preStop >> /w/stubborn'] } } },
    }),
  ],
})
pod('polite', {
  terminationGracePeriodSeconds: 30,
  containers: [shell('c', "trap 'exit 7' TERM; while true; do sleep 0.1; done")],
})
pod('shortened', {
  terminationGracePeriodSeconds: 600,
  containers: [shell('c', 'trap "" TERM; while true; do sleep 0.1; done')],
})
pod('zero', {
  terminationGracePeriodSeconds: 600,
  containers: [shell('c', 'trap "" TERM; while true; do sleep 0.1; done')],
})
pod('forced', {
  terminationGracePeriodSeconds: 600,
  containers: [shell('c', 'trap "" TERM; while true; do sleep 0.1; done')],
})
test.serial('a deletion: preStop, the signal, the grace; how it ended is told before the object goes', async (t) => {
  const remove = async (name: string, ...flags: string[]) => {
    const made = await api.until(name, isReady)
    const began = performance.now()
    cluster.kubectl('delete', 'pod', name, '--wait=false', ...flags)
    return { made, began }
  }
  const stubborn = await remove('stubborn')
  const polite = await remove('polite')
  const shortened = await remove('shortened')
  const deleted = await api.until('stubborn', (p) => p.metadata.deletionTimestamp !== undefined)
  t.is(deleted.metadata.deletionGracePeriodSeconds, 3)
  t.is(statusColumn('shortened'), 'Terminating')

  const last = await api.gone(polite.made)
  t.is(last.status.containerStatuses?.[0]?.state?.terminated?.exitCode, 7)
  t.true(performance.now() - polite.began < 25_000, 'it did not wait for its grace')
  const killed = await api.gone(stubborn.made)
  const tookMs = performance.now() - stubborn.began
  t.true(tookMs > 2_500 && tookMs < 20_000, `${tookMs} ms`)
  t.is(killed.status.containerStatuses?.[0]?.state?.terminated?.exitCode, 137)
  t.is(killed.status.phase, 'Failed')
  t.is(said('stubborn'), 'preStop\nterm\n')

  const zero = await remove('zero', '--grace-period=0')
  t.is(
    (await api.until('zero', (p) => p.metadata.deletionTimestamp !== undefined)).metadata.deletionGracePeriodSeconds,
    1,
  )
  cluster.kubectl('delete', 'pod', 'shortened', '--now', '--wait=false')
  await api.gone(shortened.made)
  await api.gone(zero.made)
  t.true(performance.now() - zero.began < 25_000)
})

const cgroupOf = (p: Pod) =>
  `${cluster.layout.nodes.find((n) => n.name === p.spec.nodeName)?.cgroup}/pods/${p.metadata.uid}`
test.serial('a forced deletion takes the object at once and the processes soon', async (t) => {
  const made = await api.until('forced', isReady)
  const cgroups = findCgroups()
  t.true(isPopulated(cgroups, cgroupOf(made)))
  cluster.kubectl('delete', 'pod', 'forced', '--grace-period=0', '--force')
  t.is(cluster.try(['get', 'pod', 'forced']).code, 1)
  await eventually(() => isPopulated(cgroups, cgroupOf(made)) === undefined, { withinMs: 10_000, pauseMs: 20 })
})

pod('survivor', {
  containers: [shell('c', idle, { readinessProbe: { exec: { command: ['true'] }, ...every } }), shell('d', idle)],
})
pod('ends-meanwhile', {
  ...witness,
  restartPolicy: 'Never',
  containers: [shell('c', 'until [ -e /w/end ]; do sleep 0.1; done; exit 9', at)],
})
pod('deleted-meanwhile', { containers: [shell('c', idle)] })
test.serial('kill -9 of the agents and up again: no container is touched, and nothing was missed', async (t) => {
  const survivor = await api.until('survivor', isReady)
  await api.until('ends-meanwhile', isReady)
  const deleted = await api.until('deleted-meanwhile', isReady)
  await killOnEveryNode('agent')
  await api.create('made-meanwhile', { terminationGracePeriodSeconds: 1, containers: [shell('c', idle)] })
  await api.client.delete(pods, { namespace: 'default', name: 'deleted-meanwhile' })
  writeFileSync(join(scratch, 'end'), '')
  cluster.weftUp()

  await api.gone(deleted)
  await api.until('made-meanwhile', isReady)
  const ended = await api.until('ends-meanwhile', (p) => p.status.phase === 'Failed')
  t.is(ended.status.containerStatuses?.[0]?.state?.terminated?.exitCode, 9)
  const after = api.history('survivor').at(-1)
  t.is(after?.metadata.resourceVersion, survivor.metadata.resourceVersion, 'not even its status was written')
  cluster.kubectl('exec', 'survivor', '-c', 'd', '--', 'true')
})

test.serial('kill -9 of containerd while pods are being made: they run in the end, and leave nothing', async (t) => {
  const names = Array.from({ length: 12 }, (_, i) => `storm-${i}`)
  const volumes = [{ name: 'm', emptyDir: { medium: 'Memory' } }]
  const mount = { volumeMounts: [{ name: 'm', mountPath: '/m' }] }
  await Promise.all(
    names.map((name) =>
      api.create(name, {
        terminationGracePeriodSeconds: 1,
        volumes,
        initContainers: [shell('i', 'echo x > /m/x', mount)],
        containers: [shell('c', idle, mount)],
      }),
    ),
  )
  await Promise.race(names.map((name) => api.until(name, (p) => p.status.phase === 'Running')))
  await killOnEveryNode('containerd')
  cluster.weftUp()
  const running = await Promise.all(names.map((name) => api.now(name, isReady)))
  await Promise.all(names.map((name) => api.client.delete(pods, { namespace: 'default', name })))
  await Promise.all(running.map((p) => api.gone(p)))
  const cgroups = findCgroups()
  for (const p of running)
    await eventually(() => isPopulated(cgroups, cgroupOf(p)) === undefined, { withinMs: 15_000, pauseMs: 20 })
  t.false(readFileSync('/proc/self/mountinfo', 'utf8').includes(running[0]?.metadata.uid ?? ''))
})

async function killOnEveryNode(process: 'agent' | 'containerd'): Promise<void> {
  const killed = await Promise.all(cluster.layout.nodes.map(({ name }) => cluster.kill(`${name}/${process}`)))
  if (killed.includes(undefined)) throw new Error(`a node had no ${process} to kill`)
}
