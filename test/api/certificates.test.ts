import { generateKeyPairSync } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { type ClientHttp2Session, connect, type IncomingHttpHeaders } from 'node:http2'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect as connectTls, type TLSSocket } from 'node:tls'
import test from 'ava'
import type { CertificateSigningRequest } from '#api/gen/certificates-v1.ts'
import { kinds } from '#api/scheme.ts'
import { createApiServer } from '#apiserver/apiserver.ts'
import { createAuthority, createLeaf } from '#apiserver/pki/certificate.ts'
import { loadOrCreatePki } from '#apiserver/pki/pki.ts'
import { type Answer, startTrial, type Trial } from '#apiserver/trial.ts'
import { eventually } from '#base/async/eventually.ts'
import { systemClock } from '#base/clock.ts'
import { silentLog } from '#base/log/log.ts'
import { FakeClient } from '#client/fake.ts'
import { readMachine } from '#kubelet/node/machine.ts'
import { FakeRuntime } from '#kubelet/runtime/fake.ts'
import { KubeletMetrics } from '#kubelet/server/metrics.ts'
import { KubeletServer } from '#kubelet/server/server.ts'
import { openMemoryStore } from '#store/memory/memory.ts'
import { freePort } from '../free-port.ts'

/** CertificateSigningRequests are decided and answered by PATCH as well as by PUT; the server's own certificates are renewed. */
const all = '/apis/certificates.k8s.io/v1/certificatesigningrequests'
const merge = { 'content-type': 'application/merge-patch+json' }
const strategic = { 'content-type': 'application/strategic-merge-patch+json' }
const json = { 'content-type': 'application/json-patch+json' }

/** Nobody reads what is in it before a signer does: only its envelope is looked at. */
const pem = `-----BEGIN CERTIFICATE REQUEST-----\n${generateKeyPairSync('ed25519').publicKey.export({ format: 'der', type: 'spki' }).toString('base64')}\n-----END CERTIFICATE REQUEST-----\n`

async function request(trial: Trial, name: string): Promise<void> {
  const spec = {
    request: Buffer.from(pem).toString('base64'),
    signerName: 'example.com/ours',
    usages: ['digital signature', 'client auth'],
  }
  const made = { apiVersion: 'certificates.k8s.io/v1', kind: 'CertificateSigningRequest', metadata: { name }, spec }
  const { status, text } = await trial.call('POST', all, made)
  if (status !== 201) throw new Error(text)
}

const conditionsOf = ({ object }: Answer): string[] =>
  ((object as unknown as CertificateSigningRequest).status.conditions ?? []).map((c) => `${c.type} ${c.status}`)
const approved = { type: 'Approved', status: 'True', reason: 'Tested', message: 'by a patch' }
const denied = { ...approved, type: 'Denied' }

test('/approval by PATCH, in each form, changes the decision and nothing else', async (t) => {
  await using trial = await startTrial({ kinds })
  for (const [name, headers, body] of [
    ['merge', merge, { status: { conditions: [approved] }, spec: { usages: ['any'] } }],
    ['strategic', strategic, { status: { conditions: [approved] } }],
    ['json', json, [{ op: 'add', path: '/status/conditions', value: [approved] }]],
  ] as const) {
    await request(trial, name)
    const answer = await trial.call('PATCH', `${all}/${name}/approval`, body, headers)
    t.is(answer.status, 200, answer.text)
    t.deepEqual(conditionsOf(answer), ['Approved True'], name)
    const kept = await trial.call('GET', `${all}/${name}`)
    t.deepEqual(conditionsOf(kept), ['Approved True'])
    t.deepEqual((kept.object as unknown as CertificateSigningRequest).spec.usages, ['digital signature', 'client auth'])
  }
  const undone = await trial.call('PATCH', `${all}/merge/approval`, { status: { conditions: [] } }, merge)
  t.is(undone.status, 422)
  const also = [{ op: 'add', path: '/status/conditions/-', value: denied }]
  const both = await trial.call('PATCH', `${all}/json/approval`, also, json)
  t.is(both.status, 422)
  t.regex(both.text, /mutually exclusive/)
})

test('/approval by PATCH: an old version is a conflict, an absent request is not found, a dry run writes nothing', async (t) => {
  await using trial = await startTrial({ kinds })
  await request(trial, 'a')
  const decision = { status: { conditions: [approved] } }
  const old = { ...decision, metadata: { resourceVersion: '1' } }
  t.is((await trial.call('PATCH', `${all}/a/approval`, old, merge)).status, 409)
  t.is((await trial.call('PATCH', `${all}/b/approval`, decision, merge)).status, 404)
  const dry = await trial.call('PATCH', `${all}/a/approval?dryRun=All`, decision, merge)
  t.deepEqual(conditionsOf(dry), ['Approved True'])
  t.deepEqual(conditionsOf(await trial.call('GET', `${all}/a`)), [])
  t.is((await trial.call('PATCH', `${all}/a/approval`, '{"status":', merge)).status, 400)
})

test('decisions that come at once, by PATCH, all hold', async (t) => {
  await using trial = await startTrial({ kinds })
  await request(trial, 'a')
  const label = (name: string) => ({ metadata: { labels: { [name]: 'x' } } })
  const answers = await Promise.all([
    trial.call('PATCH', `${all}/a/approval`, { status: { conditions: [approved] } }, merge),
    ...['b', 'c', 'd'].map((name) => trial.call('PATCH', `${all}/a`, label(name), merge)),
  ])
  t.deepEqual(
    answers.map(({ status }) => status),
    [200, 200, 200, 200],
  )
  const kept = await trial.call('GET', `${all}/a`)
  t.deepEqual(conditionsOf(kept), ['Approved True'])
  t.deepEqual(kept.object.metadata.labels, { b: 'x', c: 'x', d: 'x' })
})

