import { isIP } from 'node:net'
import type { Service } from '#api/gen/core-v1.ts'
import type { EndpointSlice } from '#api/gen/discovery-v1.ts'
import { parseAddress } from '#base/net/address.ts'
import { keyOf } from '#client/key.ts'
import { resolverService } from './address.ts'
import type { Rr } from './wire.ts'

/** One record. `rr` absent: the name is there and has none. */
export interface NamedRecord {
  readonly name: string
  readonly rr?: Rr
}

/** Version of the "Kubernetes DNS-Based Service Discovery" specification that these records follow. */
const schemaVersion = '1.1.0'
/** All are equal: what a target has more of, the Service says otherwise. */
const srvFixed = { priority: 0, weight: 100 }

/** What a cluster has without any object: sections 2.2 of the specification, and the servers of the zone. */
export function fixedRecords(domain: string): NamedRecord[] {
  return [
    { name: `dns-version.${domain}`, rr: { type: 'TXT', text: schemaVersion } },
    { name: domain, rr: { type: 'NS', target: primaryOf(domain) } },
    { name: `svc.${domain}` },
    { name: `pod.${domain}` },
  ]
}

export const primaryOf = (domain: string): string => `ns.dns.${domain}`

export const namespaceRecords = (namespace: string, domain: string): NamedRecord[] => [
  { name: `${namespace}.svc.${domain}` },
  { name: `${namespace}.pod.${domain}` },
]

/** Sections 2.3, 2.4 and 2.5 of the specification: what a Service and its slices come to. Pure. */
export function serviceRecords(service: Service, slices: readonly EndpointSlice[], domain: string): NamedRecord[] {
  const { spec, metadata } = service
  const name = `${metadata.name}.${metadata.namespace}.svc.${domain}`.toLowerCase()
  if (spec.type === 'ExternalName') {
    const target = (spec.externalName ?? '').replace(/\.$/, '').toLowerCase()
    return target === '' ? [] : [{ name, rr: { type: 'CNAME', target } }]
  }
  const clusterIps = (spec.clusterIPs ?? [spec.clusterIP ?? '']).filter((ip) => ip !== '')
  if (clusterIps.length === 0) return []
  if (clusterIps[0] === 'None') return headlessRecords(service, slices, name)
  const ports = (spec.ports ?? []).flatMap(({ name: port = '', port: number, protocol = 'TCP' }): NamedRecord[] =>
    port === '' ? [] : [srv(port, protocol, name, number, name)],
  )
  const own = keyOf(service) === resolverService ? [primaryOf(domain)] : []
  return [
    ...clusterIps.flatMap((ip) => [...address(name, ip), ...pointer(ip, name), ...own.flatMap((n) => address(n, ip))]),
    ...ports,
  ]
}

function headlessRecords({ spec }: Service, slices: readonly EndpointSlice[], name: string): NamedRecord[] {
  const out: NamedRecord[] = []
  const unready = spec.publishNotReadyAddresses === true
  // An endpoint may for a while be in two slices, and one address may have two names.
  const seen = new Set<string>()
  const once = (key: string, records: readonly NamedRecord[]): void => {
    if (seen.has(key)) return
    seen.add(key)
    out.push(...records)
  }
  for (const slice of slices) {
    if (slice.addressType === 'FQDN') continue
    for (const { addresses, conditions, hostname } of slice.endpoints ?? []) {
      const [ip] = addresses
      if (ip === undefined || !(unready || (conditions?.ready ?? true))) continue
      const own = `${(hostname || addressLabel(ip)).toLowerCase()}.${name}`
      once(`a ${ip}`, address(name, ip))
      once(`h ${own} ${ip}`, [...address(own, ip), ...pointer(ip, own)])
      for (const { name: port = '', port: number, protocol = 'TCP' } of slice.ports ?? []) {
        if (port !== '' && number !== undefined && number !== null)
          once(`s ${port} ${protocol} ${number} ${own}`, [srv(port, protocol, name, number, own)])
      }
    }
  }
  return out
}

/** What an endpoint without a hostname is called: its address, in the characters of a label. */
const addressLabel = (ip: string): string => ip.replaceAll(/[.:]/g, '-')

const srv = (port: string, protocol: string, name: string, number: number, target: string): NamedRecord => ({
  name: `_${port}._${protocol}.${name}`.toLowerCase(),
  rr: { type: 'SRV', ...srvFixed, port: number, target },
})

function address(name: string, ip: string): NamedRecord[] {
  const family = isIP(ip)
  return family === 0 ? [] : [{ name, rr: { type: family === 4 ? 'A' : 'AAAA', address: ip } }]
}

function pointer(ip: string, target: string): NamedRecord[] {
  const name = reverseName(ip)
  return name === undefined ? [] : [{ name, rr: { type: 'PTR', target } }]
}

/** `4.3.2.1.in-addr.arpa` for 1.2.3.4; undefined for what is no address. */
export function reverseName(ip: string): string | undefined {
  if (isIP(ip) === 4) return `${ip.split('.').toReversed().join('.')}.in-addr.arpa`
  const parsed = parseAddress(ip)
  if (parsed === undefined) return undefined
  const digits = parsed.value.toString(16).padStart(32, '0')
  return `${[...digits].toReversed().join('.')}.ip6.arpa`
}

/** The zones that hold the reverse names of a network and of nothing else. Undefined for what is no network. */
export function reverseZones(cidr: string): string[] | undefined {
  const [ip = '', length = ''] = cidr.split('/')
  const full = reverseName(ip)
  const family = parseAddress(ip)?.family
  if (full === undefined || family === undefined || !/^\d+$/.test(length)) return undefined
  const [bits, all] = family === 4 ? [8, 4] : [4, 32]
  const labels = full.split('.')
  const keep = Math.ceil(Number(length) / bits)
  // The first label that is kept may stand for more than the network: then there are some zones beside each other.
  const tail = labels.slice(all - keep + 1).join('.')
  const spare = keep * bits - Number(length)
  const base = family === 4 ? 10 : 16
  const first = Number.parseInt(labels[all - keep] ?? '0', base) & ~(2 ** spare - 1)
  if (keep === 0) return [labels.slice(all).join('.')]
  return Array.from({ length: 2 ** spare }, (_, i) => `${(first + i).toString(base)}.${tail}`)
}
