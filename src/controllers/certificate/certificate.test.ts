import { generateKeyPairSync, X509Certificate as NodeCertificate, webcrypto } from 'node:crypto'
import test from 'ava'
import type { CertificateSigningRequest } from '#api/gen/certificates-v1.ts'
import type { Node } from '#api/gen/core-v1.ts'
import { certificateSigningRequests, nodes } from '#api/gen/resources.ts'
import { eventually } from '#base/async/eventually.ts'
import { Scope } from '#base/async/scope.ts'
import { FakeClock } from '#base/clock.ts'
import { silentLog } from '#base/log/log.ts'
import {
  Pkcs10CertificateRequestGenerator,
  SubjectAlternativeNameExtension,
  X509CertificateGenerator,
} from '#base/x509/x509.ts'
import { FakeClient } from '#client/fake.ts'
import { Informers } from '#client/informer.ts'
import { sameAddress } from './address.ts'
import { certificateController } from './certificate.ts'
import { cleanAt, planApproval, planSigning, signers } from './plan.ts'
import { type Asked, readRequest } from './request.ts'
import type { SigningKey } from './sign.ts'

const now = Date.parse('2026-01-01T00:00:00Z')
const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const

const freshKeys = () =>
  webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']) as Promise<webcrypto.CryptoKeyPair>

async function authority(): Promise<SigningKey> {
  const keys = await freshKeys()
  const certificate = await X509CertificateGenerator.createSelfSigned({
    serialNumber: '01',
    name: 'CN=test',
    notBefore: new Date(now - 1000),
    notAfter: new Date(now + 10 * 365 * 86_400_000),
    keys,
    signingAlgorithm: algorithm,
  })
  const der = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey)).toString('base64')
  return {
    certificate: certificate.toString('pem'),
    key: `-----BEGIN PRIVATE KEY-----\n${der}\n-----END PRIVATE KEY-----\n`,
  }
}

async function request(name: string, names: { dns?: string[]; ip?: string[] } = {}): Promise<string> {
  const san = [
    ...(names.dns ?? []).map((value) => ({ type: 'dns' as const, value })),
    ...(names.ip ?? []).map((value) => ({ type: 'ip' as const, value })),
  ]
  const made = await Pkcs10CertificateRequestGenerator.create({
    name,
    keys: await freshKeys(),
    signingAlgorithm: algorithm,
    ...(san.length > 0 ? { extensions: [new SubjectAlternativeNameExtension(san)] } : {}),
  })
  return Buffer.from(made.toString('pem')).toString('base64')
}

const kubeletSubject = 'O=system:nodes, CN=system:node:n1'
const clientUsages = ['digital signature', 'client auth']
const servingUsages = ['digital signature', 'server auth']
const csr = (signerName: string, usages: string[], username = 'system:bootstrap:abc', more: object = {}) =>
  ({
    metadata: { name: 'c', creationTimestamp: '2026-01-01T00:00:00Z' },
    spec: { request: '', signerName, usages, username, groups: ['system:nodes'] },
    status: {},
    ...more,
  }) as unknown as CertificateSigningRequest

const node = {
  metadata: { name: 'n1' },
  status: {
    addresses: [
      { type: 'InternalIP', address: '172.30.0.11' },
      { type: 'InternalIP', address: 'fd00:172:30::11' },
      { type: 'Hostname', address: 'n1' },
    ],
  },
} as unknown as Node

test('planApproval() asks whether the requester may have a kubelet certificate, its own or any', async (t) => {
  const asked = await readRequest(await request(kubeletSubject))
  t.like(planApproval(csr(signers.kubelet, clientUsages), asked, undefined), { do: 'ask', subresource: 'nodeclient' })
  const own = csr(signers.kubelet, [...clientUsages, 'key encipherment'], 'system:node:n1')
  t.like(planApproval(own, asked, undefined), { do: 'ask', subresource: 'selfnodeclient' })
})

test('planApproval() leaves what is no kubelet certificate to a person', async (t) => {
  const leaves = async (subject: string, usages: string[], names = {}) =>
    planApproval(csr(signers.kubelet, usages), await readRequest(await request(subject, names)), undefined)
  t.like(await leaves('CN=system:node:n1', clientUsages), {
    do: 'leave',
    why: 'subject organization is not system:nodes',
  })
  t.like(await leaves('O=system:nodes, CN=admin', clientUsages), { do: 'leave' })
  t.like(await leaves('O=system:nodes, O=system:masters, CN=system:node:n1', clientUsages), { do: 'leave' })
  t.like(await leaves(kubeletSubject, servingUsages), { do: 'leave' })
  t.like(await leaves(kubeletSubject, [...clientUsages, 'server auth']), { do: 'leave' })
  t.like(await leaves(kubeletSubject, clientUsages, { dns: ['x'] }), { do: 'leave' })
})

test('planApproval() approves a serving certificate only for the node itself and only for its addresses', async (t) => {
  const plan = async (username: string, names: object, of: Node | undefined = node) =>
    planApproval(
      csr(signers.serving, servingUsages, username),
      await readRequest(await request(kubeletSubject, names)),
      of,
    )
  const all = { dns: ['n1'], ip: ['172.30.0.11', 'fd00:0172:30:0::11'] }
  t.like(await plan('system:node:n1', all), { do: 'approve' })
  t.like(await plan('system:node:n2', all), { do: 'leave' })
  t.like(await plan('system:node:n1', { ip: ['172.30.0.12'] }), {
    do: 'leave',
    why: '172.30.0.12 is not an address of node n1',
  })
  t.like(await plan('system:node:n1', { dns: ['kubernetes.default'] }), { do: 'leave' })
  t.like(await plan('system:node:n1', {}), { do: 'leave' })
})

