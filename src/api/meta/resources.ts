import type { ResourceRequirements } from '../gen/core-v1.ts'
import { nonNegativeError, qualifiedName } from './names.ts'
import { compareQuantity, tryParseQuantity } from './quantity.ts'
import { type FieldError, fieldError } from './status.ts'

/** Lists of resources by name (`cpu`, `memory`, `hugepages-2Mi`, `example.com/gpu`). */

const containerResources: ReadonlySet<string> = new Set(['cpu', 'memory', 'ephemeral-storage'])
const standardResources: ReadonlySet<string> = new Set([
  'cpu',
  'memory',
  'ephemeral-storage',
  'storage',
  'pods',
  'services',
  'replicationcontrollers',
  'resourcequotas',
  'secrets',
  'configmaps',
  'persistentvolumeclaims',
  'services.nodeports',
  'services.loadbalancers',
  'requests.cpu',
  'requests.memory',
  'requests.storage',
  'requests.ephemeral-storage',
  'limits.cpu',
  'limits.memory',
  'limits.ephemeral-storage',
])

export const isHugePages = (name: string): boolean => name.startsWith('hugepages-')

/** Neither a standard resource nor in Kubernetes' own domains: whole numbers, requested as limited. */
function isExtendedResource(name: string): boolean {
  return name.includes('/') && !name.includes('kubernetes.io/') && !name.startsWith('requests.')
}

const wholeOnly = (name: string): boolean =>
  isExtendedResource(name) || name === 'pods' || name === 'services' || name.startsWith('count/')

/** Names and values of a list such as node.status.capacity. */
export function validateResourceList(
  list: Readonly<Record<string, string>> | undefined,
  path: string,
  errors: FieldError[],
  { container = false } = {},
): void {
  for (const name in list) {
    const at = `${path}[${name}]`
    if (!(container ? containerResources : standardResources).has(name)) validateName(name, at, container, errors)
    validateValue(name, list[name] ?? '0', at, errors)
  }
}

/** Only the values: a node may report what it likes. */
export function validateAmounts(
  list: Readonly<Record<string, string>> | undefined,
  path: string,
  errors: FieldError[],
): void {
  for (const name in list) validateValue(name, list[name] ?? '0', `${path}.${name}`, errors)
}

function validateName(name: string, at: string, container: boolean, errors: FieldError[]): void {
  const words = qualifiedName(name)
  for (const text of words) errors.push(fieldError.invalid(at, name, text))
  if (words.length > 0) {
    if (container && name.includes('/')) {
      errors.push(fieldError.invalid(at, name, "doesn't follow extended resource name standard"))
    }
    return
  }
  if (!name.includes('/')) {
    if (isHugePages(name)) return
    if (!standardResources.has(name)) {
      errors.push(fieldError.invalid(at, name, 'must be a standard resource type or fully qualified'))
    }
    if (container) errors.push(fieldError.invalid(at, name, 'must be a standard resource for containers'))
  } else if (container && !isExtendedResource(name) && !name.includes('kubernetes.io/')) {
    errors.push(fieldError.invalid(at, name, "doesn't follow extended resource name standard"))
  }
}

function validateValue(name: string, value: string, at: string, errors: FieldError[]): void {
  const quantity = tryParseQuantity(value)
  if (quantity === undefined) {
    errors.push(fieldError.invalid(at, value, 'must be a valid quantity'))
    return
  }
  if (quantity.nano < 0n) errors.push(fieldError.invalid(at, value, nonNegativeError))
  if (wholeOnly(name) && quantity.nano % 1_000_000_000n !== 0n) {
    errors.push(fieldError.invalid(at, value, 'must be an integer'))
  }
}

/** requests and limits of a container; `claims` names those of the pod. */
export function validateRequirements(
  requirements: ResourceRequirements | undefined,
  path: string,
  claims: ReadonlySet<string>,
  errors: FieldError[],
): void {
  if (requirements === undefined) return
  const { limits, requests } = requirements
  if (limits) validateResourceList(limits, `${path}.limits`, errors, { container: true })
  if (requests) {
    validateResourceList(requests, `${path}.requests`, errors, { container: true })
    for (const name in requests)
      compareWithLimit(name, requests[name] ?? '0', limits?.[name], `${path}.requests`, errors)
  }
  const names = [...Object.keys(limits ?? {}), ...Object.keys(requests ?? {})]
  if (names.some(isHugePages) && !names.includes('cpu') && !names.includes('memory')) {
    errors.push(fieldError.forbidden(path, 'HugePages require cpu or memory'))
  }
  const seen = new Set<string>()
  for (const [i, claim] of (requirements.claims ?? []).entries()) {
    const at = `${path}.claims[${i}]`
    if (!claim.name) errors.push(fieldError.required(`${at}.name`))
    else if (seen.has(`${claim.name}/${claim.request ?? ''}`)) errors.push(fieldError.duplicate(at, claim.name))
    else if (!claims.has(claim.name)) {
      errors.push(
        fieldError.notFound(
          at,
          claim.name,
          claims.size === 0
            ? 'must be one of the names in pod.spec.resourceClaims which is empty'
            : 'must be one of the names in pod.spec.resourceClaims',
        ),
      )
    }
    seen.add(`${claim.name}/${claim.request ?? ''}`)
  }
}

function compareWithLimit(
  name: string,
  request: string,
  limit: string | undefined,
  path: string,
  errors: FieldError[],
): void {
  const isExtended = isExtendedResource(name)
  if (limit === undefined) {
    if (isExtended || isHugePages(name)) {
      errors.push(
        fieldError.required(path.replace(/requests$/, 'limits'), 'Limit must be set for non overcommitable resources'),
      )
    }
    return
  }
  if (limit === request) return
  const requested = tryParseQuantity(request)
  const limited = tryParseQuantity(limit)
  if (requested === undefined || limited === undefined) return
  const order = compareQuantity(requested, limited)
  if (order !== 0 && (isExtended || isHugePages(name))) {
    errors.push(fieldError.invalid(path, request, `must be equal to ${name} limit of ${limit}`))
  } else if (order > 0) {
    errors.push(fieldError.invalid(path, request, `must be less than or equal to ${name} limit of ${limit}`))
  }
}
