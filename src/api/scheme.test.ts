import { readFileSync } from 'node:fs'
import test from 'ava'
import { manifestOf, minimal } from '#test/api/minimal.ts'
import { type Manifest, problems, updateProblems } from '#test/api/trial.ts'
import type { KindDefinition } from './kind.ts'
import { applyStrategicPatch } from './meta/patch/strategic.ts'
import type { KubeObject } from './meta/resource.ts'
import { conform } from './schema/conform.ts'
import { findMessage } from './schema/table.ts'
import { bodyKinds, kinds } from './scheme.ts'

const rbac = 'rbac.authorization.k8s.io'
const kindOf = (name: string, group?: string): KindDefinition => {
  const found = [...kinds, ...bodyKinds].find(
    ({ resource }) => resource.kind === name && (group === undefined || resource.group === group),
  )
  if (found === undefined) throw new Error(`There is no kind ${name}`)
  return found
}

for (const kind of [...kinds, ...bodyKinds]) {
  const { group, kind: name } = kind.resource
  test(`${group}/${name} has a message in the table and takes the least it needs`, (t) => {
    t.not(findMessage(kind.message ?? ''), undefined)
    t.deepEqual(problems(kind, manifestOf(kind)), [])
    if (kind.verbs.includes('update')) t.deepEqual(updateProblems(kind, manifestOf(kind), manifestOf(kind)), [])
    for (const column of kind.columns) t.regex(column.description, /\.$/)
  })
}

test('no two kinds share a path, and none a short name in its scope', (t) => {
  const paths = kinds.map(({ resource: { group, version, resource } }) => `${group}/${version}/${resource}`)
  t.deepEqual(
    paths.filter((p, i) => paths.indexOf(p) !== i),
    [],
  )
  const short = kinds.filter(({ resource }) => resource.kind !== 'Event').flatMap(({ shortNames }) => shortNames)
  t.deepEqual(
    short.filter((s, i) => short.indexOf(s) !== i),
    [],
  )
})

