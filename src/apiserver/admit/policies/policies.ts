import { type CompiledPolicy, compilePolicy } from '#api/cel/admission/policy.ts'
import type {
  ValidatingAdmissionPolicyBinding as Binding,
  ParamRef,
  ValidatingAdmissionPolicy as Policy,
} from '#api/gen/admissionregistration-v1.ts'
import {
  namespaces,
  validatingAdmissionPolicies as policies,
  validatingAdmissionPolicyBindings as policyBindings,
} from '#api/gen/resources.ts'
import { formatApiVersion } from '#api/meta/gvk.ts'
import type { KubeObject, Resource } from '#api/meta/resource.ts'
import { selectorFrom } from '#api/meta/selector.ts'
import { StatusError } from '#api/meta/status.ts'
import type { AdmissionRequest, Authorize, Registry } from '../../step.ts'
import { type AdmissionStep, refusal } from '../step.ts'
import { type Denial, evaluatePolicy } from './evaluate.ts'
import { type Matcher, matcherOf, matchRequest } from './match.ts'
import { valuesOf } from './request.ts'

/** A policy in effect: compiled, with its bindings. */
interface Hook {
  readonly policy: Policy
  readonly matcher: Matcher
  readonly compiled: CompiledPolicy
  /** An expression that no longer compiles fails every request that the policy is about. */
  readonly problem: string | undefined
  readonly bindings: readonly { readonly binding: Binding; readonly matcher: Matcher }[]
}

/** Policies must not be able to lock out those who would mend them. */
const exempt = new Set([
  'validatingwebhookconfigurations',
  'mutatingwebhookconfigurations',
  'validatingadmissionpolicies',
  'validatingadmissionpolicybindings',
  'mutatingadmissionpolicies',
  'mutatingadmissionpolicybindings',
])
const codes: Readonly<Record<string, number>> = {
  Forbidden: 403,
  Unauthorized: 401,
  RequestEntityTooLarge: 413,
  Invalid: 422,
}

/** Holds requests to the ValidatingAdmissionPolicies that are bound; there is no audit log, so Audit says nothing. */
export function admissionPolicies(registry: Registry, authorize: Authorize): AdmissionStep {
  let hooks: readonly Hook[] | undefined = registry.serves(policies) ? undefined : []
  if (hooks === undefined) {
    const forget = (): void => {
      hooks = undefined
    }
    registry.onChange(policies, forget)
    registry.onChange(policyBindings, forget)
  }
  return {
    name: 'ValidatingAdmissionPolicy',
    validate(request) {
      hooks ??= hooksOf(registry)
      if (hooks.length === 0) return
      const { group, resource } = request.attributes
      if (group === 'admissionregistration.k8s.io' && exempt.has(resource)) return
      const denied: string[] = []
      let first: Denial | undefined
      for (const hook of hooks) {
        for (const { binding, denial } of denialsOf(hook, request, registry, authorize)) {
          const policyName = hook.policy.metadata.name
          const by = binding === undefined ? '' : ` with binding '${binding.metadata.name}'`
          const actions = binding?.spec.validationActions ?? ['Deny']
          if (actions.includes('Warn'))
            request.warn(`Validation failed for ValidatingAdmissionPolicy '${policyName}'${by}: ${denial.message}`)
          if (!actions.includes('Deny')) continue
          first ??= denial
          denied.push(`ValidatingAdmissionPolicy '${policyName}'${by} denied request: ${denial.message}`)
        }
      }
      if (first !== undefined) throw refusalOf(request, denied[0] ?? '', first.reason)
    },
  }
}

function hooksOf(registry: Registry): Hook[] {
  const bindings = Map.groupBy(registry.list(policyBindings), ({ spec }) => spec.policyName ?? '')
  const hooks: Hook[] = []
  for (const policy of registry.list(policies)) {
    const bound = bindings.get(policy.metadata.name)
    if (bound === undefined) continue
    const { policy: compiled, problems } = compilePolicy(policy.spec)
    hooks.push({
      policy,
      matcher: matcherOf(policy.spec.matchConstraints ?? {}),
      compiled,
      problem: problems[0]?.detail,
      bindings: bound.map((binding) => ({ binding, matcher: matcherOf(binding.spec.matchResources ?? {}) })),
    })
  }
  return hooks.toSorted((a, b) => (a.policy.metadata.name < b.policy.metadata.name ? -1 : 1))
}

