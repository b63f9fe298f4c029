import test from 'ava'
import fc from 'fast-check'
import { events as eventResource, pods } from '#api/gen/resources.ts'
import { findCondition } from '#api/meta/conditions.ts'
import { eventually } from '#base/async/eventually.ts'
import type { ContainerRecord } from '../runtime/runtime.ts'
import { backOffNotes } from './back-off.ts'
import { formatWait } from './container-status.ts'
import type { PodFacts } from './facts.ts'
import { Memory } from './memory.ts'
import { type Action, planPod } from './plan.ts'
import { raise, restartableAt } from './restart.ts'
import { statusOf } from './status.ts'
import { box, ended, factsOf, now, podOf, run, sandbox, withKubelet } from './trial.ts'

/** A plan in a line: what a person would say of it. */
const say = (action: Action): string => {
  switch (action.do) {
    case 'create-sandbox':
      return `create-sandbox ${action.attempt}`
    case 'start-container':
      return `start ${action.name} ${action.attempt}`
    case 'stop-container':
      return `stop ${action.name} ${action.graceSeconds}`
    case 'remove-container':
    case 'remove-sandbox':
    case 'stop-sandbox':
      return `${action.do} ${action.id}`
    case 'end-pod':
      return `end ${action.end.reason}`
    default:
      return action.do
  }
}
const plan = (facts: PodFacts): string[] => planPod(facts).actions.map(say)

