import type {
  AppArmorProfile,
  PodSecurityContext,
  PodSpec,
  SeccompProfile,
  SecurityContext,
} from '../../gen/core-v1.ts'
import { goForm } from '../../meta/go-form.ts'
import { inclusiveRangeError } from '../../meta/names.ts'
import { type FieldError, fieldError } from '../../meta/status.ts'

/** Identities and privileges of containers. */

const idMax = 2 ** 31 - 1
const sysctl = /^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$/
const sysctlWords =
  'must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$'

function validateId(id: number | undefined, path: string, errors: FieldError[]): void {
  if (id !== undefined && (id < 0 || id > idMax))
    errors.push(fieldError.invalid(path, id, inclusiveRangeError(0, idMax)))
}

function validateSeccomp(profile: SeccompProfile | undefined, path: string, errors: FieldError[]): void {
  if (profile === undefined) return
  const { type, localhostProfile } = profile
  if (type === 'Localhost') {
    if (!localhostProfile) {
      errors.push(fieldError.required(`${path}.localhostProfile`, 'must be set when seccomp type is Localhost'))
    } else {
      const at = `${path}.localhostProfile`
      if (localhostProfile.startsWith('/')) {
        errors.push(fieldError.invalid(at, localhostProfile, 'must be a relative path'))
      }
      if (localhostProfile.split('/').includes('..')) {
        errors.push(fieldError.invalid(at, localhostProfile, "must not contain '..'"))
      }
    }
    return
  }
  if (localhostProfile !== undefined) {
    errors.push(
      fieldError.invalid(
        `${path}.localhostProfile`,
        goForm(profile, 'core/v1.SeccompProfile'),
        'can only be set when seccomp type is Localhost',
      ),
    )
  }
  if (!type) errors.push(fieldError.required(`${path}.type`, 'type is required when seccompProfile is set'))
  else if (type !== 'RuntimeDefault' && type !== 'Unconfined') {
    errors.push(fieldError.notSupported(`${path}.type`, type, ['Localhost', 'RuntimeDefault', 'Unconfined']))
  }
}

export function validatePodSecurity(
  spec: PodSpec,
  context: PodSecurityContext,
  path: string,
  errors: FieldError[],
): void {
  const at = `${path}.securityContext`
  validateId(context.runAsUser, `${at}.runAsUser`, errors)
  validateId(context.runAsGroup, `${at}.runAsGroup`, errors)
  validateId(context.fsGroup, `${at}.fsGroup`, errors)
  for (const [i, group] of (context.supplementalGroups ?? []).entries()) {
    validateId(group, `${at}.supplementalGroups[${i}]`, errors)
  }
  if (spec.shareProcessNamespace && spec.hostPID) {
    errors.push(
      fieldError.invalid(
        `${at}.shareProcessNamespace`,
        true,
        'ShareProcessNamespace and HostPID cannot both be enabled',
      ),
    )
  }
  const names = new Set<string>()
  for (const [i, { name }] of (context.sysctls ?? []).entries()) {
    const field = `${at}.sysctls[${i}].name`
    if (!name) errors.push(fieldError.required(field))
    else if (name.length > 253 || !sysctl.test(name)) errors.push(fieldError.invalid(field, name, sysctlWords))
    else if (names.has(name)) errors.push(fieldError.duplicate(field, name))
    names.add(name)
  }
  const policy = context.fsGroupChangePolicy
  if (policy !== undefined && policy !== 'Always' && policy !== 'OnRootMismatch') {
    errors.push(fieldError.notSupported(`${at}.fsGroupChangePolicy`, policy, ['Always', 'OnRootMismatch']))
  }
  const groups = context.supplementalGroupsPolicy
  if (groups !== undefined && groups !== 'Merge' && groups !== 'Strict') {
    errors.push(fieldError.notSupported(`${at}.supplementalGroupsPolicy`, groups, ['Merge', 'Strict']))
  }
  validateSeccomp(context.seccompProfile, `${at}.seccompProfile`, errors)
  validateAppArmor(context.appArmorProfile, `${at}.appArmorProfile`, errors)
  if (spec.hostUsers === false) {
    for (const field of ['hostPID', 'hostIPC'] as const) {
      if (spec[field]) {
        errors.push(fieldError.forbidden(`${path}.${field}`, 'when `pod.Spec.HostUsers` is false'))
      }
    }
  }
}

function validateAppArmor(profile: AppArmorProfile | undefined, path: string, errors: FieldError[]): void {
  if (profile === undefined) return
  const { type, localhostProfile } = profile
  if (type === 'Localhost') {
    if (localhostProfile === undefined) {
      errors.push(fieldError.required(`${path}.localhostProfile`, 'must be set when AppArmor type is Localhost'))
    } else if (localhostProfile.trim() === '') {
      errors.push(fieldError.required(`${path}.localhostProfile`, 'must be set when AppArmor type is Localhost'))
    }
    return
  }
  if (localhostProfile !== undefined) {
    errors.push(
      fieldError.invalid(
        `${path}.localhostProfile`,
        localhostProfile,
        'can only be set when AppArmor type is Localhost',
      ),
    )
  }
  if (!type) errors.push(fieldError.required(`${path}.type`, 'type is required when appArmorProfile is set'))
  else if (type !== 'RuntimeDefault' && type !== 'Unconfined') {
    errors.push(fieldError.notSupported(`${path}.type`, type, ['Localhost', 'RuntimeDefault', 'Unconfined']))
  }
}

export function validateSecurity(
  context: SecurityContext,
  hostUsers: boolean,
  path: string,
  errors: FieldError[],
): void {
  validateId(context.runAsUser, `${path}.runAsUser`, errors)
  validateId(context.runAsGroup, `${path}.runAsGroup`, errors)
  validateSeccomp(context.seccompProfile, `${path}.seccompProfile`, errors)
  const mount = context.procMount
  if (mount !== undefined && mount !== 'Default' && mount !== 'Unmasked') {
    errors.push(fieldError.notSupported(`${path}.procMount`, mount, ['Default', 'Unmasked']))
  }
  if (mount === 'Unmasked' && hostUsers) {
    errors.push(fieldError.invalid(`${path}.procMount`, mount, '`hostUsers` must be false to use `Unmasked`'))
  }
  validateAppArmor(context.appArmorProfile, `${path}.appArmorProfile`, errors)
  if (context.allowPrivilegeEscalation !== false) return
  if (context.privileged) {
    errors.push(
      fieldError.invalid(
        path,
        goForm(context, 'core/v1.SecurityContext'),
        'cannot set `allowPrivilegeEscalation` to false and `privileged` to true',
      ),
    )
  }
  if (context.capabilities?.add?.some((capability) => capability === 'CAP_SYS_ADMIN')) {
    errors.push(
      fieldError.invalid(
        path,
        goForm(context, 'core/v1.SecurityContext'),
        'cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN',
      ),
    )
  }
}
