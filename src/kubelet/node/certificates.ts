import { createPrivateKey, webcrypto, X509Certificate } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { isIP } from 'node:net'
import { join } from 'node:path'
import type { CertificateSigningRequest } from '#api/gen/certificates-v1.ts'
import { certificateSigningRequests } from '#api/gen/resources.ts'
import { Backoff } from '#base/async/backoff.ts'
import { delay } from '#base/async/delay.ts'
import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log/log.ts'
import { Pkcs10CertificateRequestGenerator, SubjectAlternativeNameExtension } from '#base/x509/x509.ts'
import type { Client } from '#client/client.ts'

/** A certificate with its key, both PEM, as TLS wants them. */
export interface KeyPair {
  readonly cert: string
  readonly key: string
}

export interface NodeCertificatesOptions {
  /** `<data>/pki`: the certificates survive a restart there. */
  readonly dir: string
  readonly nodeName: string
  readonly addresses: readonly string[]
  readonly clock: Clock
  readonly log: Log
}

type Purpose = 'client' | 'server'

const signers: Record<
  Purpose,
  { readonly signerName: string; readonly usages: NonNullable<CertificateSigningRequest['spec']['usages']> }
> = {
  client: { signerName: 'kubernetes.io/kube-apiserver-client-kubelet', usages: ['digital signature', 'client auth'] },
  server: { signerName: 'kubernetes.io/kubelet-serving', usages: ['digital signature', 'server auth'] },
}

const algorithm = { name: 'ECDSA', namedCurve: 'P-256' } as const
const signing = { name: 'ECDSA', hash: 'SHA-256' } as const
/** How often an unanswered request is looked at, and how long before another is made. */
const lookFirstMs = 20
const lookMaxMs = 1_000
const answerMs = 60_000
/** Renewed when this share of its life is over. */
const renewedAt = 0.8
const checkMs = 60_000

/**
 * The node's two certificates: the one it shows to the API server and the one its own server shows. Both are asked for
 * by CertificateSigningRequest, kept in files, and renewed in time; whoever uses them asks for them each time.
 */
export class NodeCertificates {
  readonly #options: NodeCertificatesOptions
  readonly #pairs = new Map<Purpose, KeyPair>()
  readonly #listeners = new Set<(purpose: Purpose) => void>()

  constructor(options: NodeCertificatesOptions) {
    this.#options = options
    for (const purpose of ['client', 'server'] as const) {
      const pair = this.#load(purpose)
      if (pair !== undefined && expiryOf(pair) > options.clock.now()) this.#pairs.set(purpose, pair)
    }
  }

  /** Undefined until there is one that is valid. */
  get(purpose: Purpose): KeyPair | undefined {
    return this.#pairs.get(purpose)
  }

  /** For `createHttpClient`. Throws while there is none: bootstrap first. */
  readonly client = (): KeyPair => {
    const pair = this.#pairs.get('client')
    if (pair === undefined)
      throw new Error(`Node ${this.#options.nodeName} has no client certificate: it has not been admitted yet`)
    return pair
  }

  onChange(listener: (purpose: Purpose) => void): void {
    this.#listeners.add(listener)
  }

  /** Has a valid certificate when it resolves; asks for one with `client` where there is none. Tries until then. */
  async ensure(purpose: Purpose, client: Client, signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#options
    const backoff = new Backoff({ firstMs: 100, maxMs: 5_000, jitter: 0.2 })
    while (this.#pairs.get(purpose) === undefined) {
      try {
        await this.#request(purpose, client, signal)
      } catch (error) {
        if (signal.aborted) throw error
        log.warn({ err: error, purpose }, 'cannot get a certificate yet')
        await delay(backoff.next(), signal, clock)
      }
    }
  }

  /** Renews both in time, until `signal` aborts. */
  async run(client: Client, signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#options
    for (;;) {
      await delay(checkMs, signal, clock)
      for (const [purpose, pair] of this.#pairs) {
        if (clock.now() < renewalOf(pair)) continue
        try {
          await this.#request(purpose, client, signal)
        } catch (error) {
          if (signal.aborted) throw error
          log.warn({ err: error, purpose }, 'cannot renew a certificate')
        }
      }
    }
  }