test('planPod() mounts volumes and makes the sandbox at the same time', (t) => {
  t.deepEqual(plan(factsOf(podOf(), [], [], (m) => (m.volumes = 'none'))), ['mount-volumes', 'create-sandbox 0'])
})
test('planPod() starts nothing before the volumes are there', (t) => {
  t.deepEqual(plan(factsOf(podOf(), [sandbox()], [], (m) => (m.volumes = 'none'))), ['mount-volumes'])
  t.deepEqual(plan(factsOf(podOf(), [sandbox()], [])), ['start c 0'])
})
test('planPod() starts containers in order, one at a time', (t) => {
  const pod = podOf({ containers: [box('a'), box('b')] })
  t.deepEqual(plan(factsOf(pod, [sandbox()], [])), ['start a 0'])
  t.deepEqual(plan(factsOf(pod, [sandbox()], [run('a')])), ['start b 0'])
  t.deepEqual(plan(factsOf(pod, [sandbox()], [run('a'), run('b')])), [])
})
test('planPod() does nothing twice at a time', (t) => {
  t.deepEqual(plan(factsOf(podOf(), [sandbox()], [], (m) => m.begin('start'))), [])
})
test('planPod() removes a half-made sandbox before it makes another', (t) => {
  t.deepEqual(plan(factsOf(podOf(), [sandbox({ ready: false })], [])), ['remove-sandbox s1'])
})
test('planPod() replaces a broken sandbox, ending first what lives in it', (t) => {
  const broken = sandbox({ ready: false })
  t.deepEqual(plan(factsOf(podOf(), [broken], [run('c')])), ['stop c 30'])
  t.deepEqual(plan(factsOf(podOf(), [broken], [ended('c', 137)])), ['create-sandbox 1'])
})
test('planPod() removes a container that was made but never started', (t) => {
  t.deepEqual(plan(factsOf(podOf(), [sandbox()], [run('c', { state: 'created' })])), ['remove-container c-0'])
})
test('planPod() stops a container of which the runtime does not know whether it runs', (t) => {
  const { actions } = planPod(factsOf(podOf(), [sandbox()], [run('c', { state: 'unknown' })]))
  t.like(actions, [{ do: 'stop-container', name: 'c' }])
  t.is(actions.length, 1)
})
test('planPod() runs init containers one after the other, then the others', (t) => {
  const pod = podOf({ initContainers: [box('i'), box('j')], containers: [box('c')] })
  t.deepEqual(plan(factsOf(pod, [sandbox()], [])), ['start i 0'])
  t.deepEqual(plan(factsOf(pod, [sandbox()], [run('i')])), [])
  t.deepEqual(plan(factsOf(pod, [sandbox()], [ended('i', 0)])), ['start j 0'])
  t.deepEqual(plan(factsOf(pod, [sandbox()], [ended('i', 0), ended('j', 0)])), ['start c 0'])
  t.deepEqual(plan(factsOf(pod, [sandbox()], [ended('i', 1)])), ['start i 1'])
})
test('planPod() goes on past a sidecar once it has started', (t) => {
  const pod = podOf({ initContainers: [box('side', { restartPolicy: 'Always' })], containers: [box('c')] })
  t.deepEqual(plan(factsOf(pod, [sandbox()], [])), ['start side 0'])
  const starting = new Map([['side-0', { started: false, ready: false, failed: undefined }]])
  t.deepEqual(plan(factsOf(pod, [sandbox()], [run('side')], (m) => (m.verdicts = starting))), [])
  t.deepEqual(plan(factsOf(pod, [sandbox()], [run('side')])), ['start c 0'])
  t.deepEqual(plan(factsOf(pod, [sandbox()], [ended('side', 1), run('c')])), ['start side 1'])
})
test('planPod() ends sidecars in reverse, after the others', (t) => {
  const side = (name: string) => box(name, { restartPolicy: 'Always' })
  const pod = podOf(
    { initContainers: [side('x'), side('y')] },
    { metadata: { deletionTimestamp: 'now', deletionGracePeriodSeconds: 9 } },
  )
  t.deepEqual(plan(factsOf(pod, [sandbox()], [run('x'), run('y'), run('c')])), ['stop c 9'])
  t.deepEqual(plan(factsOf(pod, [sandbox()], [run('x'), run('y'), ended('c', 0)])), ['stop y 9'])
  t.deepEqual(plan(factsOf(pod, [sandbox()], [run('x'), ended('y', 0), ended('c', 0)])), ['stop x 9'])
})
test('planPod() keeps to the restart policy', (t) => {
  const with_ = (restartPolicy: 'Always' | 'OnFailure' | 'Never', code: number) =>
    plan(factsOf(podOf({ restartPolicy }), [sandbox()], [ended('c', code)]))
  t.deepEqual(with_('Always', 0), ['start c 1'])
  t.deepEqual(with_('OnFailure', 1), ['start c 1'])
  t.deepEqual(with_('OnFailure', 0), ['stop-sandbox s1'])
  t.deepEqual(with_('Never', 1), ['stop-sandbox s1'])
})
test('planPod() waits out a back-off, and wakes for its end', (t) => {
  const facts = factsOf(podOf(), [sandbox()], [ended('c', 1, { attempt: 1 })], (m) =>
    m.backoffs.set('c', { waitMs: 10_000, at: now }),
  )
  t.deepEqual(planPod(facts), { actions: [], wakeAt: now + 10_000 })
})
test('planPod() keeps the last two runs of a container and removes older ones', (t) => {
  const runs = [run('c', { id: 'c-2', attempt: 2 }), ended('c', 1, { id: 'c-1', attempt: 1 }), ended('c', 1)]
  t.deepEqual(plan(factsOf(podOf(), [sandbox()], runs)), ['remove-container c-0'])
})
test('planPod() ends a container that its liveness probe gave up', (t) => {
  const failed = new Map([
    ['c-0', { started: true, ready: false, failed: { probe: 'liveness' as const, graceSeconds: 3 } }],
  ])
  t.deepEqual(plan(factsOf(podOf(), [sandbox()], [run('c')], (m) => (m.verdicts = failed))), ['stop c 3'])
})
test('planPod() ends a pod whose time is over', (t) => {
  const pod = podOf({ activeDeadlineSeconds: 60 }, { status: { startTime: '2025-12-31T23:59:00Z' } })
  t.deepEqual(plan(factsOf(pod, [sandbox()], [run('c')])), ['end DeadlineExceeded'])
})
test('planPod() takes a deleted pod apart in order, and the object last', (t) => {
  const pod = podOf(
    { volumes: [{ name: 'v' }] },
    { metadata: { deletionTimestamp: 'now', deletionGracePeriodSeconds: 30 } },
  )
  t.deepEqual(plan(factsOf(pod, [sandbox()], [run('c')])), ['stop c 30'])
  t.deepEqual(plan(factsOf(pod, [sandbox()], [ended('c', 0)])), ['stop-sandbox s1'])
  const stopped = (m: Memory) => m.stopped.add('s1')
  t.deepEqual(plan(factsOf(pod, [sandbox()], [ended('c', 0)], stopped)), ['unmount-volumes'])
  const unmounted = (m: Memory) => {
    stopped(m)
    m.volumes = 'none'
  }
  t.deepEqual(plan(factsOf(pod, [sandbox()], [ended('c', 0)], unmounted)), [], 'the status comes first')
  const said = (m: Memory) => {
    unmounted(m)
    m.lastWordWritten = true
  }
  t.deepEqual(plan(factsOf(pod, [sandbox()], [ended('c', 0)], said)), ['remove-sandbox s1'])
  t.deepEqual(plan(factsOf(pod, [], [], said)), ['delete-object'])
  t.deepEqual(plan({ ...factsOf(pod, [], [], said), gone: true }), ['clean-up'])
})
test('planPod() shortens a grace that is running, and never lengthens it', (t) => {
  const stopping = (grace: number) => (m: Memory) => m.stopping.set('c-0', now + grace * 1000)
  const pod = podOf({}, { metadata: { deletionTimestamp: 'now', deletionGracePeriodSeconds: 5 } })
  t.deepEqual(plan(factsOf(pod, [sandbox()], [run('c')], stopping(30))), ['stop c 5'])
  t.deepEqual(plan(factsOf(pod, [sandbox()], [run('c')], stopping(4))), [])
})
test('planPod() starts nothing for a pod that the API has as ended', (t) => {
  t.deepEqual(plan(factsOf(podOf({}, { status: { phase: 'Failed' } }), [], [])), [])
})

