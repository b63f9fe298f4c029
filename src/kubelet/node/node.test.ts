import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import type { CertificateSigningRequest } from '#api/gen/certificates-v1.ts'
import type { Node } from '#api/gen/core-v1.ts'
import { certificateSigningRequests, leases, nodes } from '#api/gen/resources.ts'
import { findCondition, isConditionTrue } from '#api/meta/conditions.ts'
import { eventually } from '#base/async/eventually.ts'
import { FakeClock } from '#base/clock.ts'
import { silentLog } from '#base/log/log.ts'
import { Pkcs10CertificateRequest, SubjectAlternativeNameExtension, X509CertificateGenerator } from '#base/x509/x509.ts'
import { FakeClient } from '#client/fake.ts'
import { FakeRuntime } from '../runtime/fake.ts'
import { NodeCertificates } from './certificates.ts'
import type { Machine, Pressure } from './machine.ts'
import { NodeReporter } from './node.ts'
import { allocatableOf, type NodeInput, nodeStatus } from './status.ts'

const gi = 2 ** 30
const machine: Machine = {
  cpus: 4,
  memoryBytes: 8 * gi,
  machineId: 'm',
  bootId: 'b',
  systemUuid: 's',
  kernelVersion: '6.18',
  osImage: 'Debian',
  architecture: 'amd64',
}
const pressure: Pressure = {
  memoryAvailableBytes: 4 * gi,
  diskTotalBytes: 100 * gi,
  diskAvailableBytes: 50 * gi,
  inodesTotal: 1000,
  inodesFree: 900,
  pidsMax: 32_768,
  pidsUsed: 100,
}
const input: NodeInput = {
  name: 'node-1',
  addresses: ['172.30.0.11', 'fd00:172:30::b'],
  port: 10250,
  podsMax: 110,
  machine,
  pressure,
  runtimeVersion: 'containerd://1.6',
  kubeletVersion: 'v1.36.0',
  runtime: [{ type: 'RuntimeReady', status: true, reason: '', message: '' }],
  images: [],
  now: Date.parse('2026-01-01T00:00:00Z'),
}

test('nodeStatus() of a node that is well', (t) => {
  const status = nodeStatus(input, undefined)
  t.true(isConditionTrue(status.conditions, 'Ready'))
  t.deepEqual(
    status.addresses?.map((a) => `${a.type} ${a.address}`),
    ['InternalIP 172.30.0.11', 'InternalIP fd00:172:30::b', 'Hostname node-1'],
  )
  t.like(status.capacity, { cpu: '4', memory: '8388608Ki', pods: '110' })
  t.is(allocatableOf(input).memory, `${8 * 1024 * 1024 - 100 * 1024}Ki`)
})
test('nodeStatus() says what is wrong, and leaves conditions of others alone', (t) => {
  const old = { ...nodeStatus(input, undefined) }
  old.conditions = [...(old.conditions ?? []), { type: 'NetworkUnavailable', status: 'False' }]
  const later = { ...input, now: input.now + 60_000 }
  const down = nodeStatus(
    { ...later, runtime: new Error('no socket'), pressure: { ...pressure, diskAvailableBytes: gi } },
    old,
  )
  t.like(findCondition(down.conditions, 'Ready'), {
    status: 'False',
    reason: 'KubeletNotReady',
    message: 'container runtime is down: no socket',
  })
  t.is(findCondition(down.conditions, 'DiskPressure')?.status, 'True')
  t.is(findCondition(down.conditions, 'NetworkUnavailable')?.status, 'False')
  t.is(findCondition(down.conditions, 'MemoryPressure')?.lastTransitionTime, '2026-01-01T00:00:00Z', 'unchanged since')
  const network = [{ type: 'NetworkReady', status: false, reason: 'NoCni', message: 'cni is not there' }]
  t.regex(
    findCondition(nodeStatus({ ...later, runtime: network }, old).conditions, 'Ready')?.message ?? '',
    /NetworkReady=false reason:NoCni message:cni is not there/,
  )
})

