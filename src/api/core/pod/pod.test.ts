import test from 'ava'
import { created, type Manifest, problems, updated, updateProblems, words } from '#test/api/trial.ts'
import type { Pod } from '../../gen/core-v1.ts'
import { pod } from '../pod.ts'
import { summarizePod } from './columns.ts'
import { pullPolicyOf } from './defaults.ts'
import { qosClassOf } from './qos.ts'

const podOf = (container: Manifest = {}, spec: Manifest = {}): Manifest => ({
  spec: { containers: [{ name: 'c', image: 'i:1', ...container }], ...spec },
})
const cells = (object: Pod, now = 0) =>
  Object.fromEntries(pod.columns.map(({ name, cell }) => [name, cell(object, now)]))

test('a pod gets upstream\u2019s defaults', (t) => {
  const { spec, status } = created(
    pod,
    podOf(
      {
        ports: [{ containerPort: 80 }],
        resources: { limits: { cpu: '1' } },
        readinessProbe: { httpGet: { port: 80 } },
        env: [{ name: 'N', valueFrom: { fieldRef: { fieldPath: 'spec.nodeName' } } }],
      },
      {
        volumes: [
          { name: 'v' },
          { name: 's', secret: { secretName: 'x' } },
          { name: 'p', projected: { sources: [{ serviceAccountToken: { path: 't' } }] } },
        ],
      },
    ),
  )
  t.like(spec, {
    restartPolicy: 'Always',
    dnsPolicy: 'ClusterFirst',
    schedulerName: 'default-scheduler',
    securityContext: {},
    terminationGracePeriodSeconds: 30,
    enableServiceLinks: true,
  })
  t.like(spec.containers[0], {
    imagePullPolicy: 'IfNotPresent',
    terminationMessagePath: '/dev/termination-log',
    terminationMessagePolicy: 'File',
    ports: [{ containerPort: 80, protocol: 'TCP' }],
    resources: { limits: { cpu: '1' }, requests: { cpu: '1' } },
    readinessProbe: {
      httpGet: { path: '/', port: 80, scheme: 'HTTP' },
      timeoutSeconds: 1,
      periodSeconds: 10,
      successThreshold: 1,
      failureThreshold: 3,
    },
  })
  t.is(spec.containers[0]?.env?.[0]?.valueFrom?.fieldRef?.apiVersion, 'v1')
  t.deepEqual(spec.volumes, [
    { name: 'v', emptyDir: {} },
    { name: 's', secret: { secretName: 'x', defaultMode: 420 } },
    {
      name: 'p',
      projected: { defaultMode: 420, sources: [{ serviceAccountToken: { path: 't', expirationSeconds: 3600 } }] },
    },
  ])
  t.deepEqual(status, { phase: 'Pending', qosClass: 'Burstable' })
})

test('an image is pulled always when its tag may move', (t) => {
  t.deepEqual(['a', 'a:latest', 'h:5000/a', 'a:1', 'h:5000/a:1', 'a@sha256:0'].map(pullPolicyOf), [
    'Always',
    'Always',
    'Always',
    'IfNotPresent',
    'IfNotPresent',
    'IfNotPresent',
  ])
})

test('the class of service follows from requests and limits of cpu and memory', (t) => {
  const classOf = (...resources: object[]) =>
    qosClassOf(
      created(pod, { spec: { containers: resources.map((r, i) => ({ name: `c${i}`, image: 'i', resources: r })) } })
        .spec,
    )
  const full = { limits: { cpu: '1', memory: '1Gi' } }
  t.is(classOf({}), 'BestEffort')
  t.is(classOf(full), 'Guaranteed')
  t.is(classOf(full, {}), 'Burstable')
  t.is(classOf({ limits: { cpu: '1', memory: '1Gi' }, requests: { cpu: '500m' } }), 'Burstable')
  t.is(classOf({ requests: { 'example.com/gpu': '1' }, limits: { 'example.com/gpu': '1' } }), 'BestEffort')
})

