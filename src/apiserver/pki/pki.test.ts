import { X509Certificate } from 'node:crypto'
import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { FakeClock } from '#base/clock.ts'
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
