import test from 'ava'
import { created, type Manifest, problems, updated, updateProblems, words } from '#test/api/trial.ts'
import type { Pod } from '../gen/core-v1.ts'
import type { KindDefinition } from '../kind.ts'
import type { KubeObject } from '../meta/resource.ts'
import { event } from './event.ts'
import { namespace } from './namespace.ts'
import { node } from './node.ts'
import { summarizePod } from './pod/columns.ts'
import { pullPolicyOf } from './pod/defaults.ts'
import { qosClassOf } from './pod/qos.ts'
import { pod } from './pod.ts'
import { secret } from './secret.ts'
import { service } from './service.ts'

const podOf = (container: Manifest = {}, spec: Manifest = {}): Manifest => ({
  spec: { containers: [{ name: 'c', image: 'i:1', ...container }], ...spec },
})
const cells = <K extends KubeObject>(kind: KindDefinition<K>, object: K, now = 0) =>
  Object.fromEntries(kind.columns.map(({ name, cell }) => [name, cell(object, now)]))

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
    const shown = cells(pod, { ...object, status: given as Pod['status'] })
    t.like(shown, { Status: reason, Ready: ready })
  })
}

test('restarts are counted, with the time of the last', (t) => {
  const object = created(pod, podOf())
  const lastState = { terminated: { exitCode: 1, finishedAt: '1970-01-01T00:00:05Z' } }
  const containerStatuses = [status('c', { running: {} }, { restartCount: 2, lastState, ready: true })]
  const restarted = { ...object, status: { phase: 'Running', containerStatuses } } as unknown as Pod
  t.is(cells(pod, restarted, 12_000).Restarts, '2 (7s ago)')
  t.is(summarizePod(restarted).restarts, 2)
})

test('a pod warns of an environment variable that hides another', (t) => {
  t.deepEqual(pod.warnings?.(created(pod, podOf({ env: [{ name: 'A' }, { name: 'A' }] }))), [
    'spec.containers[0].env[1]: hides previous definition of "A", which may be dropped when using apply',
  ])
})

test('a service gets its defaults, by type', (t) => {
  const spec = (more: Manifest) => created(service, { spec: { ports: [{ port: 80 }], ...more } }).spec
  t.deepEqual(spec({}), {
    ports: [{ port: 80, protocol: 'TCP', targetPort: 80 }],
    sessionAffinity: 'None',
    type: 'ClusterIP',
    internalTrafficPolicy: 'Cluster',
  })
  t.like(spec({ type: 'LoadBalancer' }), { externalTrafficPolicy: 'Cluster', allocateLoadBalancerNodePorts: true })
  t.deepEqual(spec({ sessionAffinity: 'ClientIP' }).sessionAffinityConfig, { clientIP: { timeoutSeconds: 10800 } })
  t.is(spec({ type: 'ExternalName', externalName: 'a.b' }).internalTrafficPolicy, undefined)
})

test('a service is refused in upstream\u2019s words', (t) => {
  const said = (spec: Manifest) => problems(service, { spec })
  t.deepEqual(said({}), ['spec.ports: Required value'])
  t.deepEqual(said({ ports: [{ port: 0 }] }).slice(0, 1), [
    'spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive',
  ])
  t.deepEqual(said({ ports: [{ port: 1 }, { port: 2 }] }), [
    'spec.ports[0].name: Required value',
    'spec.ports[1].name: Required value',
  ])
  t.deepEqual(
    said({
      ports: [
        { port: 1, name: 'a' },
        { port: 1, name: 'b' },
      ],
    }),
    [
      'spec.ports[1]: Duplicate value: {"Name":"","Protocol":"TCP","AppProtocol":null,"Port":1,"TargetPort":0,"NodePort":0}',
    ],
  )
  t.deepEqual(said({ ports: [{ port: 1, nodePort: 30000 }] }), [
    "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
  ])
  t.deepEqual(said({ clusterIP: 'x', ports: [{ port: 1 }] }), [
    'spec.clusterIPs[0]: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)',
  ])
  t.deepEqual(said({ type: 'X', ports: [{ port: 1 }] }), [
    'spec.type: Unsupported value: "X": supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort"',
  ])
})

test('a service keeps its address, and may not be given another', (t) => {
  const has = { spec: { ports: [{ port: 80 }], clusterIP: '10.0.0.1', clusterIPs: ['10.0.0.1'] } }
  const { next, old } = updated(service, has, { spec: { ports: [{ port: 81 }] } })
  t.deepEqual([next.spec.clusterIP, next.spec.clusterIPs], ['10.0.0.1', ['10.0.0.1']])
  t.deepEqual(words(service.validateUpdate(next, old)), [])
  t.deepEqual(updateProblems(service, has, { spec: { ports: [{ port: 80 }], clusterIP: '10.0.0.2' } }), [
    'spec.clusterIPs[0]: Invalid value: ["10.0.0.2"]: may not change once set',
  ])
  const { next: external } = updated(service, has, { spec: { type: 'ExternalName', externalName: 'a.b' } })
  t.is(external.spec.clusterIP, undefined)
  const published = { spec: { type: 'NodePort', ports: [{ port: 80, nodePort: 30001 }] } }
  const { next: still } = updated(service, published, { spec: { type: 'NodePort', ports: [{ port: 80 }] } })
  t.is(still.spec.ports?.[0]?.nodePort, 30001)
})