/** A pod with one thing wrong, and what is said. */
const wrong: readonly [Manifest, string[]][] = [
  [{ spec: {} }, ['spec.containers: Required value']],
  [podOf({ name: '' }), ['spec.containers[0].name: Required value']],
  [podOf({ image: '' }), ['spec.containers[0].image: Required value']],
  [
    podOf({ image: ' x' }),
    ['spec.containers[0].image: Invalid value: " x": must not have leading or trailing whitespace'],
  ],
  [
    podOf({ imagePullPolicy: 'Foo' }),
    [
      'spec.containers[0].imagePullPolicy: Unsupported value: "Foo": supported values: "Always", "IfNotPresent", "Never"',
    ],
  ],
  [
    podOf({ ports: [{ containerPort: 70000 }] }),
    ['spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive'],
  ],
  [
    podOf({
      ports: [
        { containerPort: 1, hostPort: 5 },
        { containerPort: 2, hostPort: 5 },
      ],
    }),
    ['spec.containers[0].ports[1].hostPort: Duplicate value: "TCP//5"'],
  ],
  [
    podOf({ resources: { limits: { cpu: '1' }, requests: { cpu: '2' } } }),
    ['spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1'],
  ],
  [
    podOf({ resources: { limits: { foo: '1' } } }),
    [
      'spec.containers[0].resources.limits[foo]: Invalid value: "foo": must be a standard resource type or fully qualified',
      'spec.containers[0].resources.limits[foo]: Invalid value: "foo": must be a standard resource for containers',
      'spec.containers[0].resources.requests[foo]: Invalid value: "foo": must be a standard resource type or fully qualified',
      'spec.containers[0].resources.requests[foo]: Invalid value: "foo": must be a standard resource for containers',
    ],
  ],
  [
    podOf({ env: [{ name: 'a=b' }] }),
    [
      `spec.containers[0].env[0].name: Invalid value: "a=b": a valid environment variable name must consist only of printable ASCII characters other than '='`,
    ],
  ],
  [
    podOf({ env: [{ name: 'a', valueFrom: { fieldRef: { fieldPath: 'status.phase' } } }] }),
    [
      'spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Unsupported value: "status.phase": supported values: "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs"',
    ],
  ],
  [
    podOf({ volumeMounts: [{ name: 'v', mountPath: '/a' }] }),
    ['spec.containers[0].volumeMounts[0].name: Not found: "v"'],
  ],
  [
    podOf(
      {
        volumeMounts: [
          { name: 'v', mountPath: '/a' },
          { name: 'v', mountPath: '/a' },
        ],
      },
      { volumes: [{ name: 'v' }] },
    ),
    ['spec.containers[0].volumeMounts[1].mountPath: Invalid value: "/a": must be unique'],
  ],
  [podOf({ livenessProbe: {} }), ['spec.containers[0].livenessProbe: Required value: must specify a handler type']],
  [
    podOf({ livenessProbe: { exec: { command: ['a'] }, successThreshold: 2 } }),
    ['spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1'],
  ],
  [
    podOf({ securityContext: { runAsUser: -1 } }),
    ['spec.containers[0].securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive'],
  ],
  [
    podOf({}, { restartPolicy: 'Foo' }),
    ['spec.restartPolicy: Unsupported value: "Foo": supported values: "Always", "OnFailure", "Never"'],
  ],
  [
    podOf({}, { volumes: [{ name: 'v', hostPath: { path: '/a/../b' } }] }),
    [`spec.volumes[0].hostPath.path: Invalid value: "/a/../b": must not contain '..'`],
  ],
  [podOf({}, { volumes: [{ name: 'v' }, { name: 'v' }] }), ['spec.volumes[1].name: Duplicate value: "v"']],
  [
    podOf({}, { volumes: [{ name: 'v', emptyDir: {}, hostPath: { path: '/' } }] }),
    ['spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type'],
  ],
  [
    podOf({}, { tolerations: [{ key: 'a', tolerationSeconds: 5 }] }),
    [`spec.tolerations[0].effect: Invalid value: "": effect must be 'NoExecute' when \`tolerationSeconds\` is set`],
  ],
  [
    podOf({}, { topologySpreadConstraints: [{ maxSkew: 0, topologyKey: 'a', whenUnsatisfiable: 'DoNotSchedule' }] }),
    ['spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero'],
  ],
  [
    podOf(
      {},
      { affinity: { nodeAffinity: { requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: [] } } } },
    ),
    [
      'spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must have at least one node selector term',
    ],
  ],
  [
    podOf({}, { ephemeralContainers: [{ name: 'e', image: 'x' }] }),
    ['spec.ephemeralContainers: Forbidden: cannot be set on create'],
  ],
]

