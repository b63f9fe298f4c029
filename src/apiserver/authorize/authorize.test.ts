import test from 'ava'
import fc from 'fast-check'
import type { Pod, PodSpec } from '#api/gen/core-v1.ts'
import type { ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, Subject } from '#api/gen/rbac-v1.ts'
import { clusterRoleBindings, clusterRoles, pods, roleBindings, roles } from '#api/gen/resources.ts'
import { FakeRegistry } from '../fake-registry.ts'
import type { Attributes, User } from '../step.ts'
import { createAuthorize } from './authorize.ts'
import { forbiddenFor } from './forbidden.ts'
import { beyond, formatRule, ruleAllows } from './rules.ts'

const meta = (name: string, more = {}) => ({ name, uid: '', resourceVersion: '', creationTimestamp: '', ...more })
const rbac = { apiVersion: 'rbac.authorization.k8s.io/v1' } as const
const apiGroup = 'rbac.authorization.k8s.io'

const clusterRole = (name: string, rules: PolicyRule[], labels?: Record<string, string>): ClusterRole => ({
  ...rbac,
  kind: 'ClusterRole',
  metadata: meta(name, labels ? { labels } : {}),
  rules,
})
const role = (namespace: string, name: string, rules: PolicyRule[]): Role => ({
  ...rbac,
  kind: 'Role',
  metadata: { ...meta(name), namespace },
  rules,
})
const everywhere = (name: string, roleName: string, ...subjects: Subject[]): ClusterRoleBinding => ({
  ...rbac,
  kind: 'ClusterRoleBinding',
  metadata: meta(name),
  roleRef: { apiGroup, kind: 'ClusterRole', name: roleName },
  subjects,
})
const within = (
  namespace: string,
  name: string,
  kind: string,
  roleName: string,
  ...subjects: Subject[]
): RoleBinding => ({
  ...rbac,
  kind: 'RoleBinding',
  metadata: { ...meta(name), namespace },
  roleRef: { apiGroup, kind, name: roleName },
  subjects,
})

const jane: User = { name: 'jane', groups: ['devs', 'system:authenticated'] }
const userJane: Subject = { apiGroup, kind: 'User', name: 'jane' }

/** `get pods/log.apps default/web` */
function ask(user: User, text: string): Attributes {
  const [verb = '', what = '', where = ''] = text.split(' ')
  const none = { user, verb, group: '', version: 'v1', resource: '', subresource: '', namespace: '', name: '' }
  if (what.startsWith('/')) return { ...none, path: what }
  const [qualified = '', ...subresource] = what.split('/')
  const [resource = '', ...group] = qualified.split('.')
  const [namespace = '', name = ''] = where.split('/')
  return {
    ...none,
    resource,
    group: group.join('.'),
    subresource: subresource.join('/'),
    namespace,
    name,
    path: undefined,
  }
}

const podReader: PolicyRule[] = [{ verbs: ['get', 'list'], apiGroups: [''], resources: ['pods', 'pods/log'] }]

test('a RoleBinding counts in its namespace, a ClusterRoleBinding everywhere', (t) => {
  const registry = new FakeRegistry()
    .put(clusterRoles, clusterRole('reader', podReader))
    .put(roleBindings, within('default', 'b', 'ClusterRole', 'reader', userJane))
  const { authorize } = createAuthorize(registry)
  t.true(authorize(ask(jane, 'list pods default/')).allowed)
  t.true(authorize(ask(jane, 'get pods/log default/web')).allowed)
  for (const text of [
    'list pods other/',
    'list pods',
    'delete pods default/web',
    'get pods/exec default/web',
    'list pods.apps default/',
  ]) {
    t.false(authorize(ask(jane, text)).allowed, text)
  }
  registry.put(clusterRoleBindings, everywhere('b', 'reader', userJane))
  t.true(authorize(ask(jane, 'list pods')).allowed, 'decisions are forgotten when a binding comes')
  t.is(
    authorize(ask(jane, 'list pods other/')).reason,
    'RBAC: allowed by ClusterRoleBinding "b" of ClusterRole "reader" to User "jane"',
  )
})

