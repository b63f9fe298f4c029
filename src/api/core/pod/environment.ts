import type { EnvFromSource, EnvVar, EnvVarSource, ResourceFieldSelector } from '../../gen/core-v1.ts'
import { configKey, dns1123Subdomain, envName, qualifiedName } from '../../meta/names.ts'
import { tryParseQuantity } from '../../meta/quantity.ts'
import { type FieldError, fieldError } from '../../meta/status.ts'

/** Environment variables and what they may be taken from. */

const envFields = [
  'metadata.name',
  'metadata.namespace',
  'metadata.uid',
  'spec.nodeName',
  'spec.serviceAccountName',
  'status.hostIP',
  'status.hostIPs',
  'status.podIP',
  'status.podIPs',
] as const
const subscripted: ReadonlySet<string> = new Set(['metadata.labels', 'metadata.annotations'])
const resourceFields = [
  'limits.cpu',
  'limits.ephemeral-storage',
  'limits.memory',
  'requests.cpu',
  'requests.ephemeral-storage',
  'requests.memory',
] as const
const memoryDivisors: readonly string[] = [
  '1',
  '1k',
  '1M',
  '1G',
  '1T',
  '1P',
  '1E',
  '1Ki',
  '1Mi',
  '1Gi',
  '1Ti',
  '1Pi',
  '1Ei',
]

export function validateEnv(variables: readonly EnvVar[], path: string, errors: FieldError[]): void {
  for (const [i, variable] of variables.entries()) {
    const at = `${path}[${i}]`
    if (!variable.name) errors.push(fieldError.required(`${at}.name`))
    else for (const words of envName(variable.name)) errors.push(fieldError.invalid(`${at}.name`, variable.name, words))
    if (variable.valueFrom) validateValueFrom(variable, variable.valueFrom, `${at}.valueFrom`, errors)
  }
}

function validateValueFrom(variable: EnvVar, source: EnvVarSource, path: string, errors: FieldError[]): void {
  const { fieldRef, resourceFieldRef, configMapKeyRef, secretKeyRef, fileKeyRef } = source
  let count = 0
  if (fieldRef) {
    count++
    validateFieldRef(fieldRef, envFields, `${path}.fieldRef`, errors)
  }
  if (resourceFieldRef) {
    count++
    validateResourceFieldRef(resourceFieldRef, `${path}.resourceFieldRef`, false, errors)
  }
  if (configMapKeyRef) {
    count++
    validateKeyRef(configMapKeyRef, `${path}.configMapKeyRef`, errors)
  }
  if (secretKeyRef) {
    count++
    validateKeyRef(secretKeyRef, `${path}.secretKeyRef`, errors)
  }
  if (fileKeyRef) count++
  if (count === 0) {
    errors.push(
      fieldError.invalid(
        path,
        '',
        'must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`',
      ),
    )
  } else if (variable.value) {
    errors.push(fieldError.invalid(path, '', 'may not be specified when `value` is not empty'))
  } else if (count > 1) {
    errors.push(fieldError.invalid(path, '', 'may not have more than one field specified at a time'))
  }
}

function validateKeyRef(reference: { name?: string; key?: string }, path: string, errors: FieldError[]): void {
  const name = reference.name ?? ''
  for (const words of dns1123Subdomain(name)) errors.push(fieldError.invalid(`${path}.name`, name, words))
  if (!reference.key) errors.push(fieldError.required(`${path}.key`))
  else {
    for (const words of configKey(reference.key)) errors.push(fieldError.invalid(`${path}.key`, reference.key, words))
  }
}