/** Kind, what is written, and all that is said about it. */
const refused: readonly [string, Manifest, string[]][] = [
  ['Ingress', { spec: {} }, ['spec: Invalid value: []: either `defaultBackend` or `rules` must be specified']],
  [
    'Ingress',
    {
      spec: {
        rules: [
          {
            host: '192.0.2.1',
            http: { paths: [{ pathType: 'Exact', path: 'a//b', backend: { service: { name: 's', port: {} } } }] },
          },
        ],
      },
    },
    [
      'spec.rules[0].host: Invalid value: "192.0.2.1": must be a DNS name, not an IP address',
      'spec.rules[0].http.paths[0].path: Invalid value: "a//b": must be an absolute path',
      'spec.rules[0].http.paths[0].path: Invalid value: "a//b": must not contain \'//\'',
      'spec.rules[0].http.paths[0].backend: Required value: port name or number is required',
    ],
  ],
  [
    'IngressClass',
    { spec: { controller: 'nobody' } },
    ['spec.controller: Invalid value: "nobody": must be a domain-prefixed path (such as "acme.io/foo")'],
  ],
  [
    'ConfigMap',
    { metadata: { name: 'A' } },
    [
      "metadata.name: Invalid value: \"A\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
    ],
  ],
  ['ConfigMap', { metadata: { name: '' } }, ['metadata.name: Required value: name or generateName is required']],
  [
    'ConfigMap',
    { metadata: { labels: { a: '-' } } },
    [
      "metadata.labels: Invalid value: \"-\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
    ],
  ],
  [
    'ConfigMap',
    { metadata: { annotations: { a: 'x'.repeat(300_000) } } },
    ['metadata.annotations: Too long: may not be more than 262144 bytes'],
  ],
  [
    'ConfigMap',
    { metadata: { ownerReferences: [{ apiVersion: 'v1', kind: 'Pod', name: 'p', uid: '' }] } },
    ['metadata.ownerReferences.uid: Invalid value: "": must not be empty'],
  ],
  ['Namespace', { metadata: { name: 'a.b' } }, ['metadata.name: Invalid value: "a.b": must not contain dots']],
  ['Node', { metadata: { namespace: 'x' } }, ['metadata.namespace: Forbidden: not allowed on this type']],
  [
    'Role',
    { rules: [{ verbs: [], apiGroups: [''], resources: ['pods'] }] },
    ['rules[0].verbs: Required value: verbs must contain at least one value'],
  ],
  [
    'Role',
    { rules: [{ verbs: ['get'] }] },
    [
      'rules[0].apiGroups: Required value: resource rules must supply at least one api group',
      'rules[0].resources: Required value: resource rules must supply at least one resource',
    ],
  ],
  [
    'Role',
    { rules: [{ verbs: ['get'], nonResourceURLs: ['/x'] }] },
    ['rules[0].nonResourceURLs: Invalid value: ["/x"]: namespaced rules cannot apply to non-resource URLs'],
  ],
  [
    'ClusterRole',
    { rules: [{ verbs: ['get'], nonResourceURLs: ['/x'], resources: ['pods'] }] },
    [
      'rules[0].nonResourceURLs: Invalid value: ["/x"]: rules cannot apply to both regular resources and non-resource URLs',
    ],
  ],
  [
    'RoleBinding',
    { roleRef: { kind: 'Node', name: '' } },
    [
      'roleRef.kind: Unsupported value: "Node": supported values: "Role", "ClusterRole"',
      'roleRef.name: Required value',
    ],
  ],
  [
    'ClusterRoleBinding',
    { roleRef: { kind: 'ClusterRole', name: 'r' }, subjects: [{ kind: 'ServiceAccount', name: 's' }] },
    ['subjects[0].namespace: Required value'],
  ],
  [
    'ClusterRoleBinding',
    { roleRef: { kind: 'Role', name: 'r' } },
    ['roleRef.kind: Unsupported value: "Role": supported values: "ClusterRole"'],
  ],
  [
    'Lease',
    { spec: { leaseDurationSeconds: 0, leaseTransitions: -1 } },
    [
      'spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0',
      'spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0',
    ],
  ],
  [
    'EndpointSlice',
    { addressType: 'IPv4', endpoints: [{ addresses: ['fd00::1'] }, { addresses: ['127.0.0.1'] }] },
    [
      'endpoints[0].addresses: Invalid value: "fd00::1": must be an IPv4 address',
      'endpoints[1].addresses[0]: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)',
    ],
  ],
  [
    'EndpointSlice',
    { addressType: 'X' },
    ['addressType: Unsupported value: "X": supported values: "FQDN", "IPv4", "IPv6"'],
  ],
  [
    'NetworkPolicy',
    {
      spec: {
        ingress: [
          {
            from: [{}, { ipBlock: { cidr: '10.0.0.0/8', except: ['11.0.0.0/16'] } }],
            ports: [{ port: 70000 }, { port: 5, endPort: 2 }],
          },
        ],
      },
    },
    [
      'spec.ingress[0].ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive',
      'spec.ingress[0].ports[1].endPort: Invalid value: 5: must be greater than or equal to `port`',
      'spec.ingress[0].from[0]: Required value: must specify a peer',
      'spec.ingress[0].from[1].ipBlock.except[0]: Invalid value: "11.0.0.0/16": must be a strict subset of `cidr`',
    ],
  ],
  [
    'PodDisruptionBudget',
    { spec: { minAvailable: '200%' } },
    ['spec.minAvailable: Invalid value: "200%": must not be greater than 100%'],
  ],
  [
    'CertificateSigningRequest',
    { spec: { request: 'eA==', signerName: 'x', expirationSeconds: 10 } },
    [
      'spec.usages: Required value',
      'spec.expirationSeconds: Invalid value: 10: may not specify a duration less than 600 seconds (10 minutes)',
    ],
  ],
  [
    'TokenRequest',
    { spec: { expirationSeconds: 5 } },
    ['spec.expirationSeconds: Invalid value: 5: may not specify a duration less than 10 minutes'],
  ],
  ['Scale', { spec: { replicas: -1 } }, ['spec.replicas: Invalid value: -1: must be greater than or equal to 0']],
  [
    'SubjectAccessReview',
    { spec: {} },
    [
      'spec.resourceAttributes: Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified',
      'spec.user: Invalid value: "": at least one of user or group must be specified',
    ],
  ],
  [
    'Event',
    { involvedObject: { namespace: 'other' } },
    ['involvedObject.namespace: Invalid value: "other": does not match event.namespace'],
  ],
  [
    'CustomResourceDefinition',
    {
      metadata: { name: 'x' },
      spec: {
        group: 'example.com',
        scope: 'Foo',
        names: { plural: 'things', kind: 'Thing' },
        versions: [{ name: 'v1', served: true, storage: false, schema: { openAPIV3Schema: { type: 'object' } } }],
      },
    },
    [
      'metadata.name: Invalid value: "x": must be spec.names.plural+"."+spec.group',
      'spec.scope: Unsupported value: "Foo": supported values: "Cluster", "Namespaced"',
      'spec.versions: Invalid value: [{"Name":"v1","Served":true,"Storage":false,"Deprecated":false,"DeprecationWarning":null,"Schema":null,"Subresources":null,"AdditionalPrinterColumns":null,"SelectableFields":null}]: must have exactly one version marked as storage version',
    ],
  ],
]