test('a role or binding that goes or changes is felt at once', async (t) => {
  const registry = new FakeRegistry()
    .put(roles, role('default', 'reader', podReader))
    .put(roleBindings, within('default', 'b', 'Role', 'reader', userJane))
  const { authorize } = createAuthorize(registry)
  const may = () => authorize(ask(jane, 'list pods default/')).allowed
  t.true(may())
  await registry.change(roles, 'default', 'reader', jane, (r) => ({ ...r, rules: [] }))
  t.false(may())
  await registry.change(roles, 'default', 'reader', jane, (r) => ({ ...r, rules: podReader }))
  t.true(may())
  await registry.change(roleBindings, 'default', 'b', jane, (b) => ({
    ...b,
    subjects: [{ kind: 'Group', name: 'devs' }],
  }))
  t.true(may())
  await registry.change(roleBindings, 'default', 'b', jane, (b) => ({
    ...b,
    subjects: [{ kind: 'Group', name: 'ops' }],
  }))
  t.false(may())
  await registry.delete(roles, 'default', 'reader')
  t.is(
    authorize(ask({ name: 'x', groups: ['ops'] }, 'list pods default/')).reason,
    'RBAC: role.rbac.authorization.k8s.io "reader" not found',
  )
})

test('service accounts, names, wildcards and paths', (t) => {
  const account: Subject = { kind: 'ServiceAccount', namespace: 'ci', name: 'bot' }
  const bot: User = { name: 'system:serviceaccount:ci:bot', groups: ['system:serviceaccounts'] }
  const registry = new FakeRegistry()
    .put(
      clusterRoles,
      clusterRole('mixed', [
        { verbs: ['update'], apiGroups: [''], resources: ['configmaps'], resourceNames: ['one'] },
        { verbs: ['*'], apiGroups: ['apps'], resources: ['*/scale'] },
        { verbs: ['get'], nonResourceURLs: ['/metrics', '/debug/*'] },
      ]),
    )
    .put(clusterRoleBindings, everywhere('b', 'mixed', account))
  const { authorize } = createAuthorize(registry)
  for (const [text, allowed] of [
    ['update configmaps default/one', true],
    ['update configmaps default/two', false],
    ['update configmaps default/', false],
    ['patch deployments.apps/scale default/web', true],
    ['patch deployments.apps default/web', false],
    ['get /metrics', true],
    ['get /metrics/x', false],
    ['get /debug/pprof', true],
    ['post /metrics', false],
  ] as const) {
    t.is(authorize(ask(bot, text)).allowed, allowed, text)
  }
})

test('a RoleBinding never opens a path, and a role of aggregated roles is their union', (t) => {
  const view = { 'rbac.authorization.k8s.io/aggregate-to-view': 'true' }
  const aggregated: ClusterRole = {
    ...clusterRole('view', [{ verbs: ['*'], apiGroups: ['*'], resources: ['*'] }]),
    aggregationRule: { clusterRoleSelectors: [{ matchLabels: view }] },
  }
  const registry = new FakeRegistry()
    .put(
      clusterRoles,
      aggregated,
      clusterRole('a', podReader, view),
      clusterRole('b', [{ verbs: ['get'], nonResourceURLs: ['/metrics'] }], view),
    )
    .put(roleBindings, within('default', 'b', 'ClusterRole', 'view', userJane))
  const { authorize } = createAuthorize(registry)
  t.true(authorize(ask(jane, 'list pods default/')).allowed)
  t.false(
    authorize(ask(jane, 'delete pods default/x')).allowed,
    'what stands in `rules` of an aggregated role does not count',
  )
  t.false(authorize(ask(jane, 'get /metrics')).allowed)
  registry.put(clusterRoles, clusterRole('c', [{ verbs: ['delete'], apiGroups: [''], resources: ['pods'] }], view))
  t.true(authorize(ask(jane, 'delete pods default/x')).allowed)
})

test('roles that select each other end', (t) => {
  const label = { x: 'y' }
  const both = (name: string, rules: PolicyRule[]): ClusterRole => ({
    ...clusterRole(name, rules, label),
    aggregationRule: { clusterRoleSelectors: [{ matchLabels: label }] },
  })
  const registry = new FakeRegistry().put(
    clusterRoles,
    both('a', []),
    both('b', []),
    clusterRole('c', podReader, label),
  )
  const { rulesOf } = createAuthorize(registry)
  for (const name of ['a', 'b'])
    t.true(
      rulesOf({ kind: 'ClusterRole', name }, '')?.some((r) => r.resources?.includes('pods')),
      name,
    )
})

test('system:masters may everything, whatever the roles say', (t) => {
  const { authorize } = createAuthorize(new FakeRegistry())
  const master = { name: 'admin', groups: ['system:masters'] }
  for (const text of ['delete nodes /n', 'get /metrics', 'escalate clusterroles.rbac.authorization.k8s.io /x']) {
    t.true(authorize(ask(master, text)).allowed, text)
  }
})

