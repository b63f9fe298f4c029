import { createPrivateKey, webcrypto } from 'node:crypto'
import { isIP } from 'node:net'
import { serialNumber } from '#base/x509/serial.ts'
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  type Extension,
  KeyUsageFlags,
  KeyUsagesExtension,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509Certificate,
  X509CertificateGenerator,
} from '#base/x509/x509.ts'

/** A certificate and its private key, both PEM (the key as PKCS #8). */
export interface CertificateAndKey {
  readonly certificate: string
  readonly key: string
}

export interface Subject {
  readonly commonName: string
  readonly organizations?: readonly string[]
}

export interface LeafOptions {
  readonly subject: Subject
  readonly usage: 'server' | 'client'
  /** Addresses and DNS names a server answers to. */
  readonly names?: readonly string[]
  readonly now: number
  readonly lifeMs?: number
}

const dayMs = 86_400_000
/** A machine whose clock is a little behind must still take a fresh certificate. */
const backdateMs = 5 * 60_000
const caDays = 3650
/** Of a leaf, where nothing else is said. */
const leafLifeMs = 365 * dayMs

const algorithm = { name: 'ECDSA', namedCurve: 'P-256' } as const
const signing = { name: 'ECDSA', hash: 'SHA-256' } as const

const freshKeys = (): Promise<webcrypto.CryptoKeyPair> =>
  webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']) as Promise<webcrypto.CryptoKeyPair>

async function keyPem(key: webcrypto.CryptoKey): Promise<string> {
  const der = await webcrypto.subtle.exportKey('pkcs8', key)
  return createPrivateKey({ key: Buffer.from(der), format: 'der', type: 'pkcs8' })
    .export({ format: 'pem', type: 'pkcs8' })
    .toString()
}

function importKey(pem: string): Promise<webcrypto.CryptoKey> {
  const der = createPrivateKey(pem).export({ format: 'der', type: 'pkcs8' })
  return webcrypto.subtle.importKey('pkcs8', new Uint8Array(der), algorithm, true, ['sign'])
}

const distinguishedName = ({ commonName, organizations = [] }: Subject): Record<string, string[]>[] => [
  ...organizations.map((organization) => ({ O: [organization] })),
  { CN: [commonName] },
]

/** A self-signed certificate authority on P-256. */
export async function createAuthority(commonName: string, now: number): Promise<CertificateAndKey> {
  const keys = await freshKeys()
  const certificate = await X509CertificateGenerator.createSelfSigned({
    serialNumber: serialNumber(),
    name: distinguishedName({ commonName }),
    notBefore: new Date(now - backdateMs),
    notAfter: new Date(now + caDays * dayMs),
    keys,
    signingAlgorithm: signing,
    extensions: [
      new BasicConstraintsExtension(true, undefined, true),
      new KeyUsagesExtension(
        KeyUsageFlags.digitalSignature | KeyUsageFlags.keyEncipherment | KeyUsageFlags.keyCertSign,
        true,
      ),
      await SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  })
  return { certificate: `${certificate.toString('pem')}\n`, key: await keyPem(keys.privateKey) }
}

/** A key and a certificate for it, signed by the authority. */
export async function createLeaf(authority: CertificateAndKey, options: LeafOptions): Promise<CertificateAndKey> {
  const issuer = new X509Certificate(authority.certificate)
  const keys = await freshKeys()
  const names = options.names ?? []
  const extensions: Extension[] = [
    new BasicConstraintsExtension(false, undefined, true),
    new KeyUsagesExtension(KeyUsageFlags.digitalSignature | KeyUsageFlags.keyEncipherment, true),
    new ExtendedKeyUsageExtension([
      options.usage === 'server' ? ExtendedKeyUsage.serverAuth : ExtendedKeyUsage.clientAuth,
    ]),
    await AuthorityKeyIdentifierExtension.create(issuer.publicKey),
  ]
  if (names.length > 0) {
    extensions.push(
      new SubjectAlternativeNameExtension(names.map((value) => ({ type: isIP(value) ? 'ip' : 'dns', value }))),
    )
  }
  const certificate = await X509CertificateGenerator.create({
    serialNumber: serialNumber(),
    subject: distinguishedName(options.subject),
    issuer: issuer.subjectName,
    notBefore: new Date(options.now - backdateMs),
    notAfter: new Date(options.now + (options.lifeMs ?? leafLifeMs)),
    publicKey: keys.publicKey,
    signingKey: await importKey(authority.key),
    signingAlgorithm: signing,
    extensions,
  })
  return { certificate: `${certificate.toString('pem')}\n`, key: await keyPem(keys.privateKey) }
}
