import { X509Certificate } from 'node:crypto'
import { mkdtempSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { eventually } from '#base/async/eventually.ts'
import { FakeClock } from '#base/clock.ts'
import { silentLog } from '#base/log/log.ts'
import { loadOrCreatePki } from './pki.ts'

const made: string[] = []
test.after.always(() => {
  for (const path of made) rmSync(path, { recursive: true })
})
function directory(): string {
  const path = mkdtempSync(join(tmpdir(), 'weft-pki-'))
  made.push(path)
  return path
}
const options = (path: string, clock = new FakeClock()) => ({
  directory: path,
  names: ['172.30.0.1', 'fd00:172:30::1', 'weft.example.org'],
  serviceAddresses: ['10.96.0.1', 'fd00:10:96::1'],
  clock,
})
const dayMs = 86_400_000

test('loadOrCreatePki() makes everything once, readable by its owner only, and finds it again', async (t) => {
  const path = directory()
  const first = await loadOrCreatePki(options(path))
  const again = await loadOrCreatePki(options(path))
  t.deepEqual(again.serving, first.serving)
  t.is(again.bootstrapToken, first.bootstrapToken)
  t.is(again.serviceAccountKey.keyId, first.serviceAccountKey.keyId)
  t.regex(first.bootstrapToken, /^[a-z0-9]{6}\.[a-z0-9]{16}$/)
  t.is(statSync(path).mode & 0o777, 0o700)
  for (const file of readdirSync(path)) t.is(statSync(join(path, file)).mode & 0o777, 0o600, file)
})

test('certificates say who they are, for what, and where', async (t) => {
  const pki = await loadOrCreatePki(options(directory()))
  const authority = new X509Certificate(pki.authority.certificate)
  const read = (pem: string) => new X509Certificate(pem)
  t.true(authority.ca)
  const serving = read(pki.serving.certificate)
  t.true(serving.verify(authority.publicKey))
  for (const ip of ['127.0.0.1', '10.96.0.1', 'fd00:10:96::1', '172.30.0.1', 'fd00:172:30::1']) {
    t.not(serving.checkIP(ip), undefined, ip)
  }
  for (const name of ['localhost', 'kubernetes', 'kubernetes.default.svc.cluster.local', 'weft.example.org']) {
    t.is(serving.checkHost(name), name)
  }
  t.is(read(pki.admin.certificate).subject, 'O=system:masters\nCN=kubernetes-admin')
  t.is(read(pki.kubeletClient.certificate).subject, 'CN=kube-apiserver-kubelet-client')
  t.deepEqual(serving.keyUsage, ['1.3.6.1.5.5.7.3.1'])
  t.deepEqual(read(pki.admin.certificate).keyUsage, ['1.3.6.1.5.5.7.3.2'])
})

test('a leaf near its end, without a name it needs or of another authority is made anew; the authority stays', async (t) => {
  const path = directory()
  const clock = new FakeClock()
  const first = await loadOrCreatePki(options(path, clock))
  const named = await loadOrCreatePki({ ...options(path, clock), names: ['172.31.0.1'] })
  t.not(named.serving.certificate, first.serving.certificate)
  t.is(named.admin.certificate, first.admin.certificate)
  clock.advance(330 * dayMs)
  const later = await loadOrCreatePki({ ...options(path, clock), names: ['172.31.0.1'] })
  t.not(later.admin.certificate, first.admin.certificate)
  t.is(later.authority.certificate, first.authority.certificate)
  const other = await loadOrCreatePki(options(directory(), clock))
  writeFileSync(join(path, 'admin.crt'), other.admin.certificate)
  writeFileSync(join(path, 'admin.key'), other.admin.key)
  const healed = await loadOrCreatePki({ ...options(path, clock), names: ['172.31.0.1'] })
  t.not(healed.admin.certificate, other.admin.certificate)
})

test('a certificate whose key was lost half-way is made anew', async (t) => {
  const path = directory()
  const first = await loadOrCreatePki(options(path))
  writeFileSync(join(path, 'admin.key'), first.serving.key)
  const healed = await loadOrCreatePki(options(path))
  t.not(healed.admin.certificate, first.admin.certificate)
})

test('while the server runs, leaves are made anew before they end; who uses them is told', async (t) => {
  const path = directory()
  const clock = new FakeClock()
  const began = clock.now()
  const pki = await loadOrCreatePki(options(path, clock))
  const first = { serving: pki.serving, admin: pki.admin, kubeletClient: pki.kubeletClient }
  const told: string[] = []
  pki.onRenewed((leaf) => told.push(leaf))
  const stop = new AbortController()
  const running = pki.keepFresh(stop.signal, silentLog)
  // Looked at every hour, and nothing to do for ten months.
  clock.advance(300 * dayMs)
  const { promise: turned, resolve } = Promise.withResolvers<void>()
  setImmediate(resolve)
  await turned
  t.deepEqual(told, [])
  t.is(pki.serving.certificate, first.serving.certificate)
  // No further than the look after a sixth of the life is left, however long making them takes.
  const due = began + (365 * 5 * dayMs) / 6 + dayMs
  await eventually(() => {
    if (clock.now() < due) clock.advance(dayMs / 4)
    return told.length === 3
  })
  t.deepEqual(told.toSorted(), ['admin', 'kubeletClient', 'serving'])
  const end = (pem: string) => new X509Certificate(pem).validToDate.getTime()
  t.true(clock.now() < end(first.serving.certificate), 'before the old one ended')
  for (const leaf of ['serving', 'admin', 'kubeletClient'] as const) {
    t.true(end(pki[leaf].certificate) > end(first[leaf].certificate) + 200 * dayMs, leaf)
    t.true(new X509Certificate(pki[leaf].certificate).verify(new X509Certificate(pki.authority.certificate).publicKey))
  }
  stop.abort()
  await t.throwsAsync(running, { name: 'AbortError' })
  const again = await loadOrCreatePki(options(path, clock))
  t.is(again.serving.certificate, pki.serving.certificate, 'kept in the files')
})

test('a renewal that cannot be written is said, and tried again', async (t) => {
  const path = directory()
  const clock = new FakeClock()
  const pki = await loadOrCreatePki(options(path, clock))
  const { certificate } = pki.serving
  const wrong: string[] = []
  const log = { ...silentLog, error: (_: object, words?: string) => void wrong.push(words ?? '') }
  const stop = new AbortController()
  const running = pki.keepFresh(stop.signal, log)
  renameSync(path, `${path}.away`)
  clock.advance(310 * dayMs)
  await eventually(() => {
    clock.advance(3_600_000)
    return wrong.length > 0
  })
  t.is(wrong[0], 'cannot renew the certificates')
  t.is(pki.serving.certificate, certificate, 'the old one goes on')
  renameSync(`${path}.away`, path)
  await eventually(() => {
    clock.advance(1_000)
    return pki.serving.certificate !== certificate
  })
  stop.abort()
  await t.throwsAsync(running, { name: 'AbortError' })
})