test('/status by PATCH: the certificate comes once, and conditions of others stay', async (t) => {
  await using trial = await startTrial({ kinds })
  await request(trial, 'a')
  await trial.call('PATCH', `${all}/a/approval`, { status: { conditions: [approved] } }, merge)
  const leaf = () => createLeaf(trial.pki.authority, { subject: { commonName: 'x' }, usage: 'client', now: Date.now() })
  const issue = async () => ({ status: { certificate: Buffer.from((await leaf()).certificate).toString('base64') } })
  const nonsense = { status: { certificate: Buffer.from('no certificate').toString('base64') } }
  t.is((await trial.call('PATCH', `${all}/a/status`, nonsense, merge)).status, 422)
  const issued = await issue()
  const answer = await trial.call('PATCH', `${all}/a/status`, issued, merge)
  t.is(answer.status, 200, answer.text)
  t.like(answer.object, { status: issued.status })
  t.deepEqual(conditionsOf(answer), ['Approved True'])
  t.is((await trial.call('PATCH', `${all}/a/status`, await issue(), merge)).status, 422, 'it is not exchanged')
})

test('a serving certificate near its end is another one for new connections, and the old connection goes on', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'weft-renewal-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  // Renewed when a sixth is left: after five seconds.
  const pki = await loadOrCreatePki({ directory, names: [], serviceAddresses: [], lifeMs: 6_000 })
  await using store = openMemoryStore()
  const api = await createApiServer({
    store,
    kinds,
    pki,
    serviceCidrs: ['10.96.0.0/16'],
    servers: [{ address: '172.30.0.1', port: 6443 }],
    staticTokens: new Map(),
  })
  const port = await api.listen({ host: '127.0.0.1', port: 0 })
  /** A connection whose both ends are checked, with what the server showed and what it answers. */
  const open = async () => {
    const { certificate: cert, key } = pki.admin
    const ca = pki.authority.certificate
    const session = connect(`https://127.0.0.1:${port}`, { ca, cert, key })
    session.on('error', () => {})
    await once(session, 'connect')
    const shown = (session.socket as TLSSocket).getPeerX509Certificate()?.fingerprint256 ?? ''
    return { session, shown, ask: (path: string) => statusOf(session, path) }
  }
  /** One that is let in. Where the machine is slow there may be a moment without: that is forgiven. */
  const letIn = (holds: (shown: string) => boolean) =>
    eventually(
      async () => {
        const next = await open()
        if (holds(next.shown) && (await next.ask('/api/v1/namespaces')) === 200) return next
        next.session.destroy()
        return false
      },
      { withinMs: 30_000, pauseMs: 50 },
    )
  try {
    const first = await letIn(() => true)
    const second = await letIn((shown) => shown !== first.shown)
    t.true([200, 401].includes(await first.ask('/livez')), 'the connection of before is not cut')
    // Its certificate ends all the same.
    await eventually(async () => (await first.ask('/api/v1/namespaces')) === 401, { withinMs: 15_000, pauseMs: 50 })
    for (const { session } of [first, second]) session.destroy()
  } finally {
    await api.close()
  }
})

test('a kubelet shows a renewed certificate to new connections', async (t) => {
  // Nobody else's, so that nobody takes the port before it is listened on.
  const host = '127.0.0.77'
  const now = Date.now()
  const authority = await createAuthority('test', now)
  const pair = async () => {
    const subject = { commonName: 'system:node:node-1', organizations: ['system:nodes'] }
    const { certificate, key } = await createLeaf(authority, { subject, usage: 'server', names: [host], now })
    return { cert: certificate, key }
  }
  const port = await freePort(host)
  const server = new KubeletServer({
    host,
    port,
    certificate: await pair(),
    clientAuthority: authority.certificate,
    nodeName: 'node-1',
    client: new FakeClient({ clock: systemClock }),
    runtime: new FakeRuntime(systemClock, []),
    pods: { list: () => [], find: () => undefined },
    metrics: new KubeletMetrics('node-1'),
    machine: readMachine(),
    clock: systemClock,
    log: silentLog,
  })
  const stop = new AbortController()
  const running = server.run(stop.signal)
  const open = async () => {
    const socket = connectTls({ host, port, ca: authority.certificate })
    await once(socket, 'secureConnect')
    return { socket, shown: socket.getPeerX509Certificate()?.fingerprint256 }
  }
  try {
    const first = await eventually(open)
    server.renew(await pair())
    const second = await open()
    t.not(second.shown, first.shown)
    first.socket.write('GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n')
    const [answer] = (await once(first.socket, 'data')) as [Buffer]
    t.regex(answer.toString(), /^HTTP\/1\.1 200 /, 'the connection of before goes on')
    for (const { socket } of [first, second]) socket.destroy()
  } finally {
    stop.abort()
    await running
  }
})

async function statusOf(session: ClientHttp2Session, path: string): Promise<number> {
  const stream = session.request({ ':path': path })
  stream.resume()
  const [headers] = (await once(stream, 'response')) as [IncomingHttpHeaders]
  return Number(headers[':status'])
}