for (const [name, manifest, said] of refused) {
  test(`${name}: ${said[0]?.slice(0, 70)}`, (t) => {
    const found = problems(kindOf(name), manifest)
    for (const words of said) t.true(found.includes(words), `${words}\nis not among\n${found.join('\n')}`)
  })
}

const changes: readonly [string, Manifest, Manifest, string[]][] = [
  [
    'RoleBinding',
    minimal.RoleBinding ?? {},
    { roleRef: { kind: 'Role', name: 'other' } },
    [
      'roleRef: Invalid value: {"APIGroup":"rbac.authorization.k8s.io","Kind":"Role","Name":"other"}: cannot change roleRef',
    ],
  ],
  [
    'EndpointSlice',
    { addressType: 'IPv4' },
    { addressType: 'IPv6' },
    ['addressType: Invalid value: "IPv6": field is immutable'],
  ],
  [
    'ControllerRevision',
    { revision: 1, data: { a: 1 } },
    { revision: 2, data: { a: 2 } },
    ['data: Invalid value: {"a":2}: field is immutable'],
  ],
  ['ConfigMap', {}, { metadata: { uid: 'other' } }, ['metadata.uid: Invalid value: "other": field is immutable']],
  [
    'ConfigMap',
    { metadata: { deletionTimestamp: '2026-01-01T00:00:00Z' } },
    { metadata: { deletionTimestamp: '2026-01-01T00:00:00Z', finalizers: ['a/b'] } },
    [
      'metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{"a/b"}',
    ],
  ],
  [
    'CustomResourceDefinition',
    minimal.CustomResourceDefinition ?? {},
    {
      ...minimal.CustomResourceDefinition,
      spec: { ...(minimal.CustomResourceDefinition?.spec as object), group: 'other.com' },
    },
    ['spec.group: Invalid value: "other.com": field is immutable'],
  ],
]

for (const [name, before, after, said] of changes) {
  test(`${name} may not be changed so: ${said[0]?.slice(0, 60)}`, (t) => {
    const found = updateProblems(kindOf(name), before, after)
    for (const words of said) t.true(found.includes(words), `${words}\nis not among\n${found.join('\n')}`)
  })
}

