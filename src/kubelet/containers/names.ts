import type { Pod } from '#api/gen/core-v1.ts'
import type { DnsConfig } from '../runtime/runtime.ts'

/** How names are resolved in this cluster. */
export interface DnsOptions {
  /** The cluster's resolvers: for ClusterFirst. */
  readonly servers: readonly string[]
  /** `cluster.local` */
  readonly domain: string
  /** The node's own resolv.conf: for Default, and below the cluster's search list. */
  readonly host: DnsConfig
}

const serversMax = 3
const searchesMax = 32
const hostnameLengthMax = 63

/** What goes into the pod's /etc/resolv.conf. */
export function dnsOf(pod: Pod, { servers, domain, host }: DnsOptions): DnsConfig {
  const { dnsPolicy = 'ClusterFirst', hostNetwork, dnsConfig } = pod.spec
  const cluster = dnsPolicy === 'ClusterFirstWithHostNet' || (dnsPolicy === 'ClusterFirst' && hostNetwork !== true)
  const base: DnsConfig =
    dnsPolicy === 'None'
      ? { servers: [], searches: [], options: [] }
      : cluster && servers.length > 0
        ? {
            servers,
            searches: [`${pod.metadata.namespace}.svc.${domain}`, `svc.${domain}`, domain, ...host.searches],
            options: ['ndots:5'],
          }
        : host
  const options = new Map(base.options.map((o): [string, string] => [o.split(':')[0] ?? o, o]))
  for (const { name = '', value } of dnsConfig?.options ?? [])
    options.set(name, value === undefined ? name : `${name}:${value}`)
  return {
    servers: unique([...base.servers, ...(dnsConfig?.nameservers ?? [])]).slice(0, serversMax),
    searches: unique([...base.searches, ...(dnsConfig?.searches ?? [])]).slice(0, searchesMax),
    options: [...options.values()],
  }
}

const unique = (items: readonly string[]): string[] => [...new Set(items)]

/** resolv.conf(5), what we use of it. */
export function parseResolvConf(text: string): DnsConfig {
  const rows = text.split('\n').map((line) => line.trim().split(/\s+/))
  const all = (word: string) => rows.filter(([first]) => first === word).map(([, ...rest]) => rest)
  return {
    servers: all('nameserver').map(([server = '']) => server),
    searches: all('search').at(-1) ?? [],
    options: all('options').flat(),
  }
}

/** What the pod calls itself, and its full name where it has a subdomain. */
export function hostnameOf(pod: Pod, domain: string): { hostname: string; fqdn: string | undefined } {
  const { spec, metadata } = pod
  if (spec.hostnameOverride) return { hostname: spec.hostnameOverride, fqdn: undefined }
  const short = (spec.hostname || metadata.name).slice(0, hostnameLengthMax).replace(/[-.]+$/, '')
  const fqdn = spec.subdomain ? `${short}.${spec.subdomain}.${metadata.namespace}.svc.${domain}` : undefined
  return { hostname: spec.setHostnameAsFQDN === true && fqdn !== undefined ? fqdn : short, fqdn }
}

/** The pod's /etc/hosts; for a pod on the node's network the node's own, with the pod's aliases below. */
export function formatHosts(pod: Pod, ips: readonly string[], domain: string, nodeHosts: string): string {
  const aliases = (pod.spec.hostAliases ?? []).map(({ ip, hostnames = [] }) => `${ip}\t${hostnames.join('\t')}`)
  const added = aliases.length === 0 ? [] : ['', '# Entries added by HostAliases.', ...aliases]
  if (pod.spec.hostNetwork === true)
    return `${['# Kubernetes-managed hosts file (host network).', nodeHosts.trimEnd(), ...added].join('\n')}\n`
  const { hostname, fqdn } = hostnameOf(pod, domain)
  const names = fqdn === undefined || fqdn === hostname ? hostname : `${fqdn}\t${hostname}`
  return `${[
    '# Kubernetes-managed hosts file.',
    '127.0.0.1\tlocalhost',
    '::1\tlocalhost ip6-localhost ip6-loopback',
    'fe00::0\tip6-localnet',
    'fe00::0\tip6-mcastprefix',
    'fe00::1\tip6-allnodes',
    'fe00::2\tip6-allrouters',
    ...ips.map((ip) => `${ip}\t${names}`),
    ...added,
  ].join('\n')}\n`
}
