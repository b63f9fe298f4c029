import test from 'ava'
import { created, type Manifest, problems, updated, updateProblems } from '#test/api/trial.ts'
import type { KindDefinition } from '../kind.ts'
import type { KubeObject } from '../meta/resource.ts'
import { event } from './event.ts'
import { namespace } from './namespace.ts'
import { node } from './node.ts'
import { secret } from './secret.ts'
import { service } from './service.ts'

const cells = <K extends KubeObject>(kind: KindDefinition<K>, object: K, now = 0) =>
  Object.fromEntries(kind.columns.map(({ name, cell }) => [name, cell(object, now)]))

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
  t.deepEqual(said({ clusterIP: 'x', clusterIPs: ['x'], ports: [{ port: 1 }] }), [
    'spec.clusterIPs[0]: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)',
  ])
  t.deepEqual(said({ type: 'X', ports: [{ port: 1 }] }), [
    'spec.type: Unsupported value: "X": supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort"',
  ])
})

test('a service may not be given another address', (t) => {
  const at = (clusterIP: string, more: Manifest = {}) => ({
    spec: { ports: [{ port: 80 }], clusterIP, clusterIPs: [clusterIP], ...more },
  })
  t.deepEqual(updateProblems(service, at('10.0.0.1'), at('10.0.0.1', { ports: [{ port: 81 }] })), [])
  t.deepEqual(updateProblems(service, at('10.0.0.1'), at('10.0.0.2')), [
    'spec.clusterIPs[0]: Invalid value: ["10.0.0.2"]: may not change once set',
  ])
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
