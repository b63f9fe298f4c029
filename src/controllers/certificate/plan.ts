import type { CertificateSigningRequest } from '#api/gen/certificates-v1.ts'
import type { Node } from '#api/gen/core-v1.ts'
import { parseTime } from '#api/meta/time.ts'
import { sameAddress } from './address.ts'
import type { Asked } from './request.ts'

export const signers = {
  client: 'kubernetes.io/kube-apiserver-client',
  kubelet: 'kubernetes.io/kube-apiserver-client-kubelet',
  serving: 'kubernetes.io/kubelet-serving',
  legacy: 'kubernetes.io/legacy-unknown',
} as const
const ours = new Set<string>(Object.values(signers))

const nodePrefix = 'system:node:'
const nodesGroup = 'system:nodes'

export type State = 'pending' | 'approved' | 'denied' | 'failed' | 'issued'

export function stateOf({ status }: CertificateSigningRequest): State {
  const has = (type: string) => (status.conditions ?? []).some((c) => c.type === type)
  if (has('Denied')) return 'denied'
  if (has('Failed')) return 'failed'
  if (status.certificate !== undefined && status.certificate !== '') return 'issued'
  return has('Approved') ? 'approved' : 'pending'
}

type Csr = CertificateSigningRequest

const usagesAre = (csr: Csr, required: readonly string[], allowed: readonly string[]): boolean => {
  const asked = new Set<string>(csr.spec.usages ?? [])
  return required.every((u) => asked.has(u)) && [...asked].every((u) => required.includes(u) || allowed.includes(u))
}

/** Why a request does not fit its signer, or undefined where it does (upstream's rules per signer). Pure. */
function misfit(csr: Csr, asked: Asked): string | undefined {
  if (asked.isAuthority) return 'a certificate authority may not be asked for'
  switch (csr.spec.signerName) {
    case signers.kubelet:
      return kubeletClientMisfit(csr, asked)
    case signers.serving:
      return kubeletServingMisfit(csr, asked)
    case signers.client:
      return usagesAre(csr, ['client auth'], ['digital signature', 'key encipherment'])
        ? undefined
        : 'usages did not match: client auth, digital signature and key encipherment only'
    case signers.legacy:
      return undefined
    default:
      return `signer ${csr.spec.signerName} is not one of ours`
  }
}

function nodeSubjectMisfit(asked: Asked): string | undefined {
  if (asked.organizations.length !== 1 || asked.organizations[0] !== nodesGroup)
    return `subject organization is not ${nodesGroup}`
  if (!asked.commonName.startsWith(nodePrefix)) return `subject common name does not begin with ${nodePrefix}`
  if (asked.emails.length > 0) return 'email subjectAltNames are not allowed'
  if (asked.uris.length > 0) return 'URI subjectAltNames are not allowed'
  return undefined
}

function kubeletClientMisfit(csr: Csr, asked: Asked): string | undefined {
  const subject = nodeSubjectMisfit(asked)
  if (subject !== undefined) return subject
  if (asked.dnsNames.length > 0) return 'DNS subjectAltNames are not allowed'
  if (asked.ipAddresses.length > 0) return 'IP subjectAltNames are not allowed'
  return usagesAre(csr, ['digital signature', 'client auth'], ['key encipherment'])
    ? undefined
    : 'usages did not match: digital signature and client auth, with key encipherment or without'
}

function kubeletServingMisfit(csr: Csr, asked: Asked): string | undefined {
  const subject = nodeSubjectMisfit(asked)
  if (subject !== undefined) return subject
  if (asked.dnsNames.length + asked.ipAddresses.length === 0) return 'DNS or IP subjectAltName is required'
  return usagesAre(csr, ['digital signature', 'server auth'], ['key encipherment'])
    ? undefined
    : 'usages did not match: digital signature and server auth, with key encipherment or without'
}

/** The name of the node that asks for itself, if it is one. */
export const nodeNameOf = ({ spec }: Csr): string | undefined =>
  spec.username?.startsWith(nodePrefix) ? spec.username.slice(nodePrefix.length) : undefined

