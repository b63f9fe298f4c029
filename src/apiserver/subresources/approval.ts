import type { CertificateSigningRequest, CertificateSigningRequestCondition } from '#api/gen/certificates-v1.ts'
import { certificateSigningRequests } from '#api/gen/resources.ts'
import {
  badRequest,
  type FieldError,
  fieldError,
  invalid,
  methodNotAllowed,
  modified,
  notFound,
} from '#api/meta/status.ts'
import { formatTime } from '#api/meta/time.ts'
import type { Clock } from '#base/clock.ts'
import type { SubresourceHandler } from '../step.ts'

const decisive = ['Approved', 'Denied']

/** GET, PUT and PATCH certificatesigningrequests/{name}/approval: who may approve for the signer was asked in admission. */
export function approvalHandler(clock: Clock): SubresourceHandler {
  return async ({ registry, request, attributes, body, dryRun }) => {
    const present = registry.get(certificateSigningRequests, '', attributes.name)
    if (present === undefined) throw notFound(certificateSigningRequests, attributes.name)
    if (request.method === 'GET') return { status: 200, object: present }
    if (request.method !== 'PUT' && request.method !== 'PATCH')
      throw methodNotAllowed(certificateSigningRequests, request.method.toLowerCase())
    const wanted = body as CertificateSigningRequest | undefined
    if (wanted === undefined) throw badRequest('a CertificateSigningRequest is needed in the body')
    const decide = (copy: CertificateSigningRequest): CertificateSigningRequest => {
      const { resourceVersion } = wanted.metadata
      if (resourceVersion && resourceVersion !== copy.metadata.resourceVersion) {
        throw modified(certificateSigningRequests, attributes.name)
      }
      return approve(copy, wanted.status?.conditions ?? [], formatTime(clock.now()))
    }
    if (dryRun) return { status: 200, object: decide(present) }
    const { user, name } = attributes
    return { status: 200, object: await registry.change(certificateSigningRequests, '', name, user, decide) }
  }
}

/** The request with the Approved and Denied conditions of `wanted`, and everything else as it was. Throws Invalid. */
export function approve(
  present: CertificateSigningRequest,
  wanted: readonly CertificateSigningRequestCondition[],
  now: string,
): CertificateSigningRequest {
  const before = present.status?.conditions ?? []
  const errors: FieldError[] = []
  const path = 'status.conditions'
  for (const type of decisive) {
    if (before.some((c) => c.type === type) && !wanted.some((c) => c.type === type)) {
      errors.push(fieldError.forbidden(path, `updates may not remove a condition of type "${type}"`))
    }
  }
  wanted.forEach((condition, i) => {
    if (condition.type === '') errors.push(fieldError.required(`${path}[${i}].type`))
    if (decisive.includes(condition.type) && (condition.status ?? 'True') !== 'True') {
      errors.push(fieldError.notSupported(`${path}[${i}].status`, condition.status, ['True']))
    }
  })
  if (decisive.every((type) => wanted.some((c) => c.type === type))) {
    errors.push(fieldError.invalid(path, 'Denied', 'Approved and Denied conditions are mutually exclusive'))
  }
  if (errors.length > 0)
    throw invalid('certificates.k8s.io', 'CertificateSigningRequest', present.metadata.name, errors)
  const decided = wanted
    .filter((c) => decisive.includes(c.type))
    .map((c): CertificateSigningRequestCondition => {
      const old = before.find((b) => b.type === c.type)
      return (
        old ?? { ...c, status: c.status ?? 'True', lastUpdateTime: c.lastUpdateTime ?? now, lastTransitionTime: now }
      )
    })
  const others = before.filter((c) => !decisive.includes(c.type))
  return { ...present, status: { ...present.status, conditions: [...others, ...decided] } }
}