test('planPod() converges: carried out to the letter it comes to rest, whatever it starts from', (t) => {
  const states = fc.constantFrom('running', 'exited', 'created') as fc.Arbitrary<ContainerRecord['state']>
  const property = fc.property(
    fc.array(fc.record({ name: fc.constantFrom('i', 'a', 'b'), state: states, exitCode: fc.constantFrom(0, 1) }), {
      maxLength: 6,
    }),
    fc.array(fc.boolean(), { maxLength: 3 }),
    fc.constantFrom('Always', 'OnFailure', 'Never') as fc.Arbitrary<'Always' | 'OnFailure' | 'Never'>,
    fc.boolean(),
    (records, sandboxes, restartPolicy, deleted) => {
      const pod = podOf(
        { initContainers: [box('i')], containers: [box('a'), box('b')], restartPolicy },
        deleted ? { metadata: { deletionTimestamp: 'now', deletionGracePeriodSeconds: 1 } } : {},
      )
      const memory = new Memory(now)
      memory.lastWordWritten = true
      let boxes = sandboxes.map((ready, i) => sandbox({ id: `s${i}`, ready, attempt: sandboxes.length - i }))
      let runs =
        boxes.length === 0
          ? []
          : records.map((r, i) =>
              run(r.name, { ...r, id: `r${i}`, attempt: records.length - i, sandboxId: 's0', finishedAt: 1 }),
            )
      let serial = 0
      let gone = false
      for (let turn = 0; turn < 100; turn++) {
        const { actions } = planPod({ pod, gone, now, sandboxes: boxes, containers: runs, memory })
        if (actions.length === 0) return
        for (const action of actions) {
          switch (action.do) {
            case 'mount-volumes':
              memory.volumes = 'mounted'
              break
            case 'unmount-volumes':
              memory.volumes = 'none'
              break
            case 'create-sandbox':
              if (boxes.some((b) => b.attempt === action.attempt)) throw new Error('the name is taken')
              boxes = [sandbox({ id: `n${serial++}`, attempt: action.attempt }), ...boxes]
              break
            case 'stop-sandbox':
              memory.stopped.add(action.id)
              boxes = boxes.map((b) => (b.id === action.id ? { ...b, ready: false } : b))
              break
            case 'remove-sandbox':
              boxes = boxes.filter((b) => b.id !== action.id)
              runs = runs.filter((r) => r.sandboxId !== action.id)
              break
            case 'start-container': {
              if (runs.some((r) => r.name === action.name && r.state === 'running')) throw new Error('it runs already')
              const { name, attempt, sandboxId } = action
              // An init container does its work; the others stay.
              runs = [
                run(name, {
                  id: `n${serial++}`,
                  attempt,
                  sandboxId,
                  ...(name === 'i' ? { state: 'exited', finishedAt: 1 } : {}),
                }),
                ...runs,
              ]
              break
            }
            case 'stop-container':
              runs = runs.map((r) => (r.id === action.id ? { ...r, state: 'exited', exitCode: 143, finishedAt: 1 } : r))
              break
            case 'remove-container':
              runs = runs.filter((r) => r.id !== action.id)
              break
            case 'delete-object':
              gone = true
              break
            case 'clean-up':
              if (boxes.length + runs.length > 0) throw new Error('something is left')
              return
            case 'end-pod':
              throw new Error('nothing asked for that')
          }
        }
      }
      throw new Error('no rest after 100 turns')
    },
  )
  fc.assert(property, { numRuns: 300 })
  t.pass()
})

