import type { Container, ContainerPort, EphemeralContainer, PodSpec } from '../../gen/core-v1.ts'
import { dns1123Label, portName, portNumber } from '../../meta/names.ts'
import { validateRequirements } from '../../meta/resources.ts'
import { type FieldError, fieldError } from '../../meta/status.ts'
import { validateEnv, validateEnvFrom } from './environment.ts'
import { validateProbes } from './probes.ts'
import { validateSecurity } from './security.ts'
import { validateMounts } from './volumes.ts'

/** What the containers of a pod may refer to. */
export interface PodScope {
  readonly spec: PodSpec
  readonly volumes: ReadonlySet<string>
  readonly claims: ReadonlySet<string>
  readonly graceSeconds: number
}

const protocols = ['SCTP', 'TCP', 'UDP']
const pullPolicies = ['Always', 'IfNotPresent', 'Never']
const messagePolicies = ['File', 'FallbackToLogsOnError']

export function validateContainers(scope: PodScope, path: string, errors: FieldError[]): void {
  const { containers = [], initContainers = [], ephemeralContainers = [] } = scope.spec
  if (containers.length === 0) errors.push(fieldError.required(`${path}.containers`))
  const names = new Set<string>()
  const hostPorts = new Set<string>()
  for (const [i, container] of containers.entries()) {
    const at = `${path}.containers[${i}]`
    validateContainer(container, scope, names, at, errors)
    validateHostPorts(container.ports, hostPorts, scope, at, errors)
    validateProbes(container, at, scope.graceSeconds, errors)
    if (container.restartPolicy !== undefined && !containerPolicies.includes(container.restartPolicy)) {
      errors.push(fieldError.notSupported(`${at}.restartPolicy`, container.restartPolicy, containerPolicies))
    }
  }
  for (const [i, container] of initContainers.entries()) {
    const at = `${path}.initContainers[${i}]`
    validateContainer(container, scope, names, at, errors)
    validateInit(container, scope, at, errors)
  }
  for (const [i, container] of ephemeralContainers.entries()) {
    const at = `${path}.ephemeralContainers[${i}]`
    validateContainer(container, scope, names, at, errors)
    const target = container.targetContainerName
    if (target && !names.has(target)) errors.push(fieldError.notFound(`${at}.targetContainerName`, target))
    for (const field of forbiddenInEphemeral) {
      if (container[field] !== undefined) {
        errors.push(fieldError.forbidden(`${at}.${field}`, 'cannot be set for an Ephemeral Container'))
      }
    }
  }
}

const containerPolicies = ['Always', 'Never', 'OnFailure']
const forbiddenInEphemeral = ['ports', 'livenessProbe', 'readinessProbe', 'startupProbe', 'lifecycle'] as const

/** Init containers end; only one that restarts by itself (a sidecar) may be probed. */
function validateInit(container: Container, scope: PodScope, at: string, errors: FieldError[]): void {
  const isSidecar = container.restartPolicy === 'Always'
  if (container.restartPolicy !== undefined && !containerPolicies.includes(container.restartPolicy)) {
    errors.push(fieldError.notSupported(`${at}.restartPolicy`, container.restartPolicy, containerPolicies))
  }
  if (isSidecar) {
    validateProbes(container, at, scope.graceSeconds, errors)
    return
  }
  for (const field of ['lifecycle', 'livenessProbe', 'readinessProbe', 'startupProbe'] as const) {
    if (container[field] !== undefined) {
      errors.push(
        fieldError.forbidden(`${at}.${field}`, 'may not be set for init containers without restartPolicy=Always'),
      )
    }
  }
}

function validateContainer(
  container: Container | EphemeralContainer,
  scope: PodScope,
  names: Set<string>,
  at: string,
  errors: FieldError[],
): void {
  if (!container.name) errors.push(fieldError.required(`${at}.name`))
  else {
    for (const words of dns1123Label(container.name)) {
      errors.push(fieldError.invalid(`${at}.name`, container.name, words))
    }
    if (names.has(container.name)) errors.push(fieldError.duplicate(`${at}.name`, container.name))
    names.add(container.name)
  }
  const image = container.image ?? ''
  if (image === '') errors.push(fieldError.required(`${at}.image`))
  validateChoice(container.terminationMessagePolicy, messagePolicies, `${at}.terminationMessagePolicy`, errors)
  validateChoice(container.imagePullPolicy, pullPolicies, `${at}.imagePullPolicy`, errors)
  if (container.ports) validatePorts(container.ports, `${at}.ports`, errors)
  if (container.env) validateEnv(container.env, `${at}.env`, errors)
  if (container.envFrom) validateEnvFrom(container.envFrom, `${at}.envFrom`, errors)
  if (container.volumeMounts) {
    const isPrivileged = container.securityContext?.privileged === true
    validateMounts(container.volumeMounts, scope.volumes, isPrivileged, `${at}.volumeMounts`, errors)
  }
  validateRequirements(container.resources, `${at}.resources`, scope.claims, errors)
  if (container.securityContext)
    validateSecurity(container.securityContext, scope.spec.hostUsers !== false, `${at}.securityContext`, errors)
}

/** Required, and one of a list. */
export function validateChoice(
  value: string | undefined,
  supported: readonly string[],
  path: string,
  errors: FieldError[],
): void {
  if (!value) errors.push(fieldError.required(path))
  else if (!supported.includes(value)) errors.push(fieldError.notSupported(path, value, supported))
}

function validatePorts(ports: readonly ContainerPort[], path: string, errors: FieldError[]): void {
  const names = new Set<string>()
  for (const [i, port] of ports.entries()) {
    const at = `${path}[${i}]`
    if (port.name) {
      const words = portName(port.name)
      for (const text of words) errors.push(fieldError.invalid(`${at}.name`, port.name, text))
      if (words.length === 0 && names.has(port.name)) errors.push(fieldError.duplicate(`${at}.name`, port.name))
      names.add(port.name)
    }
    if (!port.containerPort) errors.push(fieldError.required(`${at}.containerPort`))
    else {
      for (const words of portNumber(port.containerPort)) {
        errors.push(fieldError.invalid(`${at}.containerPort`, port.containerPort, words))
      }
    }
    if (port.hostPort) {
      for (const words of portNumber(port.hostPort)) {
        errors.push(fieldError.invalid(`${at}.hostPort`, port.hostPort, words))
      }
    }
    validateChoice(port.protocol, protocols, `${at}.protocol`, errors)
  }
}

function validateHostPorts(
  ports: readonly ContainerPort[] | undefined,
  taken: Set<string>,
  scope: PodScope,
  path: string,
  errors: FieldError[],
): void {
  for (const [i, port] of (ports ?? []).entries()) {
    const at = `${path}.ports[${i}]`
    if (scope.spec.hostNetwork && port.hostPort !== port.containerPort) {
      errors.push(
        fieldError.invalid(
          `${at}.hostPort`,
          port.hostPort ?? 0,
          'must match `containerPort` when `hostNetwork` is true',
        ),
      )
    }
    if (!port.hostPort) continue
    const key = `${port.protocol}/${port.hostIP ?? ''}/${port.hostPort}`
    if (taken.has(key)) errors.push(fieldError.duplicate(`${at}.hostPort`, key))
    taken.add(key)
  }
}
