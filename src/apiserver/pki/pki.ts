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
import { delay } from '#base/async/delay.ts'
import { type Clock, systemClock } from '#base/clock.ts'
import type { Log } from '#base/log/log.ts'
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
  /** How long certificates are good for, milliseconds; a year if absent. The authority's ten years stay. */
  readonly lifeMs?: number
}

/** The key with which service-account tokens are signed (ES256). */
export interface ServiceAccountKey {
  /** What a token's header names as `kid`: the public key's SHA-256, base64url. */
  readonly keyId: string
  readonly privateKey: KeyObject
  readonly publicKey: KeyObject
}

/** A leaf with less left than this share of its life is made anew. */
const renewShare = 1 / 6
const yearMs = 365 * 86_400_000
/** How often is looked at least: the machine may have slept, or its clock been set. */
const lookMs = 3_600_000
/** And at most: a disk that is full now may be so for a while. */
const lookAgainMs = 500

/** Making certificates needs 20 MB of library and 70 ms to load it; most starts find everything made. */
const maker = () => import('./certificate.ts')

/** What the authority has signed for the server itself. */
export type LeafName = 'serving' | 'admin' | 'kubeletClient'

/** Everything that proves who is who in one cluster. A leaf is the newest there is: whoever uses it asks each time. */
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
  /** Called for each leaf that was made anew. */
  onRenewed(listener: (leaf: LeafName) => void): void
  /** Makes leaves anew before they end, until `signal` aborts. */
  keepFresh(signal: AbortSignal, log: Log): Promise<void>
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
  const authority =
    loadPair(directory, 'ca') ??
    storePair(directory, 'ca', await (await maker()).createAuthority('kubernetes-ca', clock.now()))
  const leaves = new Leaves(options, authority)
  await leaves.renew()
  return {
    authority,
    get serving() {
      return leaves.get('serving')
    },
    get admin() {
      return leaves.get('admin')
    },
    get kubeletClient() {
      return leaves.get('kubeletClient')
    },
    serviceAccountKey: loadServiceAccountKey(directory),
    bootstrapToken: loadBootstrapToken(directory),
    onRenewed: (listener) => leaves.listeners.add(listener),
    keepFresh: (signal, log) => leaves.keepFresh(signal, log),
  }
}

type Wanted = Omit<LeafOptions, 'now' | 'lifeMs'> & { readonly file: string }

/** The leaves on disk, and those in use. */
class Leaves {
  readonly listeners = new Set<(leaf: LeafName) => void>()
  readonly #directory: string
  readonly #clock: Clock
  readonly #lifeMs: number
  readonly #authority: CertificateAndKey
  readonly #wanted: Readonly<Record<LeafName, Wanted>>
  readonly #present = new Map<LeafName, CertificateAndKey>()

  constructor(options: PkiOptions, authority: CertificateAndKey) {
    this.#directory = options.directory
    this.#clock = options.clock ?? systemClock
    this.#lifeMs = options.lifeMs ?? yearMs
    this.#authority = authority
    this.#wanted = {
      serving: {
        file: 'apiserver',
        subject: { commonName: 'kube-apiserver' },
        usage: 'server',
        names: [...new Set([...alwaysNames, ...options.serviceAddresses, ...options.names])],
      },
      admin: {
        file: 'admin',
        subject: { commonName: 'kubernetes-admin', organizations: ['system:masters'] },
        usage: 'client',
      },
      kubeletClient: {
        file: 'apiserver-kubelet-client',
        subject: { commonName: kubeletClientName },
        usage: 'client',
      },
    }
  }

  get(name: LeafName): CertificateAndKey {
    const pair = this.#present.get(name)
    if (pair === undefined) throw new Error(`there is no certificate ${this.#wanted[name].file}`)
    return pair
  }

  /** Brings what is on disk or in use, where it is still good, and makes the rest. */
  async renew(): Promise<void> {
    for (const name of ['serving', 'admin', 'kubeletClient'] as const) {
      const { file, ...wanted } = this.#wanted[name]
      const before = this.#present.get(name)
      const known = before ?? loadPair(this.#directory, file)
      if (known && this.#isGood(known, wanted.names)) {
        this.#present.set(name, known)
        continue
      }
      const { createLeaf } = await maker()
      const made = await createLeaf(this.#authority, { ...wanted, now: this.#clock.now(), lifeMs: this.#lifeMs })
      this.#present.set(name, storePair(this.#directory, file, made))
      if (before !== undefined) for (const listener of this.listeners) listener(name)
    }
  }

  async keepFresh(signal: AbortSignal, log: Log): Promise<void> {
    for (;;) {
      const leftMs = Math.min(...this.#present.values().map((pair) => this.#endOf(pair) - this.#clock.now()))
      const dueMs = leftMs - this.#lifeMs * renewShare
      await delay(Math.min(lookMs, Math.max(lookAgainMs, dueMs)), signal, this.#clock)
      try {
        await this.renew()
      } catch (error) {
        log.error({ err: error, hoursLeft: Math.floor(leftMs / 3_600_000) }, 'cannot renew the certificates')
      }
    }
  }

  #isGood(pair: CertificateAndKey, names: readonly string[] = []): boolean {
    const certificate = new X509Certificate(pair.certificate)
    return (
      this.#endOf(pair) - this.#clock.now() > this.#lifeMs * renewShare &&
      certificate.verify(new X509Certificate(this.#authority.certificate).publicKey) &&
      certificate.checkPrivateKey(createPrivateKey(pair.key)) &&
      names.every((name) =>
        isIP(name) ? certificate.checkIP(name) !== undefined : certificate.checkHost(name) !== undefined,
      )
    )
  }

  #endOf({ certificate }: CertificateAndKey): number {
    return new X509Certificate(certificate).validToDate.getTime()
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