const status = (facts: PodFacts) => statusOf(facts, { nodeIps: ['172.30.0.11'], runtimeName: 'containerd' })

test('statusOf() a pod that is being made', (t) => {
  const made = status(factsOf(podOf({ containers: [box('a'), box('b')] }), [], []))
  t.is(made.phase, 'Pending')
  t.deepEqual(made.containerStatuses?.[0]?.state, { waiting: { reason: 'ContainerCreating' } })
  t.like(findCondition(made.conditions, 'Ready'), {
    status: 'False',
    reason: 'ContainersNotReady',
    message: 'containers with unready status: [a b]',
  })
  t.is(findCondition(made.conditions, 'PodReadyToStartContainers')?.status, 'False')
})
test('statusOf() a pod that runs', (t) => {
  const made = status(factsOf(podOf({}, { metadata: { generation: 3 } }), [sandbox()], [run('c')]))
  t.like(made, {
    phase: 'Running',
    podIP: '10.244.1.7',
    hostIP: '172.30.0.11',
    qosClass: 'BestEffort',
    observedGeneration: 3,
  })
  t.deepEqual(made.podIPs, [{ ip: '10.244.1.7' }, { ip: 'fd00::7' }])
  t.deepEqual(made.containerStatuses?.[0]?.state, { running: { startedAt: '2026-01-01T00:00:00Z' } })
  for (const type of ['Ready', 'ContainersReady', 'Initialized', 'PodScheduled', 'PodReadyToStartContainers'])
    t.is(findCondition(made.conditions, type)?.status, 'True', type)
})
test('statusOf() waits for readiness gates that others open', (t) => {
  const gated = podOf({ readinessGates: [{ conditionType: 'x/y' }] })
  t.like(findCondition(status(factsOf(gated, [sandbox()], [run('c')])).conditions, 'Ready'), {
    status: 'False',
    reason: 'ReadinessGatesNotReady',
    message: 'corresponding condition does not exist of pod readiness gate "x/y"',
  })
  const open = podOf(
    { readinessGates: [{ conditionType: 'x/y' }] },
    { status: { conditions: [{ type: 'x/y', status: 'True' }] } },
  )
  const made = status(factsOf(open, [sandbox()], [run('c')]))
  t.is(findCondition(made.conditions, 'Ready')?.status, 'True')
  t.is(findCondition(made.conditions, 'x/y')?.status, 'True')
})
test('statusOf() a crash loop', (t) => {
  const facts = factsOf(podOf(), [sandbox()], [ended('c', 7, { attempt: 2 })], (m) =>
    m.backoffs.set('c', { waitMs: 20_000, at: now }),
  )
  const [made] = status(facts).containerStatuses ?? []
  t.deepEqual(made?.state.waiting, {
    reason: 'CrashLoopBackOff',
    message: 'back-off 20s restarting failed container=c pod=web_default(u1)',
  })
  const note = {
    type: 'Warning',
    reason: 'BackOff',
    message: 'Back-off restarting failed container c in pod web_default(u1)',
    fieldPath: 'spec.containers{c}',
  }
  t.deepEqual(backOffNotes(facts.pod, status(facts)), [note])
  t.deepEqual(backOffNotes({ ...facts.pod, status: status(facts) }, status(facts)), [], 'told once a run')
  t.like(made?.lastState.terminated, { exitCode: 7, reason: 'Error' })
  t.is(made?.restartCount, 2)
  t.is(status(facts).phase, 'Running', 'a pod that has run once stays so while it is restarted')
})
test('statusOf() names what hinders a start, by its later name when the time has come', (t) => {
  const hindrance = {
    reason: 'ErrImagePull',
    message: 'x',
    retryAt: now + 9,
    later: { at: now, reason: 'ImagePullBackOff', message: 'y' },
  }
  const facts = factsOf(podOf(), [sandbox()], [], (m) => m.hindrances.set('c', hindrance))
  t.deepEqual(status(facts).containerStatuses?.[0]?.state.waiting, { reason: 'ImagePullBackOff', message: 'y' })
  t.is(status({ ...facts, now: now - 1 }).containerStatuses?.[0]?.state.waiting?.reason, 'ErrImagePull')
})
test('statusOf() how pods end', (t) => {
  const phase = (restartPolicy: 'Never' | 'OnFailure' | 'Always', codes: number[], deleted = false) =>
    status(
      factsOf(
        podOf(
          { restartPolicy, containers: codes.map((_, i) => box(`c${i}`)) },
          { status: { phase: 'Running' }, ...(deleted ? { metadata: { deletionTimestamp: 'now' } } : {}) },
        ),
        [sandbox()],
        codes.map((code, i) => ended(`c${i}`, code)),
      ),
    ).phase
  t.is(phase('Never', [0, 0]), 'Succeeded')
  t.is(phase('Never', [0, 1]), 'Failed')
  t.is(phase('OnFailure', [0, 1]), 'Running')
  t.is(phase('Always', [0]), 'Running')
  t.is(phase('Always', [0], true), 'Succeeded')
  t.is(phase('Always', [143], true), 'Failed')
})
test('statusOf() a container that an ended pod has lost, or never had', (t) => {
  const told = status(factsOf(podOf({ restartPolicy: 'Never' }), [sandbox()], [ended('c', 3)]))
  t.is(told.phase, 'Failed')
  const after = status(factsOf(podOf({}, { status: told }), [], []))
  t.is(after.containerStatuses?.[0]?.state.terminated?.exitCode, 3, 'known once, known for good')
  const never = status(factsOf(podOf({}, { status: { phase: 'Failed', reason: 'DeadlineExceeded' } }), [], []))
  t.like(never.containerStatuses?.[0]?.state.terminated, { exitCode: 137, reason: 'ContainerStatusUnknown' })
})
test('statusOf() an init container that failed for good', (t) => {
  const pod = podOf({ restartPolicy: 'Never', initContainers: [box('i')] })
  const made = status(factsOf(pod, [sandbox()], [ended('i', 1)]))
  t.is(made.phase, 'Failed')
  t.is(made.containerStatuses?.[0]?.state.waiting?.reason, 'PodInitializing')
})

