import { generateKeyPairSync, X509Certificate } from 'node:crypto'
import test from 'ava'
import { SignJWT } from 'jose'
import type { Node, Pod, ServiceAccount } from '#api/gen/core-v1.ts'
import { nodes, pods, serviceAccounts } from '#api/gen/resources.ts'
import { isStatus } from '#api/meta/status.ts'
import { FakeClock } from '#base/clock.ts'
import { FakeRegistry } from '../fake-registry.ts'
import { createAuthority, createLeaf } from '../pki/certificate.ts'
import type { User } from '../step.ts'
import { anonymousFor, createAuthenticate } from './authenticate.ts'
import { type Binding, TokenKeys } from './token.ts'

const issuer = 'https://kubernetes.default.svc.cluster.local'
const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const meta = (name: string) => ({
  name,
  namespace: 'ns',
  uid: `uid-${name}`,
  resourceVersion: '',
  creationTimestamp: '',
})

function setUp() {
  const clock = new FakeClock()
  const account: ServiceAccount = { apiVersion: 'v1', kind: 'ServiceAccount', metadata: meta('sa') }
  const pod: Pod = { apiVersion: 'v1', kind: 'Pod', metadata: meta('pod'), spec: { containers: [] }, status: {} }
  const node = { apiVersion: 'v1', kind: 'Node', metadata: meta('node'), spec: {}, status: {} } as unknown as Node
  const registry = new FakeRegistry().put(serviceAccounts, account).put(pods, pod).put(nodes, node)
  const tokens = new TokenKeys({ key: { keyId: 'k', privateKey, publicKey }, issuer, clock })
  const staticTokens = new Map<string, User>([['in-process', { name: 'system:kube-scheduler', groups: [] }]])
  const options = {
    registry,
    tokens,
    audiences: [issuer],
    staticTokens,
    bootstrapToken: 'abcdef.0123456789abcdef',
    clock,
  }
  const authenticator = createAuthenticate(options)
  const bearer = async (token: string) =>
    authenticator.authenticate({ authorization: `Bearer ${token}`, certificate: undefined })
  return { clock, registry, tokens, staticTokens, authenticator, bearer }
}

const bound: Binding = {
  namespace: 'ns',
  serviceaccount: { name: 'sa', uid: 'uid-sa' },
  pod: { name: 'pod', uid: 'uid-pod' },
  node: { name: 'node', uid: 'uid-node' },
}
const refused = (error: unknown): boolean => isStatus(error, 'Unauthorized')

test('a bound token is its service account, with its groups and what it is bound to', async (t) => {
  const { tokens, bearer } = setUp()
  const user = await bearer(await tokens.sign(bound, [issuer], 3600))
  const { 'authentication.kubernetes.io/credential-id': credential, ...extra } = user?.extra ?? {}
  t.deepEqual(
    { ...user, extra },
    {
      name: 'system:serviceaccount:ns:sa',
      uid: 'uid-sa',
      groups: ['system:serviceaccounts', 'system:serviceaccounts:ns', 'system:authenticated'],
      extra: {
        'authentication.kubernetes.io/pod-name': ['pod'],
        'authentication.kubernetes.io/pod-uid': ['uid-pod'],
        'authentication.kubernetes.io/node-name': ['node'],
        'authentication.kubernetes.io/node-uid': ['uid-node'],
      },
    },
  )
  t.regex(credential?.[0] ?? '', /^JTI=[0-9a-f-]{36}$/)
})

test('a certificate ends with its time, also on a connection that was made before', async (t) => {
  const { clock, authenticator } = setUp()
  const authority = await createAuthority('test', clock.now())
  const subject = { commonName: 'jane', organizations: ['g'] }
  const lifeMs = 3_600_000
  const { certificate } = await createLeaf(authority, { subject, usage: 'client', now: clock.now(), lifeMs })
  const session = new X509Certificate(certificate).raw
  const ask = async () => authenticator.authenticate({ authorization: undefined, certificate: session })
  t.is((await ask())?.name, 'jane')
  clock.advance(lifeMs - 1_000)
  t.is((await ask())?.name, 'jane')
  clock.advance(1_000)
  await t.throwsAsync(ask, { message: 'Unauthorized' })
})

test('a token ends with its time, its audience, its key and its issuer', async (t) => {
  const { clock, tokens, bearer } = setUp()
  const short = await tokens.sign(bound, [issuer], 600)
  clock.advance(601_000)
  await t.throwsAsync(() => bearer(short), { message: 'Unauthorized' })
  await t.throwsAsync(async () => bearer(await tokens.sign(bound, ['somebody-else'], 600)), { message: 'Unauthorized' })
  const other = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const forged = new TokenKeys({ key: { keyId: 'k', ...other }, issuer, clock })
  await t.throwsAsync(async () => bearer(await forged.sign(bound, [issuer], 600)), { message: 'Unauthorized' })
  const foreign = new TokenKeys({ key: { keyId: 'k', privateKey, publicKey }, issuer: 'https://elsewhere', clock })
  await t.throwsAsync(async () => bearer(await foreign.sign(bound, [issuer], 600)), { message: 'Unauthorized' })
  const unsigned = `${btoa('{"alg":"none"}')}.${btoa(JSON.stringify({ iss: issuer, aud: issuer }))}.`
  await t.throwsAsync(() => bearer(unsigned), { message: 'Unauthorized' })
})

