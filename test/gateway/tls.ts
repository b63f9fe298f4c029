import { createPrivateKey, webcrypto } from 'node:crypto'
import { serialNumber } from '#base/x509/serial.ts'
import { SubjectAlternativeNameExtension, X509CertificateGenerator } from '#base/x509/x509.ts'
import type { Certificate } from '#gateway/engine.ts'

const algorithm = { name: 'ECDSA', namedCurve: 'P-256' } as const

/** A certificate that signs itself, for one name. */
export async function certificate(id: string, name: string): Promise<Certificate> {
  const keys = (await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])) as webcrypto.CryptoKeyPair
  const made = await X509CertificateGenerator.createSelfSigned({
    serialNumber: serialNumber(),
    name: `CN=${name}`,
    notBefore: new Date(Date.now() - 3_600_000),
    notAfter: new Date(Date.now() + 86_400_000),
    signingAlgorithm: { name: 'ECDSA', hash: 'SHA-256' },
    keys,
    extensions: [new SubjectAlternativeNameExtension([{ type: 'dns', value: name }])],
  })
  const der = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey))
  const key = createPrivateKey({ key: der, format: 'der', type: 'pkcs8' })
  return { id, certPem: made.toString('pem'), keyPem: String(key.export({ format: 'pem', type: 'pkcs8' })) }
}
