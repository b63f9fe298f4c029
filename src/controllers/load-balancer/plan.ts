import type { Service } from '#api/gen/core-v1.ts'
import { formatAddress, parseAddress } from '#base/net/address.ts'
import { lowestFree, type Pool, poolContains } from './pool.ts'

/** Services that name this class, or none, are ours; others wait for their own controller (KEP-1959). */
export const loadBalancerClass = 'weft.dev/load-balancer'
/** Wanted addresses, one of each family at most, separated by commas; `spec.loadBalancerIP` is the older way. */
export const wantedAddressesAnnotation = 'weft.dev/load-balancer-ips'

export type Action =
  | { readonly do: 'nothing' }
  /** Writes these addresses into the status; none takes away what is there. */
  | { readonly do: 'assign'; readonly addresses: readonly string[]; readonly missing: readonly string[] }
  /** Cannot be given what it asks for; the status says nothing until it asks for something else. */
  | { readonly do: 'refuse'; readonly message: string; readonly addresses: readonly string[] }

/** Whether we give this Service its addresses. */
export const isOurs = ({ spec }: Service): boolean =>
  spec.type === 'LoadBalancer' && (spec.loadBalancerClass === undefined || spec.loadBalancerClass === loadBalancerClass)

/** What its status says now, in canonical form. */
export const addressesOf = ({ status }: Service): string[] =>
  (status?.loadBalancer?.ingress ?? []).flatMap(({ ip }) => (ip === undefined || ip === '' ? [] : [canonical(ip)]))

/**
 * Which addresses a Service gets: those that it asks for, those that it has, else the lowest free ones, one for each of its
 * families that has a pool. What is taken is read from the Services themselves, so a restart changes nothing. Pure.
 */
export function planAddresses(
  service: Service,
  /** Whose an address is: `namespace/name`. */
  ownerOf: (address: string) => string | undefined,
  pools: readonly Pool[],
): Action {
  const has = addressesOf(service)
  const inPool = (address: string): boolean => {
    const parsed = parseAddress(address)
    return parsed !== undefined && pools.some((pool) => poolContains(pool, parsed))
  }
  if (!isOurs(service) || service.metadata.deletionTimestamp !== undefined) {
    // Another controller's addresses are none of our business; ours go with the type.
    const stale = service.spec.type !== 'LoadBalancer' && has.length > 0
    return stale ? { do: 'assign', addresses: [], missing: [] } : { do: 'nothing' }
  }
  const key = `${service.metadata.namespace}/${service.metadata.name}`
  const isTaken = (address: string): boolean => {
    const owner = ownerOf(address)
    return owner !== undefined && owner !== key
  }
  const wanted = wantedAddresses(service)
  const refused = wanted.flatMap((text) => whyNot(text, inPool, isTaken, ownerOf) ?? [])
  if (refused[0] !== undefined) {
    const kept = has.filter((address) => wanted.includes(address) && inPool(address) && !isTaken(address))
    return { do: 'refuse', message: `${fieldOf(service)}: ${refused[0]}`, addresses: kept }
  }
  const addresses: string[] = []
  const missing: string[] = []
  for (const family of familiesOf(service)) {
    const ofFamily = (address: string): boolean => parseAddress(address)?.family === family
    const address =
      wanted.find(ofFamily) ??
      has.find((a) => ofFamily(a) && inPool(a) && !isTaken(a)) ??
      lowestFree(pools, family, (a) => ownerOf(a) !== undefined)
    if (address === undefined) missing.push(`IPv${family}`)
    else addresses.push(address)
  }
  if (missing.length === 0 && same(addresses, has)) return { do: 'nothing' }
  return { do: 'assign', addresses, missing }
}

/** In the order of the Service's own families; a Service of before families has IPv4. */
const familiesOf = ({ spec }: Service): (4 | 6)[] =>
  (spec.ipFamilies ?? ['IPv4']).map((family) => (family === 'IPv6' ? 6 : 4))

function wantedAddresses({ metadata, spec }: Service): string[] {
  const text = metadata.annotations?.[wantedAddressesAnnotation] ?? spec.loadBalancerIP ?? ''
  return text
    .split(',')
    .map((part) => canonical(part.trim()))
    .filter((part) => part !== '')
}

/** Where it asks for addresses. */
const fieldOf = ({ metadata }: Service): string =>
  metadata.annotations?.[wantedAddressesAnnotation] === undefined
    ? 'spec.loadBalancerIP'
    : `metadata.annotations[${wantedAddressesAnnotation}]`

function whyNot(
  text: string,
  inPool: (address: string) => boolean,
  isTaken: (address: string) => boolean,
  ownerOf: (address: string) => string | undefined,
): string | undefined {
  if (parseAddress(text) === undefined) return `the wanted address ${JSON.stringify(text)} is not an IP address`
  if (!inPool(text)) return `the wanted address ${text} is in no pool of this cluster`
  if (isTaken(text)) return `the wanted address ${text} belongs to Service ${ownerOf(text)}`
  return undefined
}

function canonical(text: string): string {
  const address = parseAddress(text)
  return address === undefined ? text : formatAddress(address)
}

const same = (a: readonly string[], b: readonly string[]): boolean =>
  a.length === b.length && a.every((address, i) => address === b[i])