export type Approval =
  /** Not for us to approve: a person does. */
  | { readonly do: 'leave'; readonly why: string }
  /** Approve if the requester may do this to certificatesigningrequests. */
  | { readonly do: 'ask'; readonly subresource: 'nodeclient' | 'selfnodeclient'; readonly message: string }
  | { readonly do: 'approve'; readonly message: string }

/**
 * Whether a pending request is approved. A kubelet's client certificate: if its requester has the right to one. Its
 * serving certificate: if the node itself asks, for nothing but addresses that its Node object has. Pure.
 */
export function planApproval(csr: Csr, asked: Asked, node: Node | undefined): Approval {
  const { signerName, username, groups = [] } = csr.spec
  if (signerName !== signers.kubelet && signerName !== signers.serving)
    return { do: 'leave', why: 'requests for this signer are approved by hand' }
  const why = misfit(csr, asked)
  if (why !== undefined) return { do: 'leave', why }
  if (signerName === signers.kubelet) {
    return username === asked.commonName
      ? {
          do: 'ask',
          subresource: 'selfnodeclient',
          message: 'Auto approving self kubelet client certificate after SubjectAccessReview.',
        }
      : {
          do: 'ask',
          subresource: 'nodeclient',
          message: 'Auto approving kubelet client certificate after SubjectAccessReview.',
        }
  }
  if (username !== asked.commonName || !groups.includes(nodesGroup))
    return { do: 'leave', why: 'a serving certificate is approved only for the node that asks for it itself' }
  if (node === undefined) return { do: 'leave', why: `there is no node ${nodeNameOf(csr)}` }
  const addresses = node.status.addresses ?? []
  const foreignName = asked.dnsNames.find(
    (name) => !addresses.some((a) => /^(Hostname|InternalDNS|ExternalDNS)$/.test(a.type) && a.address === name),
  )
  const foreignAddress = asked.ipAddresses.find(
    (ip) => !addresses.some((a) => /^(InternalIP|ExternalIP)$/.test(a.type) && sameAddress(a.address, ip)),
  )
  const foreign = foreignName ?? foreignAddress
  if (foreign !== undefined) return { do: 'leave', why: `${foreign} is not an address of node ${node.metadata.name}` }
  return { do: 'approve', message: 'Auto approving kubelet serving certificate for addresses of its node.' }
}

/** Whether an approved request is signed by us. Pure. */
export type Signing =
  | { readonly do: 'nothing' }
  | { readonly do: 'sign' }
  | { readonly do: 'fail'; readonly why: string }

export function planSigning(csr: Csr, asked: Asked): Signing {
  if (stateOf(csr) !== 'approved' || !ours.has(csr.spec.signerName)) return { do: 'nothing' }
  const why = misfit(csr, asked)
  return why === undefined ? { do: 'sign' } : { do: 'fail', why }
}

const hourMs = 3_600_000
const settledMs = hourMs
const pendingMs = 24 * hourMs

/**
 * When a request has served its purpose, milliseconds since the epoch: an hour after it was settled, a day after it was
 * made where nobody decided, and when its certificate has run out (upstream's times). Pure.
 */
export function cleanAt(csr: Csr, certificateEnd: number | undefined): number {
  const created = parseTime(csr.metadata.creationTimestamp) ?? 0
  const since = (type: string) => {
    const condition = csr.status.conditions?.find((c) => c.type === type)
    return parseTime(condition?.lastUpdateTime ?? condition?.lastTransitionTime) ?? created
  }
  switch (stateOf(csr)) {
    case 'pending':
      return created + pendingMs
    case 'denied':
      return since('Denied') + settledMs
    case 'failed':
      return since('Failed') + settledMs
    case 'approved':
      return since('Approved') + pendingMs
    case 'issued':
      return Math.min(since('Approved') + settledMs, certificateEnd ?? Number.POSITIVE_INFINITY)
  }
}
