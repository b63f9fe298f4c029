import type { Service, ServiceSpec } from '#api/gen/core-v1.ts'
import { type FieldError, fieldError } from '#api/meta/status.ts'
import { parseAddress } from '#base/net/address.ts'

export type Family = 'IPv4' | 'IPv6'
const noAddress = 'None'

/** Whether a Service has cluster addresses to speak of, `None` included. */
export const takesAddresses = (spec: ServiceSpec): boolean => spec.type !== 'ExternalName'
export const isHeadless = (spec: ServiceSpec): boolean => spec.clusterIPs?.[0] === noAddress
export const familyOf = (address: string): Family => (parseAddress(address)?.family === 6 ? 'IPv6' : 'IPv4')

/**
 * Makes `clusterIP`, `clusterIPs`, `ipFamilies` and `ipFamilyPolicy` agree, in place, as upstream does before it allocates:
 * what was left out is taken from the old object or from the cluster's families (primary first). Returns what cannot be.
 */
export function settleFamilies(next: Service, old: Service | undefined, cluster: readonly Family[]): FieldError[] {
  const { spec } = next
  normalize(spec, old?.spec)
  if (!takesAddresses(spec)) return []
  if (old && takesAddresses(old.spec)) inherit(spec, old.spec)
  const errors = familyErrors(spec, cluster)
  if (errors.length > 0) return errors
  spec.ipFamilyPolicy ??=
    isHeadless(spec) && noSelector(spec) && spec.ipFamilies === undefined ? 'RequireDualStack' : 'SingleStack'
  const families = chosenFamilies(spec, cluster)
  if (spec.ipFamilyPolicy === 'RequireDualStack' && families.length < 2 && !(isHeadless(spec) && noSelector(spec))) {
    return [
      fieldError.invalid(
        'spec.ipFamilyPolicy',
        spec.ipFamilyPolicy,
        'this cluster is not configured for dual-stack services',
      ),
    ]
  }
  spec.ipFamilies = families
  return []
}

const noSelector = ({ selector }: ServiceSpec): boolean => Object.keys(selector ?? {}).length === 0

/** The two spellings of the address: the singular leads on create, whichever was changed leads on update. */
function normalize(spec: ServiceSpec, old: ServiceSpec | undefined): void {
  const ip = spec.clusterIP ?? ''
  if (old === undefined || old.type === 'ExternalName') {
    if (ip !== '' && spec.clusterIPs === undefined) spec.clusterIPs = [ip]
    return
  }
  const oldIp = old.clusterIP ?? ''
  const sameList = JSON.stringify(spec.clusterIPs) === JSON.stringify(old.clusterIPs)
  if (ip === oldIp || !sameList) return
  if (ip === '') delete spec.clusterIPs
  else spec.clusterIPs = [ip]
}

/** On update: what the client left out stays as it was, and a change between one and two stacks takes or drops the second. */
function inherit(spec: ServiceSpec, old: ServiceSpec): void {
  if ((spec.clusterIP ?? '') === '' && old.clusterIP !== undefined) spec.clusterIP = old.clusterIP
  if (spec.clusterIPs === undefined && old.clusterIPs && spec.clusterIP === old.clusterIP) {
    spec.clusterIPs = [...old.clusterIPs]
  }
  if (old.ipFamilyPolicy !== undefined) spec.ipFamilyPolicy ??= old.ipFamilyPolicy
  if (old.ipFamilies) spec.ipFamilies ??= [...old.ipFamilies]
  if (spec.ipFamilyPolicy === 'SingleStack' && old.ipFamilyPolicy !== 'SingleStack') {
    const untouched = JSON.stringify(spec.ipFamilies) === JSON.stringify(old.ipFamilies)
    if (untouched && spec.ipFamilies) spec.ipFamilies = spec.ipFamilies.slice(0, 1)
    if (JSON.stringify(spec.clusterIPs) === JSON.stringify(old.clusterIPs))
      spec.clusterIPs = spec.clusterIPs?.slice(0, 1) ?? []
  }
}

function familyErrors(spec: ServiceSpec, cluster: readonly Family[]): FieldError[] {
  const errors: FieldError[] = []
  const families = spec.ipFamilies ?? []
  families.forEach((family, i) => {
    const path = `spec.ipFamilies[${i}]`
    if (family !== 'IPv4' && family !== 'IPv6') errors.push(fieldError.notSupported(path, family, ['IPv4', 'IPv6']))
    else if (!cluster.includes(family)) errors.push(fieldError.invalid(path, family, 'not configured on this cluster'))
    else if (families.indexOf(family) !== i) errors.push(fieldError.duplicate(path, family))
  })
  if (isHeadless(spec)) return errors
  const addresses = spec.clusterIPs ?? []
  addresses.forEach((address, i) => {
    const path = `spec.clusterIPs[${i}]`
    if (parseAddress(address) === undefined) {
      errors.push(fieldError.invalid(path, address, 'must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)'))
      return
    }
    const family = familyOf(address)
    const wanted = families[i]
    if (!cluster.includes(family))
      errors.push(fieldError.invalid(path, address, `${family} is not configured on this cluster`))
    else if (wanted !== undefined && wanted !== family) {
      errors.push(fieldError.invalid(path, address, `expected an ${wanted} value as indicated by \`ipFamilies[${i}]\``))
    }
  })
  if (spec.ipFamilyPolicy === undefined || spec.ipFamilyPolicy === 'SingleStack') {
    const two = addresses.length > 1 ? 'clusterIPs' : families.length > 1 ? 'ipFamilies' : undefined
    if (two !== undefined) {
      const why = `must be "RequireDualStack" or "PreferDualStack" when multiple \`${two}\` are specified`
      errors.push(fieldError.invalid('spec.ipFamilyPolicy', spec.ipFamilyPolicy ?? '', why))
    }
  }
  return errors
}

function chosenFamilies(spec: ServiceSpec, cluster: readonly Family[]): Family[] {
  const chosen = [...((spec.ipFamilies ?? []) as Family[])]
  if (!isHeadless(spec)) {
    for (const address of (spec.clusterIPs ?? []).slice(chosen.length)) chosen.push(familyOf(address))
  }
  const [primary = 'IPv4'] = cluster
  if (chosen.length === 0) chosen.push(primary)
  if (spec.ipFamilyPolicy === 'SingleStack' || chosen.length > 1) return chosen
  // A headless Service without selector may name addresses of both families whatever the cluster has.
  const both: readonly Family[] = isHeadless(spec) && noSelector(spec) ? ['IPv4', 'IPv6'] : cluster
  const other = both.find((family) => family !== chosen[0])
  return other === undefined ? chosen : [...chosen, other]
}