test('restarts back off from nothing to five minutes, and are forgiven after ten minutes of running', (t) => {
  let backoff: ReturnType<typeof raise> | undefined
  const waits: number[] = []
  for (let i = 0; i < 8; i++) {
    const record = ended('c', 1, { finishedAt: now + i })
    waits.push((restartableAt(record, backoff) - record.finishedAt) / 1000)
    backoff = raise(record, backoff)
  }
  t.deepEqual(waits, [0, 10, 20, 40, 80, 160, 300, 300])
  t.is(restartableAt(ended('c', 1, { finishedAt: now + 700_000 }), backoff), now + 700_000)
  t.deepEqual([10_000, 80_000, 300_000].map(formatWait), ['10s', '1m20s', '5m0s'])
})

test('a pod on the fake runtime: started, crashed, restarted after its back-off, deleted', (t) =>
  withKubelet(async ({ client, runtime, clock, create, get }) => {
    await create()
    await eventually(async () => (await get()).status.phase === 'Running')
    const crash = async () => {
      const [live] = (await runtime.listContainers()).filter((c) => c.state === 'running')
      if (live !== undefined) runtime.exit(live.id, 1)
      return live !== undefined
    }
    await eventually(crash)
    // Nothing told us: the relist is the net.
    await eventually(async () => {
      clock.advance(1_000)
      return (await get()).status.containerStatuses?.[0]?.restartCount === 1
    })
    await eventually(crash)
    await eventually(async () => {
      clock.advance(1_000)
      return (await get()).status.containerStatuses?.[0]?.state.waiting?.reason === 'CrashLoopBackOff'
    })
    await eventually(async () => {
      clock.advance(1_000)
      return (await get()).status.containerStatuses?.[0]?.restartCount === 2
    })
    await client.delete(pods, { namespace: 'default', name: 'web' }, { gracePeriodSeconds: 30 })
    await eventually(async () => {
      clock.advance(100)
      return (await client.list(pods)).items.length === 0
    })
    await eventually(async () => (await runtime.listSandboxes()).length === 0)
    t.deepEqual(
      runtime.calls.filter((c) => c.startsWith('runSandbox')),
      ['runSandbox web'],
    )
    await eventually(async () => (await client.list(eventResource)).items.some((e) => e.reason === 'Killing'))
    const reasons = new Set((await client.list(eventResource)).items.map((e) => e.reason))
    t.true(
      ['Pulled', 'Created', 'Started', 'Killing'].every((r) => reasons.has(r)),
      [...reasons].join(),
    )
  }))

