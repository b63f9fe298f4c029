import type { PodSpec, PodTemplateSpec } from '../../gen/core-v1.ts'
import { validateAddress } from '../../meta/ip.ts'
import { validateLabels } from '../../meta/labels.ts'
import {
  dns1123Label,
  dns1123Subdomain,
  dns1123SubdomainWithUnderscore,
  inclusiveRangeError,
  qualifiedName,
} from '../../meta/names.ts'
import { validateAnnotations } from '../../meta/object-meta.ts'
import { validateRequirements, validateResourceList } from '../../meta/resources.ts'
import { type FieldError, fieldError } from '../../meta/status.ts'
import { validateChoice, validateContainers } from './containers.ts'
import { validateAffinity, validateSpread, validateTolerations } from './placement.ts'
import { validatePodSecurity } from './security.ts'
import { validatePullSecrets, validateVolumes } from './volumes.ts'

const restartPolicies = ['Always', 'OnFailure', 'Never']
const dnsPolicies = ['ClusterFirstWithHostNet', 'ClusterFirst', 'Default', 'None']
const noClaims: ReadonlySet<string> = new Set()
const int32Max = 2 ** 31 - 1

/** Everything that holds for the spec of a pod or of a template (kk:pkg/apis/core/validation). */
export function validatePodSpec(spec: PodSpec, path: string, errors: FieldError[]): void {
  const volumes = validateVolumes(spec.volumes ?? [], `${path}.volumes`, errors)
  const claims = spec.resourceClaims ? new Set(spec.resourceClaims.map(({ name }) => name)) : noClaims
  const graceSeconds = spec.terminationGracePeriodSeconds ?? 30
  validateContainers({ spec, volumes, claims, graceSeconds }, path, errors)
  if (spec.resources) validateRequirements(spec.resources, `${path}.resources`, claims, errors)
  validateChoice(spec.restartPolicy, restartPolicies, `${path}.restartPolicy`, errors)
  validateChoice(spec.dnsPolicy, dnsPolicies, `${path}.dnsPolicy`, errors)
  if (spec.nodeSelector) errors.push(...validateLabels(spec.nodeSelector, `${path}.nodeSelector`))
  if (spec.securityContext) validatePodSecurity(spec, spec.securityContext, path, errors)
  if (spec.imagePullSecrets) validatePullSecrets(spec, path, errors)
  if (spec.affinity) validateAffinity(spec.affinity, `${path}.affinity`, errors)
  validateDnsConfig(spec, path, errors)
  for (const [i, { conditionType }] of (spec.readinessGates ?? []).entries()) {
    for (const words of qualifiedName(conditionType)) {
      errors.push(fieldError.invalid(`${path}.readinessGates[${i}].conditionType`, conditionType, words))
    }
  }
  validateGates(spec, path, errors)
  if (spec.topologySpreadConstraints) {
    validateSpread(spec.topologySpreadConstraints, `${path}.topologySpreadConstraints`, errors)
  }
  checkName(spec.serviceAccountName, dns1123Subdomain, `${path}.serviceAccountName`, errors)
  checkName(spec.nodeName, dns1123Subdomain, `${path}.nodeName`, errors)
  checkName(spec.hostname, dns1123Label, `${path}.hostname`, errors)
  checkName(spec.subdomain, dns1123Label, `${path}.subdomain`, errors)
  checkName(spec.priorityClassName, dns1123Subdomain, `${path}.priorityClassName`, errors)
  checkName(spec.runtimeClassName, dns1123Subdomain, `${path}.runtimeClassName`, errors)
  const deadline = spec.activeDeadlineSeconds
  if (deadline !== undefined && (deadline < 1 || deadline > int32Max)) {
    errors.push(fieldError.invalid(`${path}.activeDeadlineSeconds`, deadline, inclusiveRangeError(1, int32Max)))
  }
  if (spec.tolerations) validateTolerations(spec.tolerations, `${path}.tolerations`, errors)
  for (const [i, alias] of (spec.hostAliases ?? []).entries()) {
    errors.push(...validateAddress(alias.ip, `${path}.hostAliases[${i}].ip`))
    for (const [j, name] of (alias.hostnames ?? []).entries()) {
      for (const words of dns1123Subdomain(name)) {
        errors.push(fieldError.invalid(`${path}.hostAliases[${i}].hostnames[${j}]`, name, words))
      }
    }
  }
  const preemption = spec.preemptionPolicy
  if (preemption !== undefined && preemption !== 'PreemptLowerPriority' && preemption !== 'Never') {
    errors.push(fieldError.notSupported(`${path}.preemptionPolicy`, preemption, ['PreemptLowerPriority', 'Never']))
  }
  if (spec.overhead) validateResourceList(spec.overhead, `${path}.overhead.limits`, errors, { container: true })
  if (spec.os !== undefined && spec.os.name !== 'linux' && spec.os.name !== 'windows') {
    errors.push(
      spec.os.name
        ? fieldError.notSupported(`${path}.os`, spec.os.name, ['linux', 'windows'])
        : fieldError.required(`${path}.os.name`, 'cannot be empty'),
    )
  }
}

