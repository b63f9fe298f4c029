import type { HTTPGetAction, Lifecycle, LifecycleHandler, Probe } from '../../gen/core-v1.ts'
import { httpHeaderName, nonNegativeError, portName, portNumber } from '../../meta/names.ts'
import { type FieldError, fieldError } from '../../meta/status.ts'

/** Probes and life-cycle hooks: how a container is asked, and what it does when it starts and stops. */

export interface Probes {
  readonly livenessProbe?: Probe
  readonly readinessProbe?: Probe
  readonly startupProbe?: Probe
  readonly lifecycle?: Lifecycle
}

export function validateProbes(container: Probes, path: string, graceSeconds: number, errors: FieldError[]): void {
  const { livenessProbe, readinessProbe, startupProbe, lifecycle } = container
  if (lifecycle?.postStart) validateHandler(lifecycle.postStart, `${path}.lifecycle.postStart`, graceSeconds, errors)
  if (lifecycle?.preStop) validateHandler(lifecycle.preStop, `${path}.lifecycle.preStop`, graceSeconds, errors)
  if (livenessProbe) {
    validateProbe(livenessProbe, `${path}.livenessProbe`, errors)
    mustSucceedOnce(livenessProbe, `${path}.livenessProbe`, errors)
  }
  if (readinessProbe) {
    validateProbe(readinessProbe, `${path}.readinessProbe`, errors)
    if (readinessProbe.terminationGracePeriodSeconds !== undefined) {
      errors.push(
        fieldError.invalid(
          `${path}.readinessProbe.terminationGracePeriodSeconds`,
          readinessProbe.terminationGracePeriodSeconds,
          'must not be set for readinessProbes',
        ),
      )
    }
  }
  if (startupProbe) {
    validateProbe(startupProbe, `${path}.startupProbe`, errors)
    mustSucceedOnce(startupProbe, `${path}.startupProbe`, errors)
  }
}

function mustSucceedOnce(probe: Probe, path: string, errors: FieldError[]): void {
  if (probe.successThreshold !== 1) {
    errors.push(fieldError.invalid(`${path}.successThreshold`, probe.successThreshold ?? 0, 'must be 1'))
  }
}

const counts = [
  'initialDelaySeconds',
  'timeoutSeconds',
  'periodSeconds',
  'successThreshold',
  'failureThreshold',
] as const

function validateProbe(probe: Probe, path: string, errors: FieldError[]): void {
  validateHandler(probe, path, undefined, errors)
  for (const field of counts) {
    const value = probe[field]
    if (value !== undefined && value < 0) errors.push(fieldError.invalid(`${path}.${field}`, value, nonNegativeError))
  }
  const grace = probe.terminationGracePeriodSeconds
  if (grace !== undefined && grace <= 0) {
    errors.push(fieldError.invalid(`${path}.terminationGracePeriodSeconds`, grace, 'must be greater than 0'))
  }
}

type Handler = LifecycleHandler & Pick<Probe, 'grpc'>

/** Exactly one way to ask. `graceSeconds` is given for hooks, which may also sleep. */
function validateHandler(handler: Handler, path: string, graceSeconds: number | undefined, errors: FieldError[]): void {
  let count = 0
  const isFirst = (field: string): boolean => {
    count++
    if (count === 1) return true
    errors.push(fieldError.forbidden(`${path}.${field}`, 'may not specify more than 1 handler type'))
    return false
  }
  if (handler.exec && isFirst('exec') && (handler.exec.command ?? []).length === 0) {
    errors.push(fieldError.required(`${path}.exec.command`))
  }
  if (handler.httpGet && isFirst('httpGet')) validateHttpGet(handler.httpGet, `${path}.httpGet`, errors)
  if (handler.tcpSocket && isFirst('tcpSocket')) validatePort(handler.tcpSocket.port, `${path}.tcpSocket.port`, errors)
  if (handler.grpc && isFirst('grpc')) {
    for (const words of portNumber(handler.grpc.port)) {
      errors.push(fieldError.invalid(`${path}.grpc.port`, handler.grpc.port, words))
    }
  }
  if (handler.sleep && graceSeconds !== undefined && isFirst('sleep')) {
    const { seconds } = handler.sleep
    if (seconds < 0 || seconds > graceSeconds) {
      errors.push(
        fieldError.invalid(
          `${path}.sleep`,
          seconds,
          `must be non-negative and less than terminationGracePeriodSeconds (${graceSeconds})`,
        ),
      )
    }
  }
  if (count === 0) errors.push(fieldError.required(path, 'must specify a handler type'))
}

function validateHttpGet(action: HTTPGetAction, path: string, errors: FieldError[]): void {
  if (!action.path) errors.push(fieldError.required(`${path}.path`))
  validatePort(action.port, `${path}.port`, errors)
  if (action.scheme !== 'HTTP' && action.scheme !== 'HTTPS') {
    errors.push(fieldError.notSupported(`${path}.scheme`, action.scheme ?? '', ['HTTP', 'HTTPS']))
  }
  for (const header of action.httpHeaders ?? []) {
    for (const words of httpHeaderName(header.name)) {
      errors.push(fieldError.invalid(`${path}.httpHeaders`, header.name, words))
    }
  }
}

/** A number, or the name of a port of the container. */
export function validatePort(port: number | string, path: string, errors: FieldError[]): void {
  const found = typeof port === 'number' ? portNumber(port) : portName(port)
  for (const words of found) errors.push(fieldError.invalid(path, port, words))
}
