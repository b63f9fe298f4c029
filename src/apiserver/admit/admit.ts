import type { Clock } from '#base/clock.ts'
import type { IdentityAllocator } from '../allocate/identities.ts'
import type { PodAllocator } from '../allocate/pods.ts'
import type { ServiceAllocator } from '../allocate/services.ts'
import type { Authorizer } from '../authorize/authorize.ts'
import type { Admission, AdmissionRequest, Registry } from '../step.ts'
import { podAddresses, serviceAddresses } from './addresses.ts'
import {
  certificateApproval,
  certificateRequester,
  certificateSigning,
  certificateSubjectRestriction,
} from './certificates.ts'
import { escalation } from './escalation.ts'
import { namespaceLifecycle } from './namespace-lifecycle.ts'
import { nodeRestriction } from './node-restriction.ts'
import { ownerReferences } from './owner-references.ts'
import { defaultTolerationSeconds, priority, taintNodesByCondition } from './pod-defaults.ts'
import { admissionPolicies } from './policies/policies.ts'
import { serviceAccount } from './service-account.ts'
import type { AdmissionStep } from './step.ts'

export interface AdmissionOptions {
  readonly authorizer: Authorizer
  readonly services: ServiceAllocator
  readonly pods: PodAllocator
  readonly identities: IdentityAllocator
  readonly clock: Clock
}

/** Upstream's order; then what upstream does in the registry of the kind: roles, requesters, addresses. */
export function admissionSteps(registry: Registry, options: AdmissionOptions): readonly AdmissionStep[] {
  const { authorizer, services, pods, identities, clock } = options
  return [
    namespaceLifecycle(registry),
    serviceAccount(registry, clock),
    nodeRestriction(registry),
    taintNodesByCondition,
    priority(registry),
    defaultTolerationSeconds,
    ownerReferences(registry, authorizer),
    certificateApproval(registry, authorizer),
    certificateSigning(authorizer),
    certificateSubjectRestriction(),
    escalation(authorizer),
    admissionPolicies(registry, authorizer.authorize),
    certificateRequester,
    podAddresses(registry, pods, identities),
    serviceAddresses(services),
  ]
}

/** Each phase walks the whole list in order; the first refusal ends it. */
export function createAdmission(registry: Registry, options: AdmissionOptions): Admission {
  const steps = admissionSteps(registry, options)
  return {
    prepare(request: AdmissionRequest): Promise<void> | undefined {
      for (const step of steps) {
        const waiting = step.prepare?.(request)
        if (waiting) return waiting
      }
      return undefined
    },
    mutate(request) {
      for (const step of steps) step.mutate?.(request)
    },
    validate(request) {
      for (const step of steps) step.validate?.(request)
    },
    settled(request, outcome) {
      for (const step of steps) step.settled?.(request, outcome)
    },
  }
}
