import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  randomInt,
  X509Certificate,
} from 'node:crypto'
import { mkdirSync } from 'node:fs'
import { isIP } from 'node:net'
import { type Clock, systemClock } from '#base/clock.ts'
import type { CertificateAndKey, LeafOptions } from './certificate.ts'
import { readIfPresent, writeSecret } from './files.ts'

export interface PkiOptions {
  /** Made with mode 0700 if need be; every file in it 0600. */
  readonly directory: string
  /** Further addresses and DNS names of the API server, beside loopback and the Service's names. */
  readonly names: readonly string[]
  /** The `kubernetes` Service's addresses. */
  readonly serviceAddresses: readonly string[]
  readonly clock?: Clock
}

/** The key with which service-account tokens are signed (ES256). */
export interface ServiceAccountKey {
  /** What a token's header names as `kid`: the public key's SHA-256, base64url. */
  readonly keyId: string
  readonly privateKey: KeyObject
  readonly publicKey: KeyObject
}

/** A leaf with less left than this is made anew at start. */
const renewDays = 60

/** Making certificates needs 20 MB of library and 70 ms to load it; most starts find everything made. */
const maker = () => import('./certificate.ts')

/** Everything that proves who is who in one cluster. */
export interface Pki {
  readonly authority: CertificateAndKey
  readonly serving: CertificateAndKey
  /** CN=kubernetes-admin, O=system:masters. */
  readonly admin: CertificateAndKey
  /** How the API server shows itself to kubelets. */
  readonly kubeletClient: CertificateAndKey
  readonly serviceAccountKey: ServiceAccountKey
  /** `abcdef.0123456789abcdef`: lets a machine ask for its node's certificate, and nothing else. */
  readonly bootstrapToken: string
}

const alwaysNames = [
  'localhost',
  'kubernetes',
  'kubernetes.default',
  'kubernetes.default.svc',
  'kubernetes.default.svc.cluster.local',
  '127.0.0.1',
  '::1',
]

export const kubeletClientName = 'kube-apiserver-kubelet-client'

/**
 * Loads the cluster's keys and certificates, making what is missing, near its end, signed by another authority or without
 * a name it needs. The authority and the service-account key are never made anew while their files are there.
 */
export async function loadOrCreatePki(options: PkiOptions): Promise<Pki> {
  const { directory, clock = systemClock } = options
  mkdirSync(directory, { recursive: true, mode: 0o700 })
  const now = clock.now()
  const authority =
    loadPair(directory, 'ca') ?? storePair(directory, 'ca', await (await maker()).createAuthority('kubernetes-ca', now))
  const leaf = async (name: string, wanted: LeafOptions): Promise<CertificateAndKey> => {
    const present = loadPair(directory, name)
    if (present && stillGood(present, authority, wanted)) return present
    return storePair(directory, name, await (await maker()).createLeaf(authority, wanted))
  }
  return {
    authority,
    serving: await leaf('apiserver', {
      subject: { commonName: 'kube-apiserver' },
      usage: 'server',
      names: [...new Set([...alwaysNames, ...options.serviceAddresses, ...options.names])],
      now,
    }),
    admin: await leaf('admin', {
      subject: { commonName: 'kubernetes-admin', organizations: ['system:masters'] },
      usage: 'client',
      now,
    }),
    kubeletClient: await leaf('apiserver-kubelet-client', {
      subject: { commonName: kubeletClientName },
      usage: 'client',
      now,
    }),
    serviceAccountKey: loadServiceAccountKey(directory),
    bootstrapToken: loadBootstrapToken(directory),
  }
}

function loadPair(directory: string, name: string): CertificateAndKey | undefined {
  const certificate = readIfPresent(directory, `${name}.crt`)
  const key = readIfPresent(directory, `${name}.key`)
  return certificate === undefined || key === undefined ? undefined : { certificate, key }
}

function storePair(directory: string, name: string, pair: CertificateAndKey): CertificateAndKey {
  // The key first: a certificate without its key is the half that would look whole.
  writeSecret(directory, `${name}.key`, pair.key)
  writeSecret(directory, `${name}.crt`, pair.certificate)
  return pair
}

function stillGood(pair: CertificateAndKey, authority: CertificateAndKey, wanted: LeafOptions): boolean {
  const certificate = new X509Certificate(pair.certificate)
  return (
    certificate.validToDate.getTime() - wanted.now > renewDays * 86_400_000 &&
    certificate.verify(new X509Certificate(authority.certificate).publicKey) &&
    certificate.checkPrivateKey(createPrivateKey(pair.key)) &&
    (wanted.names ?? []).every((name) =>
      isIP(name) ? certificate.checkIP(name) !== undefined : certificate.checkHost(name) !== undefined,
    )
  )
}

function loadServiceAccountKey(directory: string): ServiceAccountKey {
  let pem = readIfPresent(directory, 'service-account.key')
  if (pem === undefined) {
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    pem = privateKey.export({ format: 'pem', type: 'pkcs8' }).toString()
    writeSecret(directory, 'service-account.key', pem)
  }
  const privateKey = createPrivateKey(pem)
  const publicKey = createPublicKey(privateKey)
  const keyId = createHash('sha256')
    .update(publicKey.export({ format: 'der', type: 'spki' }))
    .digest('base64url')
  return { keyId, privateKey, publicKey }
}

const tokenLetters = '0123456789abcdefghijklmnopqrstuvwxyz'
const randomText = (length: number): string =>
  Array.from({ length }, () => tokenLetters[randomInt(tokenLetters.length)]).join('')

function loadBootstrapToken(directory: string): string {
  const present = readIfPresent(directory, 'bootstrap-token')?.trim()
  if (present !== undefined) return present
  const token = `${randomText(6)}.${randomText(16)}`
  writeSecret(directory, 'bootstrap-token', `${token}\n`)
  return token
}
