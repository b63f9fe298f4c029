import { createPrivateKey, webcrypto } from 'node:crypto'
import { serialNumber } from '#base/x509/serial.ts'
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  ExtendedKeyUsageExtension,
  type Extension,
  KeyUsageFlags,
  KeyUsagesExtension,
  SubjectAlternativeNameExtension,
  X509Certificate,
  X509CertificateGenerator,
} from '#base/x509/x509.ts'
import type { Asked } from './request.ts'

/** The cluster's certificate authority, PEM. */
export interface SigningKey {
  readonly certificate: string
  readonly key: string
}

/** A requester's clock may be a little behind (upstream's 5 minutes). */
const backdateMs = 5 * 60_000
/** Upstream's --cluster-signing-duration. */
const durationMaxMs = 8760 * 3_600_000
const durationMinMs = 600_000

const keyUsages: Readonly<Record<string, number>> = {
  signing: KeyUsageFlags.digitalSignature,
  'digital signature': KeyUsageFlags.digitalSignature,
  'content commitment': KeyUsageFlags.nonRepudiation,
  'key encipherment': KeyUsageFlags.keyEncipherment,
  'key agreement': KeyUsageFlags.keyAgreement,
  'data encipherment': KeyUsageFlags.dataEncipherment,
  'encipher only': KeyUsageFlags.encipherOnly,
  'decipher only': KeyUsageFlags.decipherOnly,
}

const extendedUsages: Readonly<Record<string, string>> = {
  any: '2.5.29.37.0',
  'server auth': '1.3.6.1.5.5.7.3.1',
  'client auth': '1.3.6.1.5.5.7.3.2',
  'code signing': '1.3.6.1.5.5.7.3.3',
  'email protection': '1.3.6.1.5.5.7.3.4',
  's/mime': '1.3.6.1.5.5.7.3.4',
  'ipsec end system': '1.3.6.1.5.5.7.3.5',
  'ipsec tunnel': '1.3.6.1.5.5.7.3.6',
  'ipsec user': '1.3.6.1.5.5.7.3.7',
  timestamping: '1.3.6.1.5.5.7.3.8',
  'ocsp signing': '1.3.6.1.5.5.7.3.9',
}

function keyAlgorithm(key: ReturnType<typeof createPrivateKey>) {
  switch (key.asymmetricKeyType) {
    case 'ec': {
      const curves: Readonly<Record<string, string>> = { prime256v1: 'P-256', secp384r1: 'P-384', secp521r1: 'P-521' }
      const namedCurve = curves[key.asymmetricKeyDetails?.namedCurve ?? '']
      if (namedCurve === undefined) throw new Error('Cannot sign with the authority’s key: unknown curve')
      return { import: { name: 'ECDSA', namedCurve }, sign: { name: 'ECDSA', hash: 'SHA-256' } }
    }
    case 'rsa': {
      const rsa = { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' }
      return { import: rsa, sign: rsa }
    }
    case 'ed25519':
      return { import: { name: 'Ed25519' }, sign: { name: 'Ed25519' } }
    default:
      throw new Error(`Cannot sign with the authority’s key: ${key.asymmetricKeyType} keys are not supported`)
  }
}

/** Signs what was asked for, with the usages and for the time that the request names. Returns PEM. */
export async function sign(
  authority: SigningKey,
  asked: Asked,
  usages: readonly string[],
  expirationSeconds: number | undefined,
  now: number,
): Promise<string> {
  const issuer = new X509Certificate(authority.certificate)
  const key = createPrivateKey(authority.key)
  const algorithm = keyAlgorithm(key)
  const der = new Uint8Array(key.export({ format: 'der', type: 'pkcs8' }))
  const signingKey = await webcrypto.subtle.importKey('pkcs8', der, algorithm.import, false, ['sign'])
  const wanted = expirationSeconds === undefined ? durationMaxMs : expirationSeconds * 1000
  const durationMs = Math.min(durationMaxMs, Math.max(durationMinMs, wanted))
  // A certificate does not outlive its authority.
  const notAfter = Math.min(now + durationMs, issuer.notAfter.getTime())
  const extensions: Extension[] = [
    new BasicConstraintsExtension(false, undefined, true),
    await AuthorityKeyIdentifierExtension.create(issuer.publicKey),
  ]
  const flags = usages.reduce((all, usage) => all | (keyUsages[usage] ?? 0), 0)
  if (flags !== 0) extensions.push(new KeyUsagesExtension(flags, true))
  const extended = [...new Set(usages.flatMap((usage) => extendedUsages[usage] ?? []))]
  if (extended.length > 0) extensions.push(new ExtendedKeyUsageExtension(extended))
  const names = asked.request.extensions.find((e) => e instanceof SubjectAlternativeNameExtension)
  if (names !== undefined) extensions.push(names)
  const certificate = await X509CertificateGenerator.create({
    serialNumber: serialNumber(),
    subject: asked.subject,
    issuer: issuer.subjectName,
    notBefore: new Date(now - backdateMs),
    notAfter: new Date(notAfter),
    publicKey: asked.request.publicKey,
    signingKey,
    signingAlgorithm: algorithm.sign,
    extensions,
  })
  return `${certificate.toString('pem')}\n`
}