test('planSigning() signs what is approved, and fails what does not fit its signer', async (t) => {
  const asked = await readRequest(await request(kubeletSubject))
  const approved = { status: { conditions: [{ type: 'Approved', status: 'True' }] } }
  t.deepEqual(planSigning(csr(signers.kubelet, clientUsages), asked), { do: 'nothing' })
  t.deepEqual(planSigning(csr(signers.kubelet, clientUsages, 'u', approved), asked), { do: 'sign' })
  t.like(planSigning(csr(signers.kubelet, servingUsages, 'u', approved), asked), { do: 'fail' })
  t.deepEqual(planSigning(csr('example.com/other', clientUsages, 'u', approved), asked), { do: 'nothing' })
  const asAuthority: Asked = { ...asked, isAuthority: true }
  t.like(planSigning(csr(signers.legacy, [], 'u', approved), asAuthority), { do: 'fail' })
})

test('cleanAt() keeps a pending request a day and a settled one an hour', (t) => {
  const hour = 3_600_000
  t.is(cleanAt(csr(signers.kubelet, []), undefined), now + 24 * hour)
  const conditions = [{ type: 'Denied', status: 'True', lastUpdateTime: '2026-01-01T05:00:00Z' }]
  t.is(cleanAt(csr(signers.kubelet, [], 'u', { status: { conditions } }), undefined), now + 6 * hour)
})

test('sameAddress() knows an address in other spelling', (t) => {
  t.true(sameAddress('fd00::1', 'fd00:0:0:0:0:0:0:1'))
  t.false(sameAddress('10.0.0.1', '::ffff:10.0.0.1'))
})

test('readRequest() refuses what is no request', async (t) => {
  await t.throwsAsync(readRequest(Buffer.from('hello').toString('base64')), { message: /Cannot read/ })
})

test('a node gets its client certificate and, once its addresses are known, its serving certificate', async (t) => {
  const clock = new FakeClock(now)
  const ca = await authority()
  const client = new FakeClient({ clock })
  const reviewed: unknown[] = []
  client.answer(({ resource, body }) => {
    if (resource !== 'subjectaccessreviews.authorization.k8s.io') return undefined
    reviewed.push(
      (body as unknown as { spec: { resourceAttributes: { subresource: string } } }).spec.resourceAttributes
        .subresource,
    )
    return { ...body, status: { allowed: true } }
  })
  await using scope = new Scope()
  await using informers = new Informers({ client, clock })
  const part = certificateController(ca)({ name: 'csr', client, informers, clock, log: silentLog })
  scope.start((signal) => part.run(signal, () => {}))
  client.seed(certificateSigningRequests, {
    metadata: { name: 'client' },
    spec: {
      request: await request(kubeletSubject),
      signerName: signers.kubelet,
      usages: ['digital signature', 'client auth'],
      username: 'system:bootstrap:x',
      expirationSeconds: 3600,
    },
    status: {},
  })
  client.seed(certificateSigningRequests, {
    metadata: { name: 'serving' },
    spec: {
      request: await request(kubeletSubject, { ip: ['172.30.0.11'] }),
      signerName: signers.serving,
      usages: ['digital signature', 'server auth'],
      username: 'system:node:n1',
      groups: ['system:nodes'],
    },
    status: {},
  })
  const issued = (name: string) =>
    eventually(async () => (await client.get(certificateSigningRequests, { name })).status.certificate ?? false)
  const first = new NodeCertificate(Buffer.from(await issued('client'), 'base64'))
  t.true(first.verify(new NodeCertificate(ca.certificate).publicKey))
  t.is(first.subject, 'O=system:nodes\nCN=system:node:n1')
  t.deepEqual(first.keyUsage, ['1.3.6.1.5.5.7.3.2'])
  t.is(first.validToDate.getTime(), now + 3_600_000)
  t.false(first.ca)
  t.deepEqual(reviewed, ['nodeclient'])
  t.is((await client.get(certificateSigningRequests, { name: 'serving' })).status.certificate, undefined)
  client.seed(nodes, { metadata: { name: 'n1' }, status: node.status })
  const second = new NodeCertificate(Buffer.from(await issued('serving'), 'base64'))
  t.is(second.checkIP('172.30.0.11'), '172.30.0.11')
  await eventually(async () => {
    clock.advance(600_000)
    return (await client.list(certificateSigningRequests)).items.length === 0
  })
})

test('a request whose requester has no right stays pending', async (t) => {
  const clock = new FakeClock(now)
  const client = new FakeClient({ clock })
  let asked = 0
  client.answer(({ resource, body }) => {
    if (resource !== 'subjectaccessreviews.authorization.k8s.io') return undefined
    asked++
    return { ...body, status: { allowed: false } }
  })
  await using scope = new Scope()
  await using informers = new Informers({ client, clock })
  const { privateKey } = generateKeyPairSync('ed25519')
  const key = privateKey.export({ format: 'pem', type: 'pkcs8' }).toString()
  const part = certificateController({ certificate: '', key })({
    name: 'csr',
    client,
    informers,
    clock,
    log: silentLog,
  })
  scope.start((signal) => part.run(signal, () => {}))
  const spec = {
    request: await request(kubeletSubject),
    signerName: signers.kubelet,
    usages: ['digital signature', 'client auth'] as const,
    username: 'mallory',
  }
  client.seed(certificateSigningRequests, {
    metadata: { name: 'c' },
    spec: { ...spec, usages: [...spec.usages] },
    status: {},
  })
  await eventually(() => asked === 1)
  t.deepEqual((await client.get(certificateSigningRequests, { name: 'c' })).status, {})
})