function* denialsOf(
  { policy, matcher, compiled, problem, bindings }: Hook,
  request: AdmissionRequest,
  registry: Registry,
  authorize: Authorize,
): Generator<{ readonly binding: Binding | undefined; readonly denial: Denial }> {
  const matched = matchRequest(matcher, request, registry)
  if (matched === undefined) return
  const isFail = policy.spec.failurePolicy !== 'Ignore'
  if (problem !== undefined) {
    if (isFail) yield { binding: undefined, denial: { message: problem, reason: 'Invalid' } }
    return
  }
  for (const { binding, matcher: narrowed } of bindings) {
    if (matchRequest(narrowed, request, registry) === undefined) continue
    const params = paramsOf(policy, binding.spec.paramRef, request, registry)
    if (typeof params === 'string') {
      const message = `failed to configure binding: ${params}`
      // Not knowing the parameters is a fault of the set-up: it denies whatever the binding's actions are.
      if (isFail) yield { binding: asDenying(binding), denial: { message, reason: 'Invalid' } }
      continue
    }
    const { namespace: name, group, resource } = request.attributes
    const isNamespace = group === '' && resource === 'namespaces'
    const namespace = name === '' || isNamespace ? undefined : registry.get(namespaces, '', name)
    for (const param of params) {
      const values = valuesOf(request, matched, namespace, param, authorize)
      for (const denial of evaluatePolicy(policy.spec, compiled, values)) yield { binding, denial }
    }
  }
}

const asDenying = (binding: Binding): Binding => ({
  ...binding,
  spec: { ...binding.spec, validationActions: ['Deny'] },
})

/** The objects that a binding names as parameters; a text is what keeps them from being found. */
function paramsOf(
  { spec: { paramKind } }: Policy,
  ref: ParamRef | undefined,
  { attributes }: AdmissionRequest,
  registry: Registry,
): readonly (KubeObject | undefined)[] | string {
  if (paramKind === undefined || ref === undefined) return [undefined]
  const resource = resourceOf(paramKind.apiVersion ?? '', paramKind.kind ?? '', registry)
  if (resource === undefined) return `paramKind kind \`${paramKind.apiVersion}, Kind=${paramKind.kind}\` not known`
  if (ref.namespace && !resource.namespaced)
    return 'paramRef.namespace must not be provided for a cluster-scoped `paramKind`'
  const namespace = resource.namespaced ? ref.namespace || attributes.namespace : ''
  if (resource.namespaced && namespace === '')
    return 'cannot use namespaced paramRef in policy binding that matches cluster-scoped resources'
  const found = findParams(resource, namespace, ref, registry)
  if (found.length === 0 && ref.parameterNotFoundAction === 'Deny')
    return 'no params found for policy binding with `Deny` parameterNotFoundAction'
  return found
}

function findParams(resource: Resource, namespace: string, ref: ParamRef, registry: Registry): KubeObject[] {
  if (ref.name) {
    const found = registry.get(resource, namespace, ref.name)
    return found === undefined ? [] : [found]
  }
  const selector = selectorFrom(ref.selector ?? {})
  const all = [...registry.list(resource, resource.namespaced ? namespace : undefined)]
  return all.filter(({ metadata }) => selector.matches(metadata.labels ?? {}))
}

function resourceOf(apiVersion: string, kind: string, registry: Registry): Resource | undefined {
  for (const resource of registry.resources())
    if (resource.kind === kind && formatApiVersion(resource) === apiVersion) return resource
  return undefined
}

function refusalOf(request: AdmissionRequest, message: string, reason: string): StatusError {
  const { status } = refusal(request, message)
  const causes = [...(status.details?.causes ?? []), { message }]
  return new StatusError({ ...status, reason, code: codes[reason] ?? 422, details: { ...status.details, causes } })
}