  async #request(purpose: Purpose, client: Client, signal: AbortSignal): Promise<void> {
    const { nodeName, addresses, clock, log } = this.#options
    const names = purpose === 'server' ? [nodeName, ...addresses] : []
    const { request, key } = await makeRequest(nodeName, names)
    const { signerName, usages } = signers[purpose]
    const made = await client.create<CertificateSigningRequest>(
      certificateSigningRequests,
      {
        metadata: { generateName: 'csr-' },
        spec: { request: Buffer.from(request).toString('base64'), signerName, usages },
      },
      { signal },
    )
    const certificate = await this.#answer(client, made.metadata.name, signal)
    const pair = { cert: certificate, key }
    this.#save(purpose, pair)
    this.#pairs.set(purpose, pair)
    log.info({ purpose, until: new Date(expiryOf(pair)).toISOString(), at: clock.now() }, 'certificate issued')
    for (const listener of this.#listeners) listener(purpose)
  }

  /** Waits for the certificate. Looks instead of watching: a node that asks may get its own request, not a list. */
  async #answer(client: Client, name: string, signal: AbortSignal): Promise<string> {
    const { clock } = this.#options
    const backoff = new Backoff({ firstMs: lookFirstMs, maxMs: lookMaxMs, factor: 1.5 })
    for (const end = clock.now() + answerMs; clock.now() < end; ) {
      const { status } = await client.get(certificateSigningRequests, { name }, { signal })
      if (status.certificate) return Buffer.from(status.certificate, 'base64').toString('utf8')
      const refused = status.conditions?.find((c) => c.type === 'Denied' || c.type === 'Failed')
      if (refused !== undefined)
        throw new Error(`Certificate request ${name} was ${refused.type.toLowerCase()}: ${refused.message ?? ''}`)
      await delay(backoff.next(), signal, clock)
    }
    throw new Error(`Certificate request ${name} was not answered within ${answerMs / 1000} s`)
  }

  #path(purpose: Purpose): string {
    return join(this.#options.dir, `kubelet-${purpose}.pem`)
  }

  /** One file, so that certificate and key always belong together. */
  #save(purpose: Purpose, { cert, key }: KeyPair): void {
    mkdirSync(this.#options.dir, { recursive: true, mode: 0o700 })
    const path = this.#path(purpose)
    writeFileSync(`${path}.new`, `${cert.trimEnd()}\n${key}`, { mode: 0o600 })
    renameSync(`${path}.new`, path)
  }

  #load(purpose: Purpose): KeyPair | undefined {
    const path = this.#path(purpose)
    if (!existsSync(path)) return undefined
    const blocks = readFileSync(path, 'utf8').match(/-----BEGIN ([A-Z ]+)-----[\s\S]*?-----END \1-----\n?/g) ?? []
    const cert = blocks.filter((b) => b.includes('BEGIN CERTIFICATE')).join('')
    const key = blocks.find((b) => b.includes('PRIVATE KEY')) ?? ''
    // A file that was cut short by a full disk is as good as none.
    return cert === '' || key === '' ? undefined : { cert, key }
  }
}

const expiryOf = ({ cert }: KeyPair): number => Date.parse(new X509Certificate(cert).validTo)

function renewalOf({ cert }: KeyPair): number {
  const { validFrom, validTo } = new X509Certificate(cert)
  const from = Date.parse(validFrom)
  return from + (Date.parse(validTo) - from) * renewedAt
}

async function makeRequest(nodeName: string, names: readonly string[]): Promise<{ request: string; key: string }> {
  const keys = (await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])) as webcrypto.CryptoKeyPair
  const extensions =
    names.length === 0
      ? []
      : [new SubjectAlternativeNameExtension(names.map((value) => ({ type: isIP(value) ? 'ip' : 'dns', value })))]
  const request = await Pkcs10CertificateRequestGenerator.create(
    {
      name: [{ O: ['system:nodes'] }, { CN: [`system:node:${nodeName}`] }],
      keys,
      signingAlgorithm: signing,
      extensions,
    },
    webcrypto,
  )
  const der = await webcrypto.subtle.exportKey('pkcs8', keys.privateKey)
  const key = createPrivateKey({ key: Buffer.from(der), format: 'der', type: 'pkcs8' })
  return { request: request.toString('pem'), key: key.export({ format: 'pem', type: 'pkcs8' }).toString() }
}
