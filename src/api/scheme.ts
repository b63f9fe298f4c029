import { validatingAdmissionPolicy } from './admissionregistration/validating-admission-policy.ts'
import { validatingAdmissionPolicyBinding } from './admissionregistration/validating-admission-policy-binding.ts'
import { customResourceDefinition } from './apiextensions/custom-resource-definition.ts'
import { controllerRevision } from './apps/controller-revision.ts'
import { daemonSet } from './apps/daemon-set.ts'
import { deployment } from './apps/deployment.ts'
import { replicaSet } from './apps/replica-set.ts'
import { selfSubjectReview } from './authentication/self-subject-review.ts'
import { tokenRequest } from './authentication/token-request.ts'
import { tokenReview } from './authentication/token-review.ts'
import { localSubjectAccessReview } from './authorization/local-subject-access-review.ts'
import { selfSubjectAccessReview } from './authorization/self-subject-access-review.ts'
import { selfSubjectRulesReview } from './authorization/self-subject-rules-review.ts'
import { subjectAccessReview } from './authorization/subject-access-review.ts'
import { scale } from './autoscaling/scale.ts'
import { certificateSigningRequest } from './certificates/certificate-signing-request.ts'
import { lease } from './coordination/lease.ts'
import { binding } from './core/binding.ts'
import { configMap } from './core/config-map.ts'
import { endpoints } from './core/endpoints.ts'
import { event } from './core/event.ts'
import { namespace } from './core/namespace.ts'
import { node } from './core/node.ts'
import { pod } from './core/pod.ts'
import { secret } from './core/secret.ts'
import { service } from './core/service.ts'
import { serviceAccount } from './core/service-account.ts'
import { endpointSlice } from './discovery/endpoint-slice.ts'
import { eventsEvent } from './events/event.ts'
import type { KindDefinition } from './kind.ts'
import type { KubeObject } from './meta/resource.ts'
import { ingress } from './networking/ingress.ts'
import { ingressClass } from './networking/ingress-class.ts'
import { networkPolicy } from './networking/network-policy.ts'
import { eviction } from './policy/eviction.ts'
import { podDisruptionBudget } from './policy/pod-disruption-budget.ts'
import { clusterRole } from './rbac/cluster-role.ts'
import { clusterRoleBinding } from './rbac/cluster-role-binding.ts'
import { role } from './rbac/role.ts'
import { roleBinding } from './rbac/role-binding.ts'

/** Forgets which kind of object a definition is for, so that they fit into one list. */
const erased = <K extends KubeObject>(kind: KindDefinition<K>): KindDefinition => kind as unknown as KindDefinition

/** Every built-in kind that has a path of its own. */
export const kinds: readonly KindDefinition[] = [
  erased(binding),
  erased(configMap),
  erased(endpoints),
  erased(event),
  erased(namespace),
  erased(node),
  erased(pod),
  erased(secret),
  erased(serviceAccount),
  erased(service),
  erased(controllerRevision),
  erased(daemonSet),
  erased(deployment),
  erased(replicaSet),
  erased(selfSubjectReview),
  erased(tokenReview),
  erased(localSubjectAccessReview),
  erased(selfSubjectAccessReview),
  erased(selfSubjectRulesReview),
  erased(subjectAccessReview),
  erased(certificateSigningRequest),
  erased(lease),
  erased(endpointSlice),
  erased(eventsEvent),
  erased(ingress),
  erased(ingressClass),
  erased(networkPolicy),
  erased(podDisruptionBudget),
  erased(clusterRole),
  erased(clusterRoleBinding),
  erased(role),
  erased(roleBinding),
  erased(customResourceDefinition),
  erased(validatingAdmissionPolicy),
  erased(validatingAdmissionPolicyBinding),
]

/** Kinds that are only the body of a subresource: `pods/eviction`, `deployments/scale`, `serviceaccounts/token`. */
export const bodyKinds: readonly KindDefinition[] = [erased(eviction), erased(scale), erased(tokenRequest)]