for (const [manifest, said] of wrong) test(`a pod: ${said[0]}`, (t) => t.deepEqual(problems(pod, manifest), said))

test('a pod may change its image and little else', (t) => {
  t.deepEqual(updateProblems(pod, podOf(), podOf({ image: 'i:2' })), [])
  t.deepEqual(
    updateProblems(pod, podOf(), podOf({}, { activeDeadlineSeconds: 5, tolerations: [{ operator: 'Exists' }] })),
    [],
  )
  const [forbidden] = updateProblems(pod, podOf(), podOf({}, { nodeName: 'n' }))
  t.regex(
    forbidden ?? '',
    /^spec: Forbidden: pod updates may not change fields other than `spec\.containers\[\*\]\.image`,/,
  )
  t.regex(forbidden ?? '', /spec\.nodeName: nothing -> "n"/)
  t.deepEqual(updateProblems(pod, podOf(), { spec: { containers: [] } }), [
    'spec.containers: Required value',
    'spec.containers: Forbidden: pod updates may not add or remove containers',
  ])
  t.deepEqual(updateProblems(pod, podOf({}, { activeDeadlineSeconds: 5 }), podOf({}, { activeDeadlineSeconds: 6 })), [
    'spec.activeDeadlineSeconds: Invalid value: 6: must be less than or equal to previous value',
  ])
  t.deepEqual(
    updateProblems(pod, podOf({}, { schedulingGates: [] }), podOf({}, { schedulingGates: [{ name: 'x' }] })),
    ["spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate 'x'"],
  )
})

test('an update of a pod keeps the status that is there', (t) => {
  const { next } = updated(pod, podOf(), { ...podOf(), status: { phase: 'Failed' } })
  t.is(next.status.phase, 'Pending')
})

test('a pod is given time to end only while it runs somewhere', (t) => {
  const seconds = (spec: Manifest, phase: Pod['status']['phase'], requested?: number) => {
    const object = created(pod, podOf({}, spec))
    return pod.graceSeconds?.(
      { ...object, status: { ...object.status, ...(phase === undefined ? {} : { phase }) } },
      requested,
    )
  }
  t.is(seconds({}, 'Pending'), 0)
  t.is(seconds({ nodeName: 'n' }, 'Running'), 30)
  t.is(seconds({ nodeName: 'n' }, 'Running', 5), 5)
  t.is(seconds({ nodeName: 'n' }, 'Succeeded', 5), 0)
  t.is(seconds({ nodeName: 'n', terminationGracePeriodSeconds: -3 }, 'Running'), 1)
})