test('kubectl get shows where a service is reached', (t) => {
  const object = created(service, {
    spec: { type: 'LoadBalancer', ports: [{ port: 80, nodePort: 30001 }], clusterIP: '10.0.0.1' },
  })
  t.like(cells(service, object), { 'Cluster-IP': '10.0.0.1', 'External-IP': '<pending>', 'Port(s)': '80:30001/TCP' })
  object.status = { loadBalancer: { ingress: [{ ip: '5.5.5.5' }, { hostname: 'h' }] } }
  t.is(cells(service, object)['External-IP'], '5.5.5.5,h')
})

test('kubectl get shows a node\u2019s state, roles and versions', (t) => {
  const object = created(node, {
    metadata: { labels: { 'node-role.kubernetes.io/worker': '' } },
    spec: { unschedulable: true },
    status: {
      conditions: [{ type: 'Ready', status: 'True' }],
      nodeInfo: { kubeletVersion: 'v1.36' },
      addresses: [{ type: 'InternalIP', address: '1.2.3.4' }],
    },
  })
  t.like(cells(node, object), {
    Status: 'Ready,SchedulingDisabled',
    Roles: 'worker',
    Version: 'v1.36',
    'Internal-IP': '1.2.3.4',
    'External-IP': '<none>',
    'OS-Image': '<unknown>',
  })
  t.is(cells(node, created(node, {})).Status, 'Unknown')
})

test('a node\u2019s pod network is given once', (t) => {
  t.deepEqual(updateProblems(node, {}, { spec: { podCIDR: '10.0.0.0/24' } }), [])
  t.deepEqual(updateProblems(node, { spec: { podCIDR: '10.0.0.0/24' } }, { spec: { podCIDR: '10.0.1.0/24' } }), [
    'spec.podCIDRs: Forbidden: node updates may not change podCIDR except from "" to valid',
  ])
})

test('a namespace is held by its finalizer and found by its name', (t) => {
  const made = created(namespace, { metadata: { name: 'n' } })
  t.deepEqual(
    [made.spec.finalizers, made.status.phase, made.metadata.labels],
    [['kubernetes'], 'Active', { 'kubernetes.io/metadata.name': 'n' }],
  )
  const { next } = updated(
    namespace,
    { metadata: { name: 'n' } },
    { metadata: { name: 'n' }, spec: { finalizers: [] } },
  )
  t.deepEqual(next.spec.finalizers, ['kubernetes'])
})

test('a secret takes plain text and never shows it', (t) => {
  const made = created(secret, { stringData: { a: 'b' }, data: { c: 'ZA==' } })
  t.deepEqual([made.data, made.stringData, made.type], [{ a: 'Yg==', c: 'ZA==' }, undefined, 'Opaque'])
  t.deepEqual(problems(secret, { type: 'kubernetes.io/tls' }), [
    'data[tls.crt]: Required value',
    'data[tls.key]: Required value',
  ])
  t.deepEqual(problems(secret, { type: 'kubernetes.io/dockerconfigjson', data: { '.dockerconfigjson': 'eA==' } }), [
    `data[.dockerconfigjson]: Invalid value: "<secret contents redacted>": invalid character 'x' looking for beginning of value`,
  ])
  t.deepEqual(
    updateProblems(secret, { immutable: true, data: { a: 'Yg==' } }, { immutable: true, data: { a: 'Yw==' } }),
    ['data: Forbidden: field is immutable when `immutable` is set'],
  )
  t.deepEqual(updateProblems(secret, {}, { type: 'x' }), ['type: Invalid value: "x": field is immutable'])
})

test('an event of either form is shown with what it is about and when', (t) => {
  const old = created(event, {
    involvedObject: { kind: 'Pod', name: 'p', namespace: 'default' },
    source: { component: 'c', host: 'h' },
    lastTimestamp: '1970-01-01T00:00:05Z',
    count: 3,
    message: ' m ',
  })
  t.like(cells(event, old, 10_000), { 'Last Seen': '5s', Object: 'pod/p', Source: 'c, h', Count: 3, Message: 'm' })
  const series = { count: 7, lastObservedTime: '1970-01-01T00:00:08.000000Z' }
  const now = created(event, {
    involvedObject: { kind: 'Pod', name: 'p', namespace: 'default' },
    eventTime: '1970-01-01T00:00:01.000000Z',
    series,
    reportingComponent: 'r',
  })
  t.like(cells(event, now, 10_000), { 'Last Seen': '2s', 'First Seen': '9s', Count: 7, Source: 'r' })
})
