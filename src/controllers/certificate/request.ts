import { Pkcs10CertificateRequest, SubjectAlternativeNameExtension } from '#base/x509/x509.ts'

/** What a certificate signing request asks for, read once. */
export interface Asked {
  readonly commonName: string
  readonly organizations: readonly string[]
  /** RDNs as they are, for the certificate. */
  readonly subject: string
  readonly dnsNames: readonly string[]
  readonly ipAddresses: readonly string[]
  readonly emails: readonly string[]
  readonly uris: readonly string[]
  readonly isAuthority: boolean
  readonly request: Pkcs10CertificateRequest
}

/** `text`: `spec.request`, which is base64 of PEM. Throws for what is none, or is not signed by its own key. */
export async function readRequest(text: string): Promise<Asked> {
  let request: Pkcs10CertificateRequest
  try {
    request = new Pkcs10CertificateRequest(Buffer.from(text, 'base64').toString())
  } catch (cause) {
    throw new Error('Cannot read the certificate request', { cause })
  }
  if (!(await request.verify())) throw new Error('Cannot trust the certificate request: its signature is wrong')
  const names = request.extensions.find((e) => e instanceof SubjectAlternativeNameExtension)?.names.items ?? []
  const of = (type: string) => names.filter((n) => n.type === type).map((n) => n.value)
  const basic = request.extensions.find((e) => e.type === '2.5.29.19') as { ca?: boolean } | undefined
  return {
    commonName: request.subjectName.getField('CN')[0] ?? '',
    organizations: request.subjectName.getField('O'),
    subject: request.subject,
    dnsNames: of('dns'),
    ipAddresses: of('ip'),
    emails: of('email'),
    uris: of('url'),
    isAuthority: basic?.ca === true,
    request,
  }
}
