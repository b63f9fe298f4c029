import type { CertificateSigningRequest } from '#api/gen/certificates-v1.ts'
import { certificateSigningRequests } from '#api/gen/resources.ts'
import type { Authorizer } from '../authorize/authorize.ts'
import type { AdmissionRequest, Registry } from '../step.ts'
import { type AdmissionStep, isAbout, objectOf, oldOf, refusal } from './step.ts'

/** Whether the caller has the verb on the signer, by its whole name or by `domain/*`. */
function maySign(
  { authorize }: Pick<Authorizer, 'authorize'>,
  { attributes }: AdmissionRequest,
  verb: string,
  signer: string,
): boolean {
  const asked = (name: string) =>
    authorize({
      user: attributes.user,
      verb,
      group: 'certificates.k8s.io',
      version: '*',
      resource: 'signers',
      subresource: '',
      namespace: '',
      name,
      path: undefined,
    }).allowed
  return asked(signer) || asked(`${signer.split('/')[0]}/*`)
}

/** Who asks is written by the server: what the requester says of himself is dropped. */
export const certificateRequester: AdmissionStep = {
  name: 'CertificateRequester',
  mutate(request) {
    if (request.operation !== 'CREATE' || !isAbout(request, certificateSigningRequests)) return
    const { spec } = objectOf(request, certificateSigningRequests) ?? {}
    if (spec === undefined) return
    const { name, uid, groups, extra } = request.attributes.user
    spec.username = name
    spec.groups = [...groups]
    if (uid === undefined) delete spec.uid
    else spec.uid = uid
    if (extra === undefined) delete spec.extra
    else spec.extra = structuredClone(extra) as Record<string, string[]>
  },
}

export function certificateApproval(registry: Registry, authorizer: Pick<Authorizer, 'authorize'>): AdmissionStep {
  return {
    name: 'CertificateApproval',
    validate(request) {
      if (request.operation !== 'UPDATE' || !isAbout(request, certificateSigningRequests, 'approval')) return
      const present = registry.get(certificateSigningRequests, '', request.attributes.name)
      const signer = present?.spec.signerName
      if (signer === undefined || maySign(authorizer, request, 'approve', signer)) return
      throw refusal(request, `user not permitted to approve requests with signerName "${signer}"`)
    },
  }
}

export function certificateSigning(authorizer: Pick<Authorizer, 'authorize'>): AdmissionStep {
  const failure = ({ status }: CertificateSigningRequest): string =>
    JSON.stringify(status?.conditions?.filter((c) => c.type === 'Failed') ?? [])
  return {
    name: 'CertificateSigning',
    validate(request) {
      if (request.operation !== 'UPDATE' || !isAbout(request, certificateSigningRequests, 'status')) return
      const next = objectOf(request, certificateSigningRequests)
      const old = oldOf(request, certificateSigningRequests)
      if (next === undefined || old === undefined) return
      if (next.status?.certificate === old.status?.certificate && failure(next) === failure(old)) return
      const { signerName } = old.spec
      if (maySign(authorizer, request, 'sign', signerName)) return
      throw refusal(request, `user not permitted to sign requests with signerName "${signerName}"`)
    },
  }
}

const clientSigner = 'kubernetes.io/kube-apiserver-client'

/** Nobody becomes master of the cluster by a certificate that a person merely forgot to read. */
export function certificateSubjectRestriction(): AdmissionStep {
  // A big library for a rare request: loaded when the first one comes.
  let reader: typeof import('#base/x509/x509.ts') | undefined
  const requestTo = (request: AdmissionRequest): CertificateSigningRequest | undefined => {
    if (request.operation !== 'CREATE' || !isAbout(request, certificateSigningRequests)) return undefined
    const csr = objectOf(request, certificateSigningRequests)
    return csr?.spec?.signerName === clientSigner ? csr : undefined
  }
  return {
    name: 'CertificateSubjectRestriction',
    prepare(request) {
      if (reader !== undefined || requestTo(request) === undefined) return undefined
      return import('#base/x509/x509.ts').then((loaded) => {
        reader = loaded
      })
    },
    validate(request) {
      const csr = requestTo(request)
      if (csr === undefined) return
      if (reader === undefined) throw new Error('admission was not prepared for a certificate request')
      let organizations: string[]
      try {
        const pem = Buffer.from(csr.spec.request, 'base64').toString('utf8')
        organizations = new reader.Pkcs10CertificateRequest(pem).subjectName.getField('O')
      } catch (error) {
        throw refusal(request, `unable to parse csr: ${error instanceof Error ? error.message : error}`)
      }
      if (!organizations.includes('system:masters')) return
      throw refusal(request, `use of ${clientSigner} signer with system:masters group is not allowed`)
    },
  }
}
