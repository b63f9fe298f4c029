import { createPrivateKey, webcrypto } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { serialNumber } from '#base/x509/serial.ts'
import { X509CertificateGenerator } from '#base/x509/x509.ts'

const algorithm = { name: 'ECDSA', namedCurve: 'P-256' } as const
const years = 10

/**
 * A certificate of nobody, with its key: what stands first in the list of a socket that no Gateway has yet, since HAProxy
 * wants one there. Made once for each directory.
 */
export async function placeholderAt(path: string): Promise<string> {
  if (existsSync(path)) return readFileSync(path, 'utf8').trim()
  const keys = (await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])) as webcrypto.CryptoKeyPair
  const now = Date.now()
  const certificate = await X509CertificateGenerator.createSelfSigned({
    serialNumber: serialNumber(),
    name: 'CN=no-gateway.invalid',
    notBefore: new Date(now - 86_400_000),
    notAfter: new Date(now + years * 365 * 86_400_000),
    signingAlgorithm: { name: 'ECDSA', hash: 'SHA-256' },
    keys,
  })
  const der = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey))
  const key = createPrivateKey({ key: der, format: 'der', type: 'pkcs8' }).export({ format: 'pem', type: 'pkcs8' })
  const text = `${certificate.toString('pem').trim()}\n${String(key).trim()}`
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
  writeFileSync(path, `${text}\n`, { mode: 0o600 })
  return text
}
