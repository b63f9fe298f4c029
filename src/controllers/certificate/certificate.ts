import { X509Certificate } from 'node:crypto'
import type { SubjectAccessReview } from '#api/gen/authorization-v1.ts'
import type { CertificateSigningRequest } from '#api/gen/certificates-v1.ts'
import { certificateSigningRequests, nodes, subjectAccessReviews } from '#api/gen/resources.ts'
import { withCondition } from '#api/meta/conditions.ts'
import { isStatus } from '#api/meta/status.ts'
import { formatTime } from '#api/meta/time.ts'
import type { Client } from '#client/client.ts'
import { awaitChange, requeueAfter } from '#reconcile/controller.ts'
import { createLoop, type LoopContext } from '#reconcile/loop.ts'
import type { Part } from '#reconcile/manager.ts'
import { cleanAt, nodeNameOf, planApproval, planSigning, stateOf } from './plan.ts'
import type { Asked } from './request.ts'
import type { SigningKey } from './sign.ts'

/** Cleaning is not urgent: no request is looked at again for it sooner than this. */
const cleanPauseMinMs = 60_000

/**
 * Certificate signing requests: approves those of kubelets, signs what is approved, and removes what has served its
 * purpose. Keys are names of requests. What reads and signs X.509 takes 20 MB: it is loaded when the first request needs it.
 */
export const certificateController =
  (authority: SigningKey) =>
  (context: LoopContext): Part => {
    const { client, informers, clock } = context
    return createLoop(context, {
      reads: [certificateSigningRequests, nodes],
      workers: 2,
      begin({ controller, events, signal }) {
        const all = informers.of(certificateSigningRequests)
        const allNodes = informers.of(nodes)
        const byUser = all.index('username', ({ spec }) => [spec.username ?? ''])
        controller.watch(all, signal)
        // A serving certificate waits until its node has the addresses it asks for.
        controller.watch(allNodes, signal, ({ metadata }) =>
          byUser
            .get(`system:node:${metadata.name}`)
            .filter((csr) => stateOf(csr) === 'pending')
            .map((csr) => csr.metadata.name),
        )

        return async (key, look) => {
          let csr = all.get(key)
          if (csr === undefined) return awaitChange
          try {
            const end = cleanAt(csr, certificateEnd(csr.status.certificate))
            if (clock.now() >= end) {
              await client.delete(certificateSigningRequests, { name: key }, { signal: look.signal })
              return awaitChange
            }
            const state = stateOf(csr)
            if (state === 'pending' || state === 'approved') {
              let asked: Asked
              try {
                const { readRequest } = await import('./request.ts')
                asked = await readRequest(csr.spec.request)
              } catch (error) {
                look.log.warn({ err: error }, 'the request cannot be read')
                return requeueAfter(end - clock.now())
              }
              if (state === 'pending') csr = await approve(csr, asked)
              const signing = planSigning(csr, asked)
              if (signing.do === 'sign') {
                const { sign } = await import('./sign.ts')
                const { usages = [], expirationSeconds } = csr.spec
                const pem = await sign(authority, asked, usages, expirationSeconds, clock.now())
                const status = { ...csr.status, certificate: Buffer.from(pem).toString('base64') }
                await writeStatus(client, { ...csr, status }, 'status', look.signal)
                look.log.info({ subject: asked.subject }, 'certificate signed')
              } else if (signing.do === 'fail') {
                const failed = { type: 'Failed', reason: 'SignerValidationFailure', message: signing.why }
                await writeStatus(client, withWords(csr, failed, clock.now()), 'status', look.signal)
              }
            }
            return requeueAfter(Math.max(cleanPauseMinMs, end - clock.now()))
          } catch (error) {
            if (isStatus(error, 'NotFound')) return awaitChange
            throw error
          }

          async function approve(pending: CertificateSigningRequest, asked: Asked): Promise<CertificateSigningRequest> {
            const node = nodeNameOf(pending)
            const approval = planApproval(pending, asked, node === undefined ? undefined : allNodes.get(node))
            if (approval.do === 'leave') {
              look.log.debug({ why: approval.why }, 'left for a person to approve')
              return pending
            }
            if (approval.do === 'ask' && !(await mayHave(client, pending, approval.subresource, look.signal))) {
              const message = `${pending.spec.username} may not have a certificate of ${pending.spec.signerName}`
              events.record(pending, { type: 'Warning', reason: 'NotApproved', message })
              return pending
            }
            const words = { type: 'Approved', reason: 'AutoApproved', message: approval.message }
            return writeStatus(client, withWords(pending, words, clock.now()), 'approval', look.signal)
          }
        }
      },
    })
  }

function withWords(
  csr: CertificateSigningRequest,
  words: { readonly type: string; readonly reason: string; readonly message: string },
  now: number,
): CertificateSigningRequest {
  const at = formatTime(now)
  const condition = { ...words, status: 'True', lastUpdateTime: at }
  return { ...csr, status: { ...csr.status, conditions: [...withCondition(csr.status.conditions, condition, at)] } }
}

const writeStatus = (
  client: Client,
  csr: CertificateSigningRequest,
  subresource: 'status' | 'approval',
  signal: AbortSignal,
): Promise<CertificateSigningRequest> => client.update(certificateSigningRequests, csr, { subresource, signal })

/** Whether whoever made the request has the right to a kubelet's certificate; the server decides. */
async function mayHave(
  client: Client,
  { spec }: CertificateSigningRequest,
  subresource: string,
  signal: AbortSignal,
): Promise<boolean> {
  const { username = '', uid, groups = [], extra } = spec
  const review = await client.create<SubjectAccessReview>(
    subjectAccessReviews,
    {
      metadata: {},
      spec: {
        user: username,
        groups,
        ...(uid === undefined ? {} : { uid }),
        ...(extra === undefined ? {} : { extra }),
        resourceAttributes: {
          group: 'certificates.k8s.io',
          version: '*',
          resource: 'certificatesigningrequests',
          subresource,
          verb: 'create',
        },
      },
    },
    { signal },
  )
  return review.status.allowed
}

/** When the first certificate in the status ends, milliseconds since the epoch; undefined where there is none. */
function certificateEnd(base64: string | undefined): number | undefined {
  if (!base64) return undefined
  try {
    return new X509Certificate(Buffer.from(base64, 'base64')).validToDate.getTime()
  } catch {
    // Another signer's certificate that we cannot read: it is cleaned by its age alone.
    return undefined
  }
}