/** `metadata.labels['app']`: only with a key, and only where one map is meant. */
export function validateFieldRef(
  reference: { apiVersion?: string; fieldPath?: string },
  allowed: readonly string[],
  path: string,
  errors: FieldError[],
): void {
  if (!reference.apiVersion) {
    errors.push(fieldError.required(`${path}.apiVersion`))
    return
  }
  const at = `${path}.fieldPath`
  const expression = reference.fieldPath ?? ''
  if (expression === '') {
    errors.push(fieldError.required(at))
    return
  }
  const open = expression.indexOf("['")
  if (open > 0 && expression.endsWith("']")) {
    const field = expression.slice(0, open)
    const key = expression.slice(open + 2, -2)
    if (!subscripted.has(field)) {
      errors.push(
        fieldError.invalid(
          at,
          expression,
          `error converting fieldPath: field label does not support subscript: ${expression}`,
        ),
      )
      return
    }
    const words = qualifiedName(field === 'metadata.annotations' ? key.toLowerCase() : key)
    for (const text of words) errors.push(fieldError.invalid(path, key, text))
    return
  }
  if (allowed.includes(expression)) return
  errors.push(
    knownFields.has(expression)
      ? fieldError.notSupported(at, expression, allowed)
      : fieldError.invalid(at, expression, `error converting fieldPath: field label not supported: ${expression}`),
  )
}

const knownFields: ReadonlySet<string> = new Set([
  ...envFields,
  'metadata.labels',
  'metadata.annotations',
  'spec.restartPolicy',
  'spec.schedulerName',
  'spec.hostNetwork',
  'status.phase',
  'status.nominatedNodeName',
])

/** In a volume the container must be named, in its own environment it need not. */
export function validateResourceFieldRef(
  reference: ResourceFieldSelector,
  path: string,
  isVolume: boolean,
  errors: FieldError[],
): void {
  const { containerName, resource, divisor = '0' } = reference
  if (isVolume && !containerName) {
    errors.push(fieldError.required(`${path}.containerName`))
    return
  }
  if (!resource) {
    errors.push(fieldError.required(`${path}.resource`))
    return
  }
  const isHugePages = /^(limits|requests)\.hugepages-/.test(resource)
  if (!isHugePages && !(resourceFields as readonly string[]).includes(resource)) {
    errors.push(fieldError.notSupported(`${path}.resource`, resource, resourceFields))
    return
  }
  const zero = tryParseQuantity(divisor)?.nano === 0n
  const allowed = resource.endsWith('.cpu') ? ['1m', '1'] : memoryDivisors
  if (zero || allowed.includes(divisor)) return
  const kind = resource.endsWith('.cpu')
    ? 'cpu'
    : resource.endsWith('.memory')
      ? 'memory'
      : isHugePages
        ? 'hugepages'
        : 'local ephemeral storage'
  errors.push(
    fieldError.invalid(
      `${path}.divisor`,
      resource,
      kind === 'cpu'
        ? "only divisor's values 1m and 1 are supported with the cpu resource"
        : `only divisor's values ${memoryDivisors.join(', ')} are supported with the ${kind} resource`,
    ),
  )
}

export function validateEnvFrom(sources: readonly EnvFromSource[], path: string, errors: FieldError[]): void {
  for (const [i, { prefix, configMapRef, secretRef }] of sources.entries()) {
    const at = `${path}[${i}]`
    if (prefix) for (const words of envName(prefix)) errors.push(fieldError.invalid(`${at}.prefix`, prefix, words))
    let count = 0
    for (const [field, reference] of [
      ['configMapRef', configMapRef],
      ['secretRef', secretRef],
    ] as const) {
      if (reference === undefined) continue
      count++
      const name = reference.name ?? ''
      if (name === '') errors.push(fieldError.required(`${at}.${field}.name`))
      else {
        for (const words of dns1123Subdomain(name)) errors.push(fieldError.invalid(`${at}.${field}.name`, name, words))
      }
    }
    if (count === 0) errors.push(fieldError.invalid(path, '', 'must specify one of: `configMapRef` or `secretRef`'))
    if (count > 1) errors.push(fieldError.invalid(path, '', 'may not have more than one field specified at a time'))
  }
}