test('forbiddenFor() says it in upstream’s words', (t) => {
  const words = (text: string, reason = '') => forbiddenFor(ask(jane, text), { reason }).message
  t.is(
    words('list pods default/'),
    'pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "default"',
  )
  t.is(
    words('get deployments.apps/scale default/web'),
    'deployments.apps "web" is forbidden: User "jane" cannot get resource "deployments/scale" in API group "apps" in the namespace "default"',
  )
  t.is(
    words('list nodes'),
    'nodes is forbidden: User "jane" cannot list resource "nodes" in API group "" at the cluster scope',
  )
  t.is(words('get /metrics'), 'forbidden: User "jane" cannot get path "/metrics"')
  t.is(
    words('list nodes', 'RBAC: clusterrole.rbac.authorization.k8s.io "x" not found'),
    'nodes is forbidden: User "jane" cannot list resource "nodes" in API group "" at the cluster scope: RBAC: clusterrole.rbac.authorization.k8s.io "x" not found',
  )
})

test('beyond() finds what would be granted and is not held', (t) => {
  const held: PolicyRule[] = [
    { verbs: ['get', 'list'], apiGroups: ['', 'apps'], resources: ['*'] },
    { verbs: ['*'], apiGroups: [''], resources: ['configmaps'], resourceNames: ['one'] },
    { verbs: ['get'], nonResourceURLs: ['/debug/*'] },
  ]
  const missing = (...wanted: PolicyRule[]) => beyond(held, wanted).map(formatRule)
  t.deepEqual(missing({ verbs: ['get'], apiGroups: ['apps'], resources: ['deployments', 'pods/log'] }), [])
  t.deepEqual(missing({ verbs: ['get', 'watch'], apiGroups: ['', 'batch'], resources: ['pods'] }), [
    '{APIGroups:["batch"], Resources:["pods"], Verbs:["get"]}',
    '{APIGroups:[""], Resources:["pods"], Verbs:["watch"]}',
    '{APIGroups:["batch"], Resources:["pods"], Verbs:["watch"]}',
  ])
  t.deepEqual(
    missing({ verbs: ['update'], apiGroups: [''], resources: ['configmaps'], resourceNames: ['one', 'two'] }),
    ['{APIGroups:[""], Resources:["configmaps"], ResourceNames:["two"], Verbs:["update"]}'],
  )
  t.deepEqual(
    missing({ verbs: ['update'], apiGroups: [''], resources: ['configmaps'] }).length,
    1,
    'all names is more than one',
  )
  t.deepEqual(missing({ verbs: ['get'], nonResourceURLs: ['/debug/pprof', '/debug/*', '/*'] }), [
    '{NonResourceURLs:["/*"], Verbs:["get"]}',
  ])
})

const some = (...values: string[]) => fc.uniqueArray(fc.constantFrom(...values), { minLength: 1, maxLength: 2 })
const anyRule: fc.Arbitrary<PolicyRule> = fc.oneof(
  fc.record(
    {
      verbs: some('get', 'list', '*'),
      apiGroups: some('', 'apps', '*'),
      resources: some('pods', 'pods/log', '*/log', '*'),
      resourceNames: some('a', 'b'),
    },
    { requiredKeys: ['verbs', 'apiGroups', 'resources'] },
  ),
  fc.record({ verbs: some('get', '*'), nonResourceURLs: some('/a', '/a/*', '*') }),
)
const anyQuestion = fc
  .tuple(
    fc.constantFrom('get', 'list', 'delete'),
    fc.constantFrom('pods', 'pods/log', 'pods.apps', 'pods.apps/log', 'nodes/log', '/a', '/a/b', '/c'),
    fc.constantFrom('', 'default/', 'default/a', 'default/c'),
  )
  .map((words) => ask(jane, words.join(' ')))

test('what beyond() calls held is held: no question is answered yes by the new rules and no by the old', (t) => {
  t.notThrows(() =>
    fc.assert(
      fc.property(
        fc.array(anyRule, { maxLength: 4 }),
        fc.array(anyRule, { maxLength: 3 }),
        anyQuestion,
        (held, wanted, asked) => {
          fc.pre(beyond(held, wanted).length === 0)
          const says = (rules: readonly PolicyRule[]) => rules.some((rule) => ruleAllows(rule, asked))
          return !says(wanted) || says(held)
        },
      ),
      { numRuns: 3000 },
    ),
  )
})