function checkName(
  value: string | undefined,
  check: (value: string) => readonly string[],
  path: string,
  errors: FieldError[],
): void {
  if (value) for (const words of check(value)) errors.push(fieldError.invalid(path, value, words))
}

function validateGates(spec: PodSpec, path: string, errors: FieldError[]): void {
  const seen = new Set<string>()
  for (const [i, { name }] of (spec.schedulingGates ?? []).entries()) {
    const at = `${path}.schedulingGates[${i}]`
    for (const words of qualifiedName(name)) errors.push(fieldError.invalid(at, name, words))
    if (seen.has(name)) errors.push(fieldError.duplicate(at, name))
    seen.add(name)
  }
}

function validateDnsConfig(spec: PodSpec, path: string, errors: FieldError[]): void {
  const at = `${path}.dnsConfig`
  const { dnsConfig } = spec
  if (spec.dnsPolicy === 'None') {
    if (dnsConfig === undefined) {
      errors.push(fieldError.required(at, 'must provide `dnsConfig` when `dnsPolicy` is None'))
      return
    }
    if ((dnsConfig.nameservers ?? []).length === 0) {
      errors.push(
        fieldError.required(`${at}.nameservers`, 'must provide at least one DNS nameserver when `dnsPolicy` is None'),
      )
      return
    }
  }
  if (dnsConfig === undefined) return
  const { nameservers = [], searches = [], options = [] } = dnsConfig
  if (nameservers.length > 3) {
    errors.push(fieldError.invalid(`${at}.nameservers`, nameservers, 'must not have more than 3 nameservers'))
  }
  for (const [i, server] of nameservers.entries()) errors.push(...validateAddress(server, `${at}.nameservers[${i}]`))
  if (searches.length > 32) {
    errors.push(fieldError.invalid(`${at}.searches`, searches, 'must not have more than 32 search paths'))
  }
  if (searches.join(' ').length > 2048) {
    errors.push(
      fieldError.invalid(
        `${at}.searches`,
        searches,
        'must not have more than 2048 characters (including spaces) in the search list',
      ),
    )
  }
  for (const [i, search] of searches.entries()) {
    if (search === '.') continue
    for (const words of dns1123SubdomainWithUnderscore(search.replace(/\.$/, ''))) {
      errors.push(fieldError.invalid(`${at}.searches[${i}]`, search, words))
    }
  }
  for (const [i, { name }] of options.entries()) {
    if (!name) errors.push(fieldError.required(`${at}.options[${i}]`, 'must not be empty'))
  }
}

/** Metadata and spec of a template; a template has no name of its own to check. */
export function validateTemplate(template: PodTemplateSpec, path: string, errors: FieldError[]): void {
  const { metadata, spec } = template
  if (metadata?.labels) errors.push(...validateLabels(metadata.labels, `${path}.labels`))
  if (metadata?.annotations) validateAnnotations(metadata.annotations, `${path}.annotations`, errors)
  validatePodSpec(spec, `${path}.spec`, errors)
  if ((spec.ephemeralContainers ?? []).length > 0) {
    errors.push(
      fieldError.forbidden(`${path}.spec.ephemeralContainers`, 'ephemeral containers not allowed in pod template'),
    )
  }
}

/** What a pod may not, and a template may: templates were never checked for it. */
export function validatePodOnly(spec: PodSpec, errors: FieldError[]): void {
  for (const list of ['containers', 'initContainers'] as const) {
    for (const [i, { image = '' }] of (spec[list] ?? []).entries()) {
      if (image !== image.trim()) {
        errors.push(
          fieldError.invalid(`spec.${list}[${i}].image`, image, 'must not have leading or trailing whitespace'),
        )
      }
    }
  }
  if (spec.serviceAccountName) return
  for (const [i, { projected }] of (spec.volumes ?? []).entries()) {
    for (const [j, { serviceAccountToken }] of (projected?.sources ?? []).entries()) {
      if (serviceAccountToken === undefined) continue
      errors.push(
        fieldError.forbidden(
          `spec.volumes[${i}].projected.sources[${j}].serviceAccountToken`,
          'must not be specified when serviceAccountName is not set',
        ),
      )
    }
  }
}