test('a token signed with another kind of key is no good, whatever its header says', async (t) => {
  const { bearer } = setUp()
  const pem = publicKey.export({ type: 'spki', format: 'pem' }).toString()
  const confused = await new SignJWT({ 'kubernetes.io': bound })
    .setProtectedHeader({ alg: 'HS256' })
    .setIssuer(issuer)
    .setAudience(issuer)
    .setJti('x')
    .sign(new TextEncoder().encode(pem))
  await t.throwsAsync(() => bearer(confused), { message: 'Unauthorized' })
})

test('a token dies with what it is bound to: at once when that is another by the name, within 10 s of cache', async (t) => {
  const { clock, registry, tokens, bearer } = setUp()
  const token = await tokens.sign(bound, [issuer], 3600)
  await bearer(token)
  await registry.delete(pods, 'ns', 'pod')
  t.is((await bearer(token))?.name, 'system:serviceaccount:ns:sa', 'still remembered')
  clock.advance(10_001)
  await t.throwsAsync(() => bearer(token), { message: 'Unauthorized' })
  registry.put(pods, {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { ...meta('pod'), uid: 'another' },
    spec: { containers: [] },
    status: {},
  })
  await t.throwsAsync(() => bearer(token), { message: 'Unauthorized' })
})

test('the token of a pod that is being deleted works for a minute more', async (t) => {
  const { clock, registry, tokens, bearer } = setUp()
  const deletionTimestamp = new Date(clock.now()).toISOString()
  await registry.change(pods, 'ns', 'pod', { name: '', groups: [] }, (p) => ({
    ...p,
    metadata: { ...p.metadata, deletionTimestamp },
  }))
  clock.advance(50_000)
  const token = await tokens.sign(bound, [issuer], 3600)
  t.truthy(await bearer(token))
  clock.advance(20_000)
  await t.throwsAsync(() => bearer(token), { message: 'Unauthorized' })
})

test('a pod’s token survives its Node, a node-bound one does not', async (t) => {
  const { registry, tokens, bearer } = setUp()
  await registry.delete(nodes, '', 'node')
  t.truthy(await bearer(await tokens.sign(bound, [issuer], 3600)))
  const { pod: _, ...ofNode } = bound
  await t.throwsAsync(async () => bearer(await tokens.sign(ofNode, [issuer], 3600)), { message: 'Unauthorized' })
})

test('tokens of the parts inside and the bootstrap token', async (t) => {
  const { staticTokens, bearer } = setUp()
  const scheduler = await bearer('in-process')
  t.deepEqual(scheduler, { name: 'system:kube-scheduler', groups: ['system:authenticated'] })
  t.is(await bearer('in-process'), scheduler, 'the same value each time')
  t.deepEqual(await bearer('abcdef.0123456789abcdef'), {
    name: 'system:bootstrap:abcdef',
    groups: ['system:bootstrappers', 'system:authenticated'],
  })
  staticTokens.delete('in-process')
  await t.throwsAsync(() => bearer('in-process'), { message: 'Unauthorized' })
})

test('a client certificate is its CN, in the groups of its Os', async (t) => {
  const { authenticator } = setUp()
  const authority = await createAuthority('ca', Date.now())
  const subject = { commonName: 'system:node:node-1', organizations: ['system:nodes', 'b'] }
  const leaf = await createLeaf(authority, { subject, usage: 'client', now: Date.now() })
  const certificate = new Uint8Array(new X509Certificate(leaf.certificate).raw)
  const user = await authenticator.authenticate({ authorization: undefined, certificate })
  t.is(user?.name, 'system:node:node-1')
  t.deepEqual(user?.groups, ['system:nodes', 'b', 'system:authenticated'])
  t.is(
    await authenticator.authenticate({ authorization: 'Bearer nonsense', certificate }),
    user,
    'the certificate is enough',
  )
})

test('nothing shown is nobody; something wrong is refused', async (t) => {
  const { authenticator, bearer } = setUp()
  t.is(await authenticator.authenticate({ authorization: undefined, certificate: undefined }), undefined)
  for (const authorization of ['Basic YTpi', 'Bearer', 'Bearer ', 'token x']) {
    const error = t.throws(() => authenticator.authenticate({ authorization, certificate: undefined }))
    t.true(refused(error), authorization)
  }
  await t.throwsAsync(() => bearer('nonsense'), { message: 'Unauthorized' })
})

test('anonymousFor() knows nobody but where health is asked', (t) => {
  for (const path of ['/healthz', '/livez', '/readyz', '/readyz/store'])
    t.is(anonymousFor(path)?.name, 'system:anonymous', path)
  for (const path of ['/', '/version', '/healthzz', '/metrics', '/api/v1/pods', '/apis'])
    t.is(anonymousFor(path), undefined, path)
})

test('the documents by which others verify tokens name the key', (t) => {
  const { tokens } = setUp()
  const documents = tokens.documents(`${issuer}/openid/v1/jwks`)
  const { keys } = documents.get('/openid/v1/jwks') as { keys: { kid: string; alg: string; d?: string }[] }
  t.deepEqual(
    keys.map(({ kid, alg, d }) => ({ kid, alg, d })),
    [{ kid: 'k', alg: 'ES256', d: undefined }],
  )
})
