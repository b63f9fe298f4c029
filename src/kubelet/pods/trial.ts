import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Container, Pod, PodStatus } from '#api/gen/core-v1.ts'
import { namespaces, pods } from '#api/gen/resources.ts'
import { FakeClock } from '#base/clock.ts'
import type { Draft } from '#client/client.ts'
import { FakeClient } from '#client/fake.ts'
import { createKubelet } from '../kubelet.ts'
import { FakeRuntime } from '../runtime/fake.ts'
import type { ContainerRecord, SandboxStatus } from '../runtime/runtime.ts'
import type { PodFacts } from './facts.ts'
import { Memory } from './memory.ts'

/** For tests only: a pod and what the runtime says of it, as literals; and a whole kubelet on fakes. */

/** When all of it happens. */
export const now = Date.parse('2026-01-01T00:00:00Z')
/** A container of a pod's spec. */
export const box = (name: string, more: Partial<Container> = {}): Container => ({
  name,
  image: 'busybox:1',
  resources: {},
  ...more,
})

/** The pod `default/web`. */
export function podOf(
  spec: Partial<Pod['spec']> = {},
  more: { metadata?: Partial<Pod['metadata']>; status?: PodStatus } = {},
): Pod {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      name: 'web',
      namespace: 'default',
      uid: 'u1',
      resourceVersion: '1',
      creationTimestamp: '',
      ...more.metadata,
    },
    spec: { containers: [box('c')], restartPolicy: 'Always', ...spec },
    status: more.status ?? { phase: 'Pending' },
  }
}

/** The pod's, ready, with both addresses. */
export const sandbox = (more: Partial<SandboxStatus> = {}): SandboxStatus => ({
  id: 's1',
  name: 'web',
  namespace: 'default',
  podUid: 'u1',
  attempt: 0,
  ready: true,
  createdAt: now,
  annotations: {},
  ips: ['10.244.1.7', 'fd00::7'],
  ...more,
})

/** A container that runs in it. */
export const run = (name: string, more: Partial<ContainerRecord> = {}): ContainerRecord => ({
  id: `${name}-0`,
  sandboxId: 's1',
  name,
  podUid: 'u1',
  attempt: 0,
  state: 'running',
  createdAt: now,
  startedAt: now,
  finishedAt: 0,
  exitCode: 0,
  reason: '',
  message: '',
  image: 'busybox:1',
  imageRef: 'sha256:1',
  logPath: '/log',
  labels: {},
  annotations: {},
  mounts: [],
  ...more,
})

/** One that has ended. */
export const ended = (name: string, exitCode: number, more: Partial<ContainerRecord> = {}) =>
  run(name, { state: 'exited', exitCode, finishedAt: now, ...more })

/** What the plan looks at: volumes are mounted unless `change` says otherwise. */
export function factsOf(
  pod: Pod,
  sandboxes: SandboxStatus[],
  containers: ContainerRecord[],
  change: (m: Memory) => void = () => {},
): PodFacts {
  const memory = new Memory(now)
  memory.volumes = 'mounted'
  change(memory)
  return { pod, gone: false, now, sandboxes, containers, memory }
}

/** A kubelet on a runtime in memory, on a clock that we move. */
export async function withKubelet(
  body: (parts: {
    client: FakeClient
    runtime: FakeRuntime
    clock: FakeClock
    create: (spec?: Partial<Pod['spec']>) => Promise<void>
    get: () => Promise<Pod>
  }) => Promise<void>,
): Promise<void> {
  const dir = mkdtempSync(join(tmpdir(), 'weft-pods-'))
  const clock = new FakeClock()
  const client = new FakeClient({ clock })
  const runtime = new FakeRuntime(clock, ['busybox:1'])
  const stop = new AbortController()
  await client.create(namespaces, { metadata: { name: 'default' } })
  const running = createKubelet({
    nodeName: 'node-1',
    addresses: ['172.30.0.11'],
    client,
    dataDir: dir,
    runtime,
    cgroup: false,
    clock,
  }).run(stop.signal)
  try {
    await body({
      client,
      runtime,
      clock,
      create: async (spec = {}) => {
        const draft = {
          metadata: { name: 'web', namespace: 'default' },
          spec: { nodeName: 'node-1', containers: [box('c')], ...spec },
        }
        await client.create<Pod>(pods, draft as Draft<Pod>)
      },
      get: () => client.get(pods, { namespace: 'default', name: 'web' }),
    })
  } finally {
    stop.abort()
    await running
    rmSync(dir, { recursive: true, force: true })
  }
}
