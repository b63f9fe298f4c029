import { X509Certificate } from 'node:crypto'
import type { CertificateSigningRequest } from '../gen/certificates-v1.ts'
import { certificateSigningRequests } from '../gen/resources.ts'
import { ageColumn, column, nameColumn } from '../meta/columns.ts'
import { defineKind, statusSubresource } from '../meta/define.ts'
import { dns1123Label, dns1123Subdomain, nameIsDnsSubdomain } from '../meta/names.ts'
import { immutable } from '../meta/object-meta.ts'
import { type FieldError, fieldError } from '../meta/status.ts'
import { humanDuration } from '../meta/time.ts'

const secondsMin = 600
const usages = [
  'any',
  'cert sign',
  'client auth',
  'code signing',
  'content commitment',
  'crl sign',
  'data encipherment',
  'decipher only',
  'digital signature',
  'email protection',
  'encipher only',
  'ipsec end system',
  'ipsec tunnel',
  'ipsec user',
  'key agreement',
  'key encipherment',
  'microsoft sgc',
  'netscape sgc',
  'ocsp signing',
  's/mime',
  'server auth',
  'signing',
  'timestamping',
]
const requestBlock = /^\s*-----BEGIN CERTIFICATE REQUEST-----[\s\S]+-----END CERTIFICATE REQUEST-----\s*$/

function validateRequest({ spec }: CertificateSigningRequest): FieldError[] {
  const errors: FieldError[] = []
  const pem = Buffer.from(spec.request ?? '', 'base64').toString('latin1')
  if (!requestBlock.test(pem)) {
    errors.push(fieldError.invalid('spec.request', spec.request ?? '', 'PEM block type must be CERTIFICATE REQUEST'))
  }
  const asked: readonly string[] = spec.usages ?? []
  if (asked.length === 0) errors.push(fieldError.required('spec.usages'))
  for (const [i, usage] of asked.entries()) {
    if (!usages.includes(usage)) errors.push(fieldError.notSupported(`spec.usages[${i}]`, usage, usages))
    else if (asked.indexOf(usage) !== i) errors.push(fieldError.duplicate(`spec.usages[${i}]`, usage))
  }
  validateSigner(spec.signerName ?? '', errors)
  const seconds = spec.expirationSeconds
  if (seconds !== undefined && seconds < secondsMin) {
    errors.push(
      fieldError.invalid(
        'spec.expirationSeconds',
        seconds,
        'may not specify a duration less than 600 seconds (10 minutes)',
      ),
    )
  }
  return errors
}

/** `example.com/signer-name`. */
function validateSigner(name: string, errors: FieldError[]): void {
  if (name === '') {
    errors.push(fieldError.required('spec.signerName'))
    return
  }
  const [domain = '', path, ...rest] = name.split('/')
  if (path === undefined || rest.length > 0) {
    errors.push(
      fieldError.invalid(
        'spec.signerName',
        name,
        "must be a fully qualified domain and path of the form 'example.com/signer-name'",
      ),
    )
    return
  }
  validateLabelsOf(domain, dns1123Label, errors)
  if (!domain.includes('.')) {
    errors.push(
      fieldError.invalid('spec.signerName', domain, 'should be a domain with at least two segments separated by dots'),
    )
  }
  validateLabelsOf(path, dns1123Subdomain, errors)
}

/** The first part between dots that is wrong; more would only be the same words again. */
function validateLabelsOf(segment: string, check: (label: string) => readonly string[], errors: FieldError[]): void {
  for (const label of segment.split('.')) {
    const found = check(label)
    for (const words of found) {
      errors.push(fieldError.invalid('spec.signerName', segment, `validating label ${JSON.stringify(label)}: ${words}`))
    }
    if (found.length > 0) return
  }
}

/** A certificate, once there, stays; approval and denial exclude each other and are not taken back. */
function validateStatus(next: CertificateSigningRequest, old: CertificateSigningRequest): FieldError[] {
  const errors: FieldError[] = []
  const before = old.status?.conditions ?? []
  const after = next.status?.conditions ?? []
  const seen = new Set<string>()
  for (const [i, condition] of after.entries()) {
    const at = `status.conditions[${i}]`
    if (!condition.type) errors.push(fieldError.required(`${at}.type`))
    if (!condition.status) errors.push(fieldError.required(`${at}.status`))
    else if (
      (condition.type === 'Approved' || condition.type === 'Denied' || condition.type === 'Failed') &&
      condition.status !== 'True'
    ) {
      errors.push(fieldError.notSupported(`${at}.status`, condition.status, ['True']))
    }
    if (seen.has(condition.type)) errors.push(fieldError.duplicate(`${at}.type`, condition.type))
    seen.add(condition.type)
  }
  if (seen.has('Approved') && seen.has('Denied')) {
    errors.push(
      fieldError.invalid('status.conditions', 'Denied', 'Approved and Denied conditions are mutually exclusive'),
    )
  }
  for (const type of ['Approved', 'Denied', 'Failed']) {
    if (before.some((condition) => condition.type === type) && !seen.has(type)) {
      errors.push(fieldError.forbidden('status.conditions', `updates may not remove a condition of type "${type}"`))
    }
  }
  if (old.status?.certificate) {
    errors.push(...immutable(next.status?.certificate ?? '', old.status.certificate, 'status.certificate'))
  } else if (next.status?.certificate) validateCertificate(next.status.certificate, errors)
  return errors
}

function validateCertificate(base64: string, errors: FieldError[]): void {
  try {
    new X509Certificate(Buffer.from(base64, 'base64'))
  } catch (error) {
    errors.push(
      fieldError.invalid(
        'status.certificate',
        '<certificate data>',
        error instanceof Error ? error.message : String(error),
      ),
    )
  }
}

function conditionText({ status }: CertificateSigningRequest): string {
  const types = new Set((status?.conditions ?? []).map(({ type }) => type))
  let text = types.has('Denied') ? 'Denied' : types.has('Approved') ? 'Approved' : 'Pending'
  if (types.has('Failed')) text += ',Failed'
  if (status?.certificate) text += ',Issued'
  return text
}

export const certificateSigningRequest = defineKind<CertificateSigningRequest>({
  resource: certificateSigningRequests,
  message: 'certificates/v1.CertificateSigningRequest',
  description: 'Asks for a certificate; somebody approves, a signer issues.',
  shortNames: ['csr'],
  nameCheck: nameIsDnsSubdomain,
  subresources: [{ name: 'approval', verbs: ['get', 'patch', 'update'] }, statusSubresource],
  prepareUpdate(next, old) {
    // What was asked for, and by whom, is fixed.
    next.spec = old.spec
  },
  validate: validateRequest,
  validateUpdate: validateRequest,
  validateStatusUpdate: validateStatus,
  columns: [
    nameColumn,
    ageColumn,
    column('SignerName', 'Who is to sign.', ({ spec }) => spec.signerName || '<none>'),
    column('Requestor', 'Who asked.', ({ spec }) => spec.username ?? ''),
    column('RequestedDuration', 'For how long.', ({ spec }) =>
      spec.expirationSeconds === undefined ? '<none>' : humanDuration(spec.expirationSeconds * 1000),
    ),
    column('Condition', 'How far it is.', conditionText),
  ],
  selectableFields: { 'spec.signerName': ({ spec }) => spec.signerName },
})
