import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { namespaceDir } from '#kernel/netns.ts'

/** Rules of the shapes that kube-proxy makes, for comparison, in namespaces that a bench made. */
export interface RuleService {
  readonly address: string
  readonly port: number
  readonly backends: readonly string[]
  readonly backendPort: number
  /** Nobody connects to it: nftables goes to its one backend without a draw, for to name ten thousand maps takes the kernel 11 s. */
  readonly isIdle?: boolean
}

/** Programs by their full paths: an npm package brings an `nft` of its own, and npm puts it first. */
function inNamespace(namespace: string, command: readonly string[], input: string): void {
  const args = [`--net=${join(namespaceDir, namespace)}`, ...command]
  execFileSync('nsenter', args, { input, stdio: ['pipe', 'ignore', 'pipe'], maxBuffer: 1 << 28 })
}

/** One rule a Service in one list, looked through in order; a chain a Service, a chain an endpoint. */
export function loadIptables(namespace: string, services: readonly RuleService[]): void {
  const chains: string[] = []
  const list: string[] = []
  const rules: string[] = []
  for (const [i, { address, port, backends, backendPort }] of services.entries()) {
    const chain = `KUBE-SVC-${i}`
    chains.push(`:${chain} - [0:0]`)
    list.push(`-A KUBE-SERVICES -d ${address}/32 -p tcp -m tcp --dport ${port} -j ${chain}`)
    for (const [n, backend] of backends.entries()) {
      const end = `KUBE-SEP-${i}-${n}`
      chains.push(`:${end} - [0:0]`)
      const left = backends.length - n
      const chance = left === 1 ? '' : `-m statistic --mode random --probability ${(1 / left).toFixed(10)} `
      rules.push(`-A ${chain} ${chance}-j ${end}`)
      rules.push(`-A ${end} -s ${backend}/32 -j KUBE-MARK-MASQ`)
      rules.push(`-A ${end} -p tcp -m tcp -j DNAT --to-destination ${backend}:${backendPort}`)
    }
  }
  const text = [
    '*nat',
    ':KUBE-SERVICES - [0:0]',
    ':KUBE-MARK-MASQ - [0:0]',
    ':KUBE-POSTROUTING - [0:0]',
    ...chains,
    '-A PREROUTING -j KUBE-SERVICES',
    '-A OUTPUT -j KUBE-SERVICES',
    '-A POSTROUTING -j KUBE-POSTROUTING',
    '-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000',
    '-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN',
    '-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000',
    '-A KUBE-POSTROUTING -j MASQUERADE --random-fully',
    ...list,
    ...rules,
    'COMMIT',
    '',
  ].join('\n')
  inNamespace(namespace, ['/usr/sbin/iptables-legacy-restore', '--noflush'], text)
}

/** One verdict map from address and port to a Service's chain; the same for node ports. */
export function loadNftables(
  namespace: string,
  services: readonly RuleService[],
  nodePorts: readonly (RuleService & { readonly protocol: 'tcp' | 'udp' })[] = [],
): void {
  const lines = [
    'table ip kube-proxy {',
    'chain mark-for-masquerade { meta mark set meta mark or 0x4000; }',
    ...services.flatMap((s, i) => serviceChains(`service-${i}`, 'tcp', s, false)),
    ...nodePorts.flatMap((s, i) => serviceChains(`node-${i}`, s.protocol, s, true)),
    `map service-ips { type ipv4_addr . inet_proto . inet_service : verdict; ${elements(services.map((s, i) => `${s.address} . tcp . ${s.port} : goto service-${i}`))} }`,
    `map service-nodeports { type inet_proto . inet_service : verdict; ${elements(nodePorts.map((s, i) => `${s.protocol} . ${s.port} : goto node-${i}`))} }`,
    'chain services {',
    'ip daddr . meta l4proto . th dport vmap @service-ips',
    'fib daddr type local meta l4proto . th dport vmap @service-nodeports',
    '}',
    'chain nat-prerouting { type nat hook prerouting priority dstnat; policy accept; jump services; }',
    'chain nat-output { type nat hook output priority -100; policy accept; jump services; }',
    'chain masquerading { meta mark and 0x4000 == 0 return; meta mark set meta mark xor 0x4000; masquerade fully-random; }',
    'chain nat-postrouting { type nat hook postrouting priority srcnat; policy accept; jump masquerading; }',
    '}',
    '',
  ]
  inNamespace(namespace, ['/usr/sbin/nft', '-f', '-'], lines.join('\n'))
}

const elements = (list: readonly string[]): string => (list.length === 0 ? '' : `elements = { ${list.join(', ')} };`)

function serviceChains(
  name: string,
  protocol: string,
  { backends, backendPort, isIdle }: RuleService,
  isMarked: boolean,
): string[] {
  const ends = backends.map((_, n) => `${n} : goto endpoint-${name}-${n}`)
  return [
    ...backends.map((backend, n) => {
      const hairpin = `ip saddr ${backend} jump mark-for-masquerade;`
      return `chain endpoint-${name}-${n} { ${hairpin} meta l4proto ${protocol} dnat to ${backend}:${backendPort}; }`
    }),
    `chain ${name} { ${isMarked ? 'jump mark-for-masquerade; ' : ''}${isIdle ? `goto endpoint-${name}-0` : `numgen random mod ${backends.length} vmap { ${ends.join(', ')} }`}; }`,
  ]
}
