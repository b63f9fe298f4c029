import test from 'ava'
import { clusterRoleBindings, clusterRoles } from '#api/gen/resources.ts'
import type { KubeObject } from '#api/meta/resource.ts'
import { StatusError } from '#api/meta/status.ts'
import { FakeClock } from '#base/clock.ts'
import { createAuthorize } from '../authorize/authorize.ts'
import { bootstrapPolicy } from '../bootstrap/policy.ts'
import { FakeRegistry } from '../fake-registry.ts'
import type { SubresourceHandler, User } from '../step.ts'
import {
  localSubjectAccessReview,
  selfSubjectAccessReview,
  selfSubjectRulesReview,
  subjectAccessReview,
} from './access.ts'
import { selfSubjectReview, tokenReview } from './identity.ts'

const policy = bootstrapPolicy()
const registry = new FakeRegistry()
  .put(clusterRoles, ...policy.clusterRoles)
  .put(clusterRoleBindings, ...policy.clusterRoleBindings)
const authorizer = createAuthorize(registry)
const scheduler: User = { name: 'system:kube-scheduler', groups: ['system:authenticated'] }

async function review(handler: SubresourceHandler, spec: object, user = scheduler, namespace = ''): Promise<unknown> {
  try {
    const answer = await handler({
      request: {
        method: 'POST',
        path: '',
        query: '',
        headers: {},
        body: undefined,
        signal: new AbortController().signal,
      },
      attributes: {
        user,
        verb: 'create',
        group: '',
        version: 'v1',
        resource: '',
        subresource: '',
        namespace,
        name: '',
        path: undefined,
      },
      body: { spec } as unknown as KubeObject,
      query: new URLSearchParams(),
      dryRun: false,
      registry,
    })
    return 'object' in answer ? (answer.object as { status: unknown }).status : answer
  } catch (error) {
    if (error instanceof StatusError) return `${error.code} ${error.message}`
    throw error
  }
}

const bindPods = { verb: 'create', resource: 'pods', subresource: 'binding', namespace: 'default' }

test('SelfSubjectAccessReview answers for who asks', async (t) => {
  const self = selfSubjectAccessReview(authorizer)
  t.deepEqual(await review(self, { resourceAttributes: bindPods }), {
    allowed: true,
    reason:
      'RBAC: allowed by ClusterRoleBinding "system:kube-scheduler" of ClusterRole "system:kube-scheduler" to User "system:kube-scheduler"',
  })
  t.deepEqual(await review(self, { resourceAttributes: bindPods }, { name: 'jane', groups: [] }), { allowed: false })
  t.deepEqual(await review(self, { nonResourceAttributes: { verb: 'get', path: '/metrics' } }), { allowed: false })
  t.regex(
    String(await review(self, {})),
    /^422 SelfSubjectAccessReview.*exactly one of nonResourceAttributes or resourceAttributes/,
  )
})

test('SubjectAccessReview answers for somebody else, who must be named', async (t) => {
  const of = subjectAccessReview(authorizer)
  const jane = { name: 'kubelet', groups: [] }
  const answer = (await review(of, { user: 'system:kube-scheduler', resourceAttributes: bindPods }, jane)) as {
    allowed: boolean
  }
  t.true(answer.allowed)
  t.deepEqual(await review(of, { groups: ['system:nodes'], resourceAttributes: bindPods }, jane), { allowed: false })
  t.regex(
    String(await review(of, { resourceAttributes: bindPods }, jane)),
    /at least one of user or group must be specified/,
  )
})

test('a kubelet asks who may exec: the API server’s own certificate may, others not', async (t) => {
  const of = subjectAccessReview(authorizer)
  const proxy = { verb: 'create', resource: 'nodes', subresource: 'proxy', name: 'n1' }
  const allowed = async (user: string) =>
    ((await review(of, { user, resourceAttributes: proxy })) as { allowed: boolean }).allowed
  t.true(await allowed('kube-apiserver-kubelet-client'))
  t.false(await allowed('system:kube-scheduler'))
})

test('LocalSubjectAccessReview stays in its namespace', async (t) => {
  const local = localSubjectAccessReview(authorizer)
  const spec = { user: 'system:kube-scheduler', resourceAttributes: bindPods }
  t.true(((await review(local, spec, scheduler, 'default')) as { allowed: boolean }).allowed)
  t.regex(String(await review(local, spec, scheduler, 'other')), /must match metadata.namespace/)
})

test('SelfSubjectRulesReview lists what the caller has, and says when it cannot', async (t) => {
  const list = selfSubjectRulesReview(authorizer)
  const mine = (await review(list, { namespace: 'default' })) as {
    resourceRules: { resources: string[] }[]
    nonResourceRules: { nonResourceURLs: string[] }[]
    incomplete: boolean
  }
  t.true(mine.resourceRules.some((r) => r.resources.includes('pods/binding')))
  t.true(mine.nonResourceRules.some((r) => r.nonResourceURLs.includes('/apis/*')))
  t.false(mine.incomplete)
  const node = (await review(list, { namespace: 'default' }, { name: 'system:node:n', groups: ['system:nodes'] })) as {
    incomplete: boolean
  }
  t.true(node.incomplete)
  t.is(await review(list, {}), '400 no namespace on request')
})

test('TokenReview tells a good token’s user; a bad one is an answer, none an error', async (t) => {
  const handler = tokenReview(
    async (token) => (token === 'good' ? { user: { ...scheduler, uid: 'u' }, audiences: ['me'] } : undefined),
    ['me'],
  )
  t.deepEqual(await review(handler, { token: 'good' }), {
    authenticated: true,
    user: { username: 'system:kube-scheduler', groups: ['system:authenticated'], uid: 'u' },
    audiences: ['me'],
  })
  t.deepEqual(await review(handler, { token: 'bad' }), { user: {}, error: '[invalid bearer token]' })
  t.regex(String(await review(handler, {})), /^422 .*spec.token: Invalid value: "": must not be empty/)
})

test('SelfSubjectReview says who one is', async (t) => {
  t.deepEqual(await review(selfSubjectReview(new FakeClock()), {}), {
    userInfo: { username: 'system:kube-scheduler', groups: ['system:authenticated'] },
  })
})