test('a sandbox whose network fails is told, removed and tried again', (t) =>
  withKubelet(async ({ client, runtime, clock, create, get }) => {
    runtime.fail('runSandbox', 'no address left')
    await create()
    await eventually(async () => {
      clock.advance(200)
      return (await get()).status.phase === 'Running'
    })
    t.deepEqual(
      runtime.calls.filter((c) => /Sandbox/.test(c)),
      ['runSandbox web', 'stopSandbox sandbox-1', 'stopSandbox sandbox-1', 'removeSandbox sandbox-1', 'runSandbox web'],
    )
    const events = await eventually(async () => {
      const { items } = await client.list(eventResource)
      return items.some((e) => e.reason === 'FailedCreatePodSandBox') ? items : false
    })
    t.true(events.some((e) => e.message === 'Failed to create pod sandbox: no address left'))
  }))

test('what the API no longer knows is ended and removed', (t) =>
  withKubelet(async ({ client, runtime, clock, create, get }) => {
    await create()
    await eventually(async () => (await get()).status.phase === 'Running')
    client.vanish(pods, { namespace: 'default', name: 'web' })
    await eventually(async () => {
      clock.advance(100)
      return (await runtime.listSandboxes()).length === 0
    })
    t.deepEqual(await runtime.listContainers(), [])
  }))
