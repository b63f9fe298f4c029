import type { Service } from '../cluster.ts'
import { type Kind, pool, type Standings, type Target, type Word } from './sockets-history.ts'
import type { SocketFamily } from './sockets-libc.ts'
import { type End, type HintedEndpoint, v4Prefix } from './sockets-rules.ts'
import { nodes, own, ports } from './sockets-world.ts'

/** A Service's port whose node port nobody listens on, so that only a hook refuses to bind it. */
export const takenPort = 8443

export const familyFor = (w: Word): SocketFamily => (w === 'IPv4' ? 4 : 6)

export function serviceOf(name: string, i: number, found: Kind, all: Standings): Service {
  const { type, families, externalLocal, internalLocal, hasAffinity, external } = found
  const cluster = families.map((f) => (f === 4 ? `10.96.0.${10 + i}` : `fd00:10:96::${10 + i}`))
  const hasNodePort = type === 'NodePort' || type === 'LoadBalancer'
  const endpoints: HintedEndpoint[] = all.flatMap(({ pod, target: at, state, zones }) =>
    (pool[pod]?.addresses ?? []).map((address) => ({
      address,
      port: at,
      node: pool[pod]?.node ?? '',
      ready: state === 'ready',
      serving: state === 'ready' || state === 'going',
      terminating: state === 'going' || state === 'gone',
      zones,
    })),
  )
  const asked = [...found.ports, ...found.taken.map((protocol) => ({ port: takenPort, protocol }))]
  const numbers = [...new Set(asked.map((p) => p.port))]
  return {
    namespace: 'shop',
    name,
    type: type === 'headless' ? 'ClusterIP' : type,
    clusterIPs: type === 'headless' ? ['None'] : cluster,
    ports: asked.map((p) => (hasNodePort ? { ...p, nodePort: nodePortOf(i, p.port) } : p)),
    endpoints: Object.fromEntries(numbers.map((number) => [number, endpoints])),
    ...(hasNodePort && externalLocal ? { externalTrafficPolicy: 'Local' as const } : {}),
    ...(internalLocal ? { internalTrafficPolicy: 'Local' as const } : {}),
    ...(hasAffinity ? { affinitySeconds: 10_800 } : {}),
    ...(type === 'LoadBalancer' ? { ingressIPs: families.map((f) => balancerOf(i, f)) } : {}),
    ...(external === 'none' || type === 'headless' ? {} : { externalIPs: families.map((f) => externalOf(i, f)) }),
    ...(external === 'guarded' && type !== 'headless' ? { isExternalGuarded: true as const } : {}),
  }
}

export const nodePortOf = (i: number, p: number): number =>
  p === takenPort ? ports.node + 100 + i : ports.node + 2 * i + ports.service.indexOf(p)
const balancerOf = (i: number, f: number): string => (f === 4 ? `172.30.0.${200 + i}` : `fd00:172:30::${200 + i}`)
const externalOf = (i: number, f: number): string => (f === 4 ? `198.51.100.${1 + i}` : `2001:db8::${1 + i}`)

const loopbacks = { 4: ['127.0.0.1', '127.9.8.7', '0.0.0.0'], 6: ['::1', '::1', '::'] } as const

export function endOf(to: Target, w: Word): End {
  const f = w === 'IPv6' ? 6 : 4
  return inWord(bareEnd(to, f), w)
}

export const inWord = ({ address, port: p }: End, w: Word): End => ({
  address: w === 'mapped' ? `${v4Prefix}${address}` : address,
  port: p,
})

function bareEnd(to: Target, f: 4 | 6): End {
  const mine = own[f === 4 ? 0 : 1] ?? ''
  switch (to.to) {
    case 'cluster':
      return {
        address: f === 4 ? `10.96.0.${10 + to.service}` : `fd00:10:96::${10 + to.service}`,
        port: portAt(to.port),
      }
    case 'balancer':
      return { address: balancerOf(to.service, f), port: portAt(to.port) }
    case 'external':
      return { address: externalOf(to.service, f), port: portAt(to.port) }
    case 'own':
    case 'other':
    case 'loopback': {
      const other = nodes[1]?.addresses[f === 4 ? 0 : 1] ?? ''
      const address = to.to === 'own' ? mine : to.to === 'other' ? other : (loopbacks[f][to.word] ?? '')
      const number = ports.service[to.port]
      return { address, port: number === undefined ? ports.nobodys : nodePortOf(to.service, number) }
    }
    case 'host port':
      return { address: [mine, ...loopbacks[f]][to.word] ?? '', port: ports.host[to.slot] ?? 0 }
    case 'pod':
      return { address: pool[to.pod]?.addresses[f === 4 ? 0 : 1] ?? '', port: to.target }
    case 'nobody':
      return { address: f === 4 ? '10.96.0.99' : 'fd00:10:96::99', port: 80 }
    default:
      return to satisfies never
  }
}

const portAt = (i: number): number => ports.service[i] ?? ports.nobodys