const status = (name: string, state: object, rest: object = {}) => ({
  name,
  state,
  ready: false,
  restartCount: 0,
  ...rest,
})
const told: readonly [string, Manifest, string, string][] = [
  ['waits for a node', { status: { phase: 'Pending' } }, 'Pending', '0/1'],
  [
    'creates',
    { status: { phase: 'Pending', containerStatuses: [status('c', { waiting: { reason: 'ContainerCreating' } })] } },
    'ContainerCreating',
    '0/1',
  ],
  [
    'runs',
    { status: { phase: 'Running', containerStatuses: [status('c', { running: {} }, { ready: true })] } },
    'Running',
    '1/1',
  ],
  [
    'falls over',
    { status: { phase: 'Running', containerStatuses: [status('c', { waiting: { reason: 'CrashLoopBackOff' } })] } },
    'CrashLoopBackOff',
    '0/1',
  ],
  [
    'failed',
    { status: { phase: 'Failed', containerStatuses: [status('c', { terminated: { exitCode: 3, reason: 'Error' } })] } },
    'Error',
    '0/1',
  ],
  [
    'was killed',
    { status: { phase: 'Failed', containerStatuses: [status('c', { terminated: { exitCode: 137, signal: 9 } })] } },
    'Signal:9',
    '0/1',
  ],
  [
    'is done',
    {
      status: {
        phase: 'Succeeded',
        containerStatuses: [status('c', { terminated: { exitCode: 0, reason: 'Completed' } })],
      },
    },
    'Completed',
    '0/1',
  ],
  [
    'prepares',
    {
      spec: {
        initContainers: [
          { name: 'a', image: 'x' },
          { name: 'b', image: 'x' },
        ],
      },
      status: {
        phase: 'Pending',
        initContainerStatuses: [status('a', { terminated: { exitCode: 0 } }), status('b', { running: {} })],
      },
    },
    'Init:1/2',
    '0/1',
  ],
  [
    'cannot prepare',
    {
      spec: { initContainers: [{ name: 'a', image: 'x' }] },
      status: { phase: 'Pending', initContainerStatuses: [status('a', { waiting: { reason: 'ErrImagePull' } })] },
    },
    'Init:ErrImagePull',
    '0/1',
  ],
  [
    'has a sidecar',
    {
      spec: { initContainers: [{ name: 'a', image: 'x', restartPolicy: 'Always' }] },
      status: {
        phase: 'Running',
        conditions: [{ type: 'Initialized', status: 'True' }],
        initContainerStatuses: [status('a', { running: {} }, { started: true, ready: true })],
        containerStatuses: [status('c', { running: {} }, { ready: true })],
      },
    },
    'Running',
    '2/2',
  ],
  [
    'is held',
    {
      status: { phase: 'Pending', conditions: [{ type: 'PodScheduled', status: 'False', reason: 'SchedulingGated' }] },
    },
    'SchedulingGated',
    '0/1',
  ],
  [
    'goes away',
    { metadata: { deletionTimestamp: '2026-01-01T00:00:00Z' }, status: { phase: 'Running' } },
    'Terminating',
    '0/1',
  ],
  [
    'is lost',
    { metadata: { deletionTimestamp: '2026-01-01T00:00:00Z' }, status: { phase: 'Running', reason: 'NodeLost' } },
    'Unknown',
    '0/1',
  ],
]

for (const [what, { spec = {}, status: given = {}, metadata = {} }, reason, ready] of told) {
  test(`kubectl get tells that a pod ${what}`, (t) => {
    const object = created(pod, { metadata, ...podOf({}, spec as Manifest) })
    const shown = cells({ ...object, status: given as Pod['status'] })
    t.like(shown, { Status: reason, Ready: ready })
  })
}

test('restarts are counted, with the time of the last', (t) => {
  const object = created(pod, podOf())
  const lastState = { terminated: { exitCode: 1, finishedAt: '1970-01-01T00:00:05Z' } }
  const containerStatuses = [status('c', { running: {} }, { restartCount: 2, lastState, ready: true })]
  const restarted = { ...object, status: { phase: 'Running', containerStatuses } } as unknown as Pod
  t.is(cells(restarted, 12_000).Restarts, '2 (7s ago)')
  t.is(summarizePod(restarted).restarts, 2)
})

test('a pod warns of an environment variable that hides another', (t) => {
  t.deepEqual(pod.warnings?.(created(pod, podOf({ env: [{ name: 'A' }, { name: 'A' }] }))), [
    'spec.containers[0].env[1]: hides previous definition of "A", which may be dropped when using apply',
  ])
})

test('a pod has one address of each family, in both writings', (t) => {
  const old = created(pod, podOf({}, { nodeName: 'n' }))
  old.metadata.resourceVersion = '1'
  const next = structuredClone(old)
  next.status = { ...old.status, podIPs: [{ ip: '10.0.0.1' }, { ip: 'fd00::1' }] }
  pod.defaults(next)
  t.is(next.status.podIP, '10.0.0.1')
  t.deepEqual(words(pod.validateStatusUpdate?.(next, old) ?? []), [])
  next.status = { ...old.status, podIPs: [{ ip: '10.0.0.1' }, { ip: '10.0.0.2' }], nominatedNodeName: 'm' }
  t.deepEqual(words(pod.validateStatusUpdate?.(next, old) ?? []), [
    'status.nominatedNodeName: Forbidden: may not be set on pods that are already bound to a node',
    'status.podIPs: Invalid value: [{"ip":"10.0.0.1"},{"ip":"10.0.0.2"}]: may specify no more than one IP for each IP family',
  ])
})
