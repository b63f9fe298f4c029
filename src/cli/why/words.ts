import { isMapped, parseAddress } from '#base/net/address.ts'

export interface WantedPort {
  /** A name is the Service's, or the pod's container's. */
  readonly port: number | string
  /** Undefined: TCP, or what the named port has. */
  readonly protocol: 'TCP' | 'UDP' | 'SCTP' | 'ICMP' | undefined
}

const protocols = ['TCP', 'UDP', 'SCTP', 'ICMP'] as const

/** `80`, `53/udp`, `http`, `dns/udp`, `icmp`. Throws a RangeError that says what is possible. */
export function parsePort(text: string): WantedPort {
  const wrong = (): RangeError =>
    new RangeError(
      `port "${text}": use PORT, PORT/PROTOCOL or icmp, such as 80, 53/udp or http; ports are 1 to 65535, protocols tcp, udp, sctp, icmp`,
    )
  const [first = '', second, ...more] = text.split('/')
  const named = (second ?? (first.toLowerCase() === 'icmp' ? 'icmp' : '')).toUpperCase()
  const protocol = protocols.find((p) => p === named)
  if (more.length > 0 || (protocol === undefined && second !== undefined)) throw wrong()
  if (protocol === 'ICMP') {
    if (second !== undefined && first !== '0') throw new RangeError(`port "${text}": ICMP has no ports: use icmp`)
    return { port: 0, protocol }
  }
  if (/^\d+$/.test(first)) {
    const port = Number(first)
    if (port < 1 || port > 65_535) throw wrong()
    return { port, protocol }
  }
  if (!/^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/.test(first)) throw wrong()
  return { port: first, protocol }
}

/** Where one end is an address, of its family; else of that which was asked for. Throws where the ends are of two. */
export function familyOf({ source, destination, ipv6 }: { source: string; destination: string; ipv6: boolean }): 4 | 6 {
  const families = [source, destination].flatMap((text) => {
    const address = parseAddress(text)
    if (address !== undefined && isMapped(address))
      throw new RangeError(`${text} is IPv4 written as IPv6: write it as IPv4`)
    return address === undefined ? [] : [address.family]
  })
  if (ipv6 && families.includes(4)) throw new RangeError('-6 asks for IPv6, and an address of IPv4 is named')
  if (new Set(families).size > 1) throw new RangeError(`${source} and ${destination} are not of one family`)
  return families[0] ?? (ipv6 ? 6 : 4)
}

export interface Name {
  readonly kind: 'pod' | 'svc' | 'node' | 'gateway' | undefined
  readonly namespace: string | undefined
  readonly name: string
}

const kinds: ReadonlyMap<string, Name['kind']> = new Map([
  ...(['pod', 'pods', 'po'] as const).map((word) => [word, 'pod'] as const),
  ...(['svc', 'service', 'services'] as const).map((word) => [word, 'svc'] as const),
  ...(['node', 'nodes', 'no'] as const).map((word) => [word, 'node'] as const),
  ...(['gateway', 'gateways', 'gtw'] as const).map((word) => [word, 'gateway'] as const),
])

/** `[KIND/][NAMESPACE/]NAME`; without a kind a pod's. Throws a RangeError that says what is possible. */
export function parseName(text: string): Name {
  const [first = '', ...rest] = text.split('/')
  const kind = rest.length > 0 ? kinds.get(first) : undefined
  const parts = kind === undefined ? [first, ...rest] : rest
  const [name = '', namespace] = parts.toReversed()
  const most = kind === 'node' ? 1 : 2
  if (parts.length > most || parts.some((part) => !/^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/.test(part)))
    throw new RangeError(
      `"${text}": use [NAMESPACE/]POD, svc/[NAMESPACE/]NAME, gateway/[NAMESPACE/]NAME, node/NAME, an address, or outside`,
    )
  return { kind, namespace, name }
}