test('a node is registered, its heart beats in the lease, and its status is written only when it changed', async (t) => {
  const clock = new FakeClock()
  const client = new FakeClient({ clock })
  const runtime = new FakeRuntime(clock, ['busybox:1'])
  const options = {
    client,
    runtime,
    name: 'node-1',
    addresses: ['172.30.0.11', 'fd00::11'],
    port: 10250,
    labels: { zone: 'a' },
    podsMax: 110,
    machine,
    dataDir: tmpdir(),
    clock,
    log: silentLog,
  }
  const reporter = new NodeReporter(options)
  const stop = new AbortController()
  const running = Promise.all([reporter.run(stop.signal), reporter.keepLease(stop.signal)])
  await reporter.reported
  const node = await client.get(nodes, { name: 'node-1' })
  t.is(node.metadata.labels?.['kubernetes.io/hostname'], 'node-1')
  t.is(node.metadata.labels?.zone, 'a')
  await eventually(async () => (await client.list(leases, { namespace: 'kube-node-lease' })).items.length === 1)
  const first = (await client.list(leases)).items[0]?.spec.renewTime
  await eventually(async () => {
    clock.advance(1_000)
    return (await client.list(leases)).items[0]?.spec.renewTime !== first
  })
  const writes = () => client.calls.filter((c) => c.resource === 'nodes' && c.subresource === 'status').length
  t.is(writes(), 1)
  runtime.fail('status', 'gone', 1)
  await eventually(async () => {
    clock.advance(1_000)
    return writes() >= 3
  })
  const { status } = await client.get<Node>(nodes, { name: 'node-1' })
  t.true(isConditionTrue(status.conditions, 'Ready'))
  t.deepEqual(
    status.addresses?.map((a) => a.address),
    ['172.30.0.11', 'fd00::11', 'node-1'],
    'after several writes',
  )
  stop.abort()
  await running
})

test('certificates are asked for once, kept, and asked for again in time', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'weft-certificates-'))
  t.teardown(() => rmSync(dir, { recursive: true, force: true }))
  const clock = new FakeClock(Date.now())
  const client = new FakeClient({ clock })
  const signed: Pkcs10CertificateRequest[] = []
  const stop = new AbortController()
  const signing = (async () => {
    for await (const event of client.watch(certificateSigningRequests, {
      signal: stop.signal,
      sendInitialEvents: true,
    }))
      if (event.type === 'ADDED') await sign(client, event.object, signed, clock.now())
  })()
  const options = { dir, nodeName: 'node-1', addresses: ['172.30.0.11'], clock, log: silentLog }
  const certificates = new NodeCertificates(options)
  t.throws(() => certificates.client(), { message: /has not been admitted yet/ })
  const ensure = async (of: NodeCertificates, purpose: 'client' | 'server') => {
    let done = false
    const asking = of.ensure(purpose, client, stop.signal).then(() => (done = true))
    await eventually(() => {
      clock.advance(100)
      return done
    })
    await asking
  }
  await ensure(certificates, 'client')
  await ensure(certificates, 'server')
  t.is(signed[0]?.subject, 'O=system:nodes, CN=system:node:node-1')
  const names = signed[1]?.extensions.find((e) => e instanceof SubjectAlternativeNameExtension)
  t.deepEqual(
    names?.names.toJSON().map((n) => n.value),
    ['node-1', '172.30.0.11'],
  )
  t.regex(certificates.client().key, /BEGIN PRIVATE KEY/)

  const next = new NodeCertificates(options)
  t.is(next.client().cert.trim(), certificates.client().cert.trim())
  await ensure(next, 'client')
  t.is(signed.length, 2, 'nothing was asked for')
  let renewed = 0
  next.onChange(() => renewed++)
  const renewing = next.run(client, stop.signal)
  clock.advance(0.85 * 3_600_000)
  await eventually(() => {
    clock.advance(60_000 / 100)
    return renewed >= 2
  })
  t.not(next.client().cert, certificates.client().cert)
  writeFileSync(join(dir, 'kubelet-client.pem'), 'cut sho')
  t.is(new NodeCertificates(options).get('client'), undefined)
  t.deepEqual(readdirSync(dir).toSorted(), ['kubelet-client.pem', 'kubelet-server.pem'])
  stop.abort()
  await Promise.allSettled([signing, renewing])
})

/** Signs what is asked for with a key of its own, for an hour. */
async function sign(
  client: FakeClient,
  csr: CertificateSigningRequest,
  signed: Pkcs10CertificateRequest[],
  now: number,
) {
  const request = new Pkcs10CertificateRequest(Buffer.from(csr.spec.request, 'base64').toString())
  signed.push(request)
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }
  const keys = await crypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])
  const certificate = await X509CertificateGenerator.create({
    serialNumber: '01',
    subject: request.subject,
    issuer: 'CN=test',
    notBefore: new Date(now),
    notAfter: new Date(now + 3_600_000),
    publicKey: request.publicKey,
    signingKey: keys.privateKey,
    signingAlgorithm: algorithm,
  })
  const next = { ...csr, status: { certificate: Buffer.from(certificate.toString('pem')).toString('base64') } }
  await client.update(certificateSigningRequests, next, { subresource: 'status' })
}