const node: User = { name: 'system:node:n1', groups: ['system:nodes', 'system:authenticated'] }

function pod(name: string, nodeName: string | undefined, spec: Partial<PodSpec> = {}): Pod {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { ...meta(name), namespace: 'default' },
    spec: { containers: [], ...spec, ...(nodeName === undefined ? {} : { nodeName }) },
    status: {},
  }
}

const naming: Partial<PodSpec> = {
  serviceAccountName: 'app',
  imagePullSecrets: [{ name: 'pull' }],
  volumes: [
    { name: 'a', secret: { secretName: 'volume-secret' } },
    {
      name: 'b',
      projected: { sources: [{ configMap: { name: 'kube-root-ca.crt' } }, { secret: { name: 'projected' } }] },
    },
  ],
  initContainers: [{ name: 'i', resources: {}, envFrom: [{ configMapRef: { name: 'init-env' } }] }],
  containers: [
    { name: 'c', resources: {}, env: [{ name: 'X', valueFrom: { secretKeyRef: { name: 'env-secret', key: 'k' } } }] },
  ],
}

test('a node reads exactly what its pods name, while they are there', async (t) => {
  const registry = new FakeRegistry().put(
    pods,
    pod('mine', 'n1', naming),
    pod('other', 'n2', { serviceAccountName: 'theirs' }),
  )
  const { authorize } = createAuthorize(registry)
  const may = (text: string) => authorize(ask(node, text)).allowed
  const needed = [
    'get secrets default/pull',
    'get secrets default/volume-secret',
    'get secrets default/projected',
    'watch secrets default/env-secret',
    'get configmaps default/kube-root-ca.crt',
    'list configmaps default/init-env',
    'create serviceaccounts/token default/app',
    'get pods default/mine',
  ]
  for (const text of needed) t.true(may(text), text)
  for (const text of [
    'get secrets default/unrelated',
    'get secrets other/pull',
    'list secrets default/',
    'list secrets',
    'update secrets default/pull',
    'create serviceaccounts/token default/theirs',
    'get pods default/other',
    'list pods',
    'get nodes /n2',
    'list nodes',
    'get configmaps default/nothing',
    'delete leases.coordination.k8s.io default/n1',
    'get leases.coordination.k8s.io kube-node-lease/n2',
    'create pods/exec default/mine',
    'get /metrics',
  ]) {
    t.false(may(text), text)
  }
  t.is(
    authorize(ask(node, 'get secrets default/unrelated')).reason,
    "no relationship found between node 'n1' and this object",
  )
  await registry.delete(pods, 'default', 'mine')
  for (const text of needed) t.false(may(text), text)
})

test('a node may be itself', (t) => {
  const { authorize } = createAuthorize(new FakeRegistry())
  for (const text of [
    'create nodes',
    'get nodes /n1',
    'patch nodes/status /n1',
    'create leases.coordination.k8s.io kube-node-lease/',
    'update leases.coordination.k8s.io kube-node-lease/n1',
    'update pods/status default/x',
    'delete pods default/x',
    'list services',
    'create events default/',
    'create certificatesigningrequests.certificates.k8s.io',
    'create tokenreviews.authentication.k8s.io',
    'create subjectaccessreviews.authorization.k8s.io',
  ]) {
    t.true(authorize(ask(node, text)).allowed, text)
  }
  const mine = { ...ask(node, 'watch pods'), fieldSelector: 'spec.nodeName=n1,status.phase!=Failed' }
  t.true(authorize(mine).allowed)
  t.false(authorize({ ...mine, fieldSelector: 'spec.nodeName=n2' }).allowed)
  t.false(authorize({ ...mine, fieldSelector: 'spec.nodeName!=n1' }).allowed)
  const itself = { ...ask(node, 'watch nodes'), fieldSelector: 'metadata.name=n1' }
  t.true(authorize(itself).allowed)
})

test('the name of a node without its group is nobody special, and the group without a name is no node', (t) => {
  const { authorize } = createAuthorize(new FakeRegistry())
  t.false(authorize(ask({ name: 'system:node:n1', groups: [] }, 'get nodes /n1')).allowed)
  t.false(authorize(ask({ name: 'bob', groups: ['system:nodes'] }, 'get nodes /bob')).allowed)
  t.is(
    authorize(ask({ name: 'system:node:', groups: ['system:nodes'] }, 'list services')).reason,
    'unknown node for user "system:node:"',
  )
})
