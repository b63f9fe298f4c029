import { createHash, createPrivateKey, X509Certificate } from 'node:crypto'
import type { Secret } from '#api/gen/core-v1.ts'
import type { Certificate } from './engine.ts'

/** A Secret of type kubernetes.io/tls whose two halves belong together, or why it is none that a listener can serve. */
export type CertificateResult =
  | {
      readonly ok: true
      readonly certificate: Certificate
      /** SHA-256 of all that is served, hex: what tells one version of a Secret from another. */
      readonly digest: string
    }
  | { readonly ok: false; readonly message: string }

const known = new WeakMap<Secret, CertificateResult>()

/** Reads the pair once per version of the Secret: parsing a key costs more than everything else that a listener needs. */
export function certificateOf(secret: Secret): CertificateResult {
  const present = known.get(secret)
  if (present !== undefined) return present
  const result = read(secret)
  known.set(secret, result)
  return result
}

const pairOf = /-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----/g

function read(secret: Secret): CertificateResult {
  const { namespace, name } = secret.metadata
  const no = (why: string): CertificateResult => ({ ok: false, message: `Secret ${namespace}/${name}: ${why}` })
  if (secret.type !== 'kubernetes.io/tls') return no('its type is not kubernetes.io/tls')
  const chain = decode(secret.data?.['tls.crt'])
  const key = decode(secret.data?.['tls.key'])
  if (chain === undefined) return no('it has no tls.crt')
  if (key === undefined) return no('it has no tls.key')
  const blocks = chain.match(pairOf) ?? []
  const [first] = blocks
  if (first === undefined) return no('tls.crt holds no PEM certificate')
  try {
    const leaf = new X509Certificate(first)
    for (const block of blocks.slice(1)) new X509Certificate(block)
    const privateKey = createPrivateKey(key)
    if (!leaf.checkPrivateKey(privateKey)) return no('tls.key does not belong to tls.crt')
    // Written anew: nothing but certificates and one key can be in what an engine is given.
    const certPem = `${blocks.join('\n')}\n`
    const keyPem = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
    const digest = createHash('sha256').update(certPem).update(keyPem).digest('hex')
    return { ok: true, certificate: { id: `${namespace}/${name}`, certPem, keyPem }, digest }
  } catch (error) {
    return no(
      `it holds no usable pair of certificate and key (${error instanceof Error ? error.message : String(error)})`,
    )
  }
}

const decode = (data: string | undefined): string | undefined =>
  data === undefined || data === '' ? undefined : Buffer.from(data, 'base64').toString('utf8')