test('rbac defaults fill in the API groups of roles and subjects', (t) => {
  const binding = { roleRef: { kind: 'Role', name: 'r' }, subjects: [{ kind: 'Group', name: 'g' }] } as never
  kindOf('RoleBinding').defaults(binding)
  t.deepEqual(binding, {
    roleRef: { kind: 'Role', name: 'r', apiGroup: rbac },
    subjects: [{ kind: 'Group', name: 'g', apiGroup: rbac }],
  })
})

test('the two forms of an event are one object in the store', (t) => {
  const kind = kindOf('Event', 'events.k8s.io')
  const event = {
    apiVersion: 'events.k8s.io/v1',
    kind: 'Event',
    metadata: { name: 'e', namespace: 'd' },
    eventTime: '2026-01-01T00:00:00.000000Z',
    regarding: { kind: 'Pod', name: 'p' },
    note: 'n',
    reportingController: 'c',
    deprecatedSource: { component: 's' },
    deprecatedCount: 2,
    series: { count: 3, lastObservedTime: '2026-01-01T00:00:01.000000Z' },
  } as never
  const stored = kind.stored?.to(structuredClone(event))
  t.like(stored, {
    apiVersion: 'v1',
    involvedObject: { kind: 'Pod', name: 'p' },
    message: 'n',
    reportingComponent: 'c',
    count: 2,
    source: { component: 's' },
  })
  t.deepEqual(kind.stored?.from(structuredClone(stored) as never), event)
  t.is(kind.storage, 'events')
})

/** Answers of upstream v1.36.3's own defaults, validation and strategic merge (README: "Against upstream"). */
interface Answer {
  readonly object?: Manifest & { apiVersion: string; kind: string }
  readonly old?: Manifest
  readonly said?: readonly string[]
  readonly kind?: string
  readonly original?: Manifest
  readonly patch?: unknown
  readonly patched?: Manifest
}
const answers = readFileSync(new URL('../../test/api/upstream.jsonl', import.meta.url), 'utf8')
  .trim()
  .split('\n')
  .map((line) => JSON.parse(line) as Answer)

test('what upstream says to hundreds of good and bad objects, and to changes of them, is what we say', (t) => {
  const differing: string[] = []
  let count = 0
  for (const { object, old, said } of answers) {
    if (object === undefined || said === undefined) continue
    const kind = kindOf(object.kind, object.apiVersion.includes('/') ? object.apiVersion.split('/')[0] : '')
    const errors =
      old === undefined ? kind.validate(read(kind, object)) : kind.validateUpdate(read(kind, object), read(kind, old))
    // What follows the first line is our own account of what changed.
    const ours = firstLines(errors.map((e) => `${e.path}: ${e.message}`))
    const theirs = firstLines(said)
    if (JSON.stringify(ours) !== JSON.stringify(theirs))
      differing.push(`${JSON.stringify(object)}\n${ours.join('\n')}\n-- upstream:\n${theirs.join('\n')}`)
    count++
  }
  t.deepEqual(differing, [])
  t.true(count > 500)
})

test('a strategic patch gives what upstream gives', (t) => {
  let count = 0
  for (const { kind, original, patch, patched } of answers) {
    if (original === undefined || kind === undefined) continue
    const message = kindOf(kind).message ?? ''
    t.deepEqual(applyStrategicPatch(original, patch, message), patched, JSON.stringify({ original, patch }))
    count++
  }
  t.true(count > 100)
})

/** Each once: upstream runs some checks twice. */
const firstLines = (texts: readonly string[]): string[] =>
  [...new Set(texts.map((text) => text.split('\n')[0] ?? ''))].sort()

/** As a request's body is read, without what a create would set. */
function read(kind: KindDefinition, manifest: Manifest): KubeObject {
  const object = structuredClone(manifest) as unknown as KubeObject
  conform(kind.message ?? '', object)
  kind.defaults(object)
  return object
}
