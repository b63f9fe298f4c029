import { getSystemErrorMap } from 'node:util'
import { createRtNetlink, rt } from 'netlink'
import { formatAddress } from '#base/net/address.ts'
import { hasCode, KernelError } from '../errno.ts'
import { addressBytes, type Namespace } from '../netns.ts'
import { attribute, parseAttributes } from './attributes.ts'

const AF_INET = 2
/** linux/rtnetlink.h. */
const scopeHost = 254
/** IPv6 has no such scope: an address that is valid for ever and preferred never is nobody's source (RFC 6724, rule 3). */
const deprecated = { ifaPrefered: 0, ifaValid: 0xffff_ffff }
const AF_INET6 = 10
/** Every request is answered by the kernel at once; a lost answer must not hang us. */
const answerWithinMs = 10_000
/** A dump of a few thousand routes comes in one go. */
const bufferBytes = 1 << 20

/** NLM_F_* of linux/netlink.h, for new objects. */
const REPLACE = 0x100
const EXCL = 0x200
const CREATE = 0x400

/** IFLA_*, IFLA_INFO_*, IFLA_VETH_INFO_* of linux/if_link.h. */
const IFLA_ADDRESS = 1
const IFLA_IFNAME = 3
const IFLA_MTU = 4
const IFLA_NET_NS_FD = 28
const IFLA_INFO_KIND = 1
const IFLA_INFO_DATA = 2
const VETH_INFO_PEER = 1
/** IFLA_VXLAN_*. */
const IFLA_VXLAN_LEARNING = 7
const IFLA_VXLAN_PORT = 15
const IFLA_VXLAN_COLLECT_METADATA = 25

/** RTNH_F_ONLINK. npm `netlink` drops a flag named `onlink` silently. */
const onlinkFlag = 4

/** A device as far as we look at it. */
export interface Link {
  readonly index: number
  readonly name: string
  /** `aa:bb:cc:dd:ee:ff`, or empty for devices without one. */
  readonly mac: string
  readonly mtu: number
  readonly up: boolean
  /** `veth`, `bridge`, …; empty for physical devices. */
  readonly kind: string
  readonly masterIndex: number | undefined
  /** Its other end (of a veth pair), or what it is made on, is another namespace's. */
  readonly leadsElsewhere: boolean
}

export interface LinkEnd {
  readonly name: string
  readonly mac?: string
  readonly mtu?: number
  /** Where this end goes; absent: where the other is made. */
  readonly namespace?: Namespace
}

export type RouteType = 'unicast' | 'unreachable' | 'blackhole' | 'local'

export interface Route {
  /** With prefix length: `10.244.2.0/24`. */
  readonly destination: string
  readonly type?: RouteType
  readonly gateway?: string
  readonly deviceIndex?: number
  /** The gateway is on the device's link though no address says so. */
  readonly onlink?: boolean
  /** `link`: the destination itself is on the device. */
  readonly scope?: 'link' | 'universe'
  readonly metric?: number
  readonly source?: string
  /** Who made the route: a number of rtnetlink's protocol space, so that one's own can be found again. */
  readonly protocol?: number
}

export interface Neighbour {
  readonly address: string
  readonly mac: string
  readonly deviceIndex: number
}

/**
 * Links, addresses, routes and neighbours of one network namespace. Requests are done in the order they are made in, so
 * they may be awaited together. Every failure is a `KernelError` with errno's name in `code`.
 */
export class Netlink implements Disposable {
  readonly #socket: ReturnType<typeof createRtNetlink>
  /** Settles when the newest request has been answered; never rejects. */
  #last: Promise<unknown> = Promise.resolve()

  private constructor(socket: ReturnType<typeof createRtNetlink>) {
    this.#socket = socket
  }

  /** A socket stays in the namespace that it was opened in, whoever uses it. */
  static open(namespace?: Namespace): Netlink {
    const open = () => createRtNetlink({ recvBufferSize: bufferBytes, sendBufferSize: bufferBytes })
    return new Netlink(namespace === undefined ? open() : namespace.within(open))
  }

  [Symbol.dispose](): void {
    this.#socket.socket.close()
  }

  /**
   * One request at a time on this socket: the kernel hands out a dump in pieces as they are read, and the answer to
   * another request that comes between two pieces makes the package give the dump up ("not terminated properly").
   */
  async #request<T>(action: string, send: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(send)
    this.#last = turn.catch(() => {})
    try {
      return await turn
    } catch (cause) {
      throw new KernelError(action, codeOf(cause), { cause })
    }
  }

  async links(): Promise<Link[]> {
    const found = await this.#request('list devices', () => this.#socket.getLinks({}, {}, { timeout: answerWithinMs }))
    return found.map(({ data, attrs }) => ({
      index: data.index ?? 0,
      name: attrs.ifname ?? '',
      mac: formatMac(attrs.address ?? Buffer.alloc(0)),
      mtu: attrs.mtu ?? 0,
      up: data.flags?.up === true,
      kind: textOf(parseAttributes(attrs.linkinfo ?? Buffer.alloc(0)).get(IFLA_INFO_KIND)),
      masterIndex: attrs.master,
      leadsElsewhere: attrs.linkNetnsid !== undefined,
    }))
  }

  async link(name: string): Promise<Link | undefined> {
    return (await this.links()).find((l) => l.name === name)
  }

  /** Two devices that are each other's far end; each is made in its namespace. */
  async addVeth(near: LinkEnd, far: LinkEnd): Promise<void> {
    const peer = [
      Buffer.alloc(16), // struct ifinfomsg, empty
      attribute(IFLA_IFNAME, far.name),
      ...(far.mac === undefined ? [] : [attribute(IFLA_ADDRESS, parseMac(far.mac))]),
      ...(far.mtu === undefined ? [] : [attribute(IFLA_MTU, far.mtu)]),
      ...(far.namespace === undefined ? [] : [attribute(IFLA_NET_NS_FD, far.namespace.number)]),
    ]
    await this.#newLink(`create devices ${near.name} and ${far.name}`, near, 'veth', [
      attribute(VETH_INFO_PEER, Buffer.concat(peer)),
    ])
  }

  async addBridge(end: LinkEnd): Promise<void> {
    await this.#newLink(`create bridge ${end.name}`, end, 'bridge', [])
  }

  /** A VXLAN device whose packets have their key each (collect metadata): programs say where they go. */
  async addVxlan(end: LinkEnd, port: number): Promise<void> {
    const number = Buffer.alloc(2)
    number.writeUInt16BE(port)
    await this.#newLink(`create tunnel ${end.name}`, end, 'vxlan', [
      attribute(IFLA_VXLAN_COLLECT_METADATA, Buffer.from([1])),
      attribute(IFLA_VXLAN_LEARNING, Buffer.from([0])),
      attribute(IFLA_VXLAN_PORT, number),
    ])
  }

  /** Up, and without neighbours to ask for: every packet goes to the device as it is. */
  async setLinkUpQuiet(index: number): Promise<void> {
    const flags = { up: true, noarp: true } as const
    await this.#request(`bring device ${index} up`, () =>
      this.#socket.setLink({ index, flags, change: flags }, {}, { timeout: answerWithinMs }),
    )
  }

  async setLinkMtu(index: number, mtu: number): Promise<void> {
    await this.#request(`set the MTU of device ${index} to ${mtu}`, () =>
      this.#socket.setLink({ index }, { mtu }, { timeout: answerWithinMs }),
    )
  }

  async #newLink(
    action: string,
    { name, mac, mtu, namespace }: LinkEnd,
    kind: string,
    data: readonly Buffer[],
  ): Promise<void> {
    const linkinfo = Buffer.concat([attribute(IFLA_INFO_KIND, kind), attribute(IFLA_INFO_DATA, Buffer.concat(data))])
    await this.#request(action, () =>
      this.#socket.newLink(
        {},
        {
          ifname: name,
          ...(mac === undefined ? {} : { address: parseMac(mac) }),
          ...(mtu === undefined ? {} : { mtu }),
          ...(namespace === undefined ? {} : { netNsFd: namespace.number }),
          linkinfo,
        },
        { flags: CREATE | EXCL, timeout: answerWithinMs },
      ),
    )
  }

  /** Both ends of a veth pair go. Nothing to do is fine. */
  async removeLink(name: string): Promise<void> {
    try {
      await this.#request(`remove device ${name}`, () =>
        this.#socket.delLink({}, { ifname: name }, { timeout: answerWithinMs }),
      )
    } catch (error) {
      if (!hasCode(error, 'ENODEV')) throw error
    }
  }

  async setLinkUp(index: number): Promise<void> {
    await this.#request(`bring device ${index} up`, () =>
      this.#socket.setLink({ index, flags: { up: true }, change: { up: true } }, {}, { timeout: answerWithinMs }),
    )
  }

  async setLinkMaster(index: number, masterIndex: number): Promise<void> {
    await this.#request(`put device ${index} into bridge ${masterIndex}`, () =>
      this.#socket.setLink({ index }, { master: masterIndex }, { timeout: answerWithinMs }),
    )
  }

  /**
   * `10.0.0.1/24`. The address is there at once: no duplicate address detection. `isOwn`: for this node's own use; the kernel
   * does not take it for the source of what goes elsewhere (RT_SCOPE_HOST).
   */
  async addAddress(index: number, cidr: string, { isOwn = false } = {}): Promise<void> {
    const { bytes, prefix } = splitCidr(cidr)
    const family = familyOf(bytes)
    const scope = isOwn ? { scope: scopeHost } : {}
    await this.#request(`add address ${cidr} to device ${index}`, () =>
      this.#socket.newAddress(
        {
          family,
          prefixlen: prefix,
          index,
          ...scope,
          ...(family === AF_INET6 ? { flags: { nodad: true as const } } : {}),
        },
        { address: bytes, local: bytes, ...(isOwn && family === AF_INET6 ? { cacheInfo: deprecated } : {}) },
        { flags: CREATE | REPLACE, timeout: answerWithinMs },
      ),
    )
  }

  /** Of a device. Those that are there for a while only (IPv6: temporary, RFC 8981, or deprecated) come last. */
  async addresses(index?: number): Promise<string[]> {
    const found = await this.#request('list addresses', () =>
      this.#socket.getAddresses({}, {}, { timeout: answerWithinMs }),
    )
    const listed = found.flatMap(({ data, attrs }) => {
      const bytes = attrs.local ?? attrs.address
      if ((index !== undefined && data.index !== index) || bytes === undefined) return []
      const passes = data.flags?.deprecated === true || (data.family === AF_INET6 && data.flags?.secondary === true)
      return [{ text: `${formatBytes(bytes)}/${data.prefixlen}`, passes }]
    })
    return [...listed.filter((a) => !a.passes), ...listed.filter((a) => a.passes)].map((a) => a.text)
  }

  /** Adds the route, or puts it in the place of the one to the same destination with the same metric. */
  async setRoute(route: Route): Promise<void> {
    const { data, attrs } = routeMessage(route)
    await this.#request(`set route to ${route.destination}`, () =>
      this.#socket.newRoute(data, attrs, { flags: CREATE | REPLACE, timeout: answerWithinMs }),
    )
  }

  /** Nothing to do is fine. */
  async removeRoute(route: Route): Promise<void> {
    const { data, attrs } = routeMessage(route)
    try {
      await this.#request(`remove route to ${route.destination}`, () =>
        this.#socket.delRoute(data, attrs, { timeout: answerWithinMs }),
      )
    } catch (error) {
      if (!hasCode(error, 'ESRCH')) throw error
    }
  }

  /** Routes of the main table, optionally only those that `protocol` says somebody made. */
  async routes(protocol?: number): Promise<Route[]> {
    const found = await this.#request('list routes', () => this.#socket.getRoutes({}, {}, { timeout: answerWithinMs }))
    return found.flatMap(({ data, attrs }): Route[] => {
      const made = Number(typeof data.protocol === 'string' ? rt.RouteProtocol[data.protocol] : data.protocol)
      const type = typeof data.type === 'number' ? rt.RouteType[data.type] : data.type
      if (data.table !== 254 || (protocol !== undefined && made !== protocol)) return []
      const zero = Buffer.alloc(data.family === AF_INET ? 4 : 16)
      return [
        {
          destination: `${formatBytes(attrs.dst ?? zero)}/${data.dstLen}`,
          type: routeTypeName(type),
          ...(attrs.gateway === undefined ? {} : { gateway: formatBytes(attrs.gateway) }),
          ...(attrs.oif === undefined ? {} : { deviceIndex: attrs.oif }),
          ...(attrs.priority === undefined ? {} : { metric: attrs.priority }),
          ...(attrs.prefsrc === undefined ? {} : { source: formatBytes(attrs.prefsrc) }),
          protocol: made,
        },
      ]
    })
  }

  /** The kernel will never ask who has the address. */
  async setNeighbour({ address, mac, deviceIndex }: Neighbour): Promise<void> {
    const dst = addressBytes(address)
    await this.#request(`set neighbour ${address} of device ${deviceIndex}`, () =>
      this.#socket.newNeighbor(
        { family: familyOf(dst), ifindex: deviceIndex, state: { permanent: true } },
        { dst, lladdr: parseMac(mac) },
        { flags: CREATE | REPLACE, timeout: answerWithinMs },
      ),
    )
  }

  /** Nothing to do is fine. */
  async removeNeighbour(address: string, deviceIndex: number): Promise<void> {
    const dst = addressBytes(address)
    try {
      await this.#request(`remove neighbour ${address} of device ${deviceIndex}`, () =>
        this.#socket.delNeighbor({ family: familyOf(dst), ifindex: deviceIndex }, { dst }, { timeout: answerWithinMs }),
      )
    } catch (error) {
      if (!hasCode(error, 'ENOENT')) throw error
    }
  }
}

function routeMessage(route: Route): { data: rt.Route; attrs: rt.RouteAttrs } {
  const { bytes, prefix } = splitCidr(route.destination)
  return {
    data: {
      family: familyOf(bytes),
      dstLen: prefix,
      table: 254,
      // 3 = boot, what routes made by hand have.
      protocol: (route.protocol ?? 3) as rt.RouteProtocol,
      // A route to the node itself has the scope of the node, or the kernel refuses it.
      scope: route.type === 'local' ? 254 : route.scope === 'link' ? 253 : 0,
      type: rt.RouteType[routeTypeNames[route.type ?? 'unicast']],
      ...(route.onlink === true ? { flags: { __unknown: onlinkFlag } as rt.RouteFlags } : {}),
    },
    attrs: {
      ...(prefix === 0 ? {} : { dst: bytes }),
      ...(route.gateway === undefined ? {} : { gateway: addressBytes(route.gateway) }),
      ...(route.deviceIndex === undefined ? {} : { oif: route.deviceIndex }),
      ...(route.metric === undefined ? {} : { priority: route.metric }),
      ...(route.source === undefined ? {} : { prefsrc: addressBytes(route.source) }),
    },
  }
}

const routeTypeNames = {
  unicast: 'UNICAST',
  unreachable: 'UNREACHABLE',
  blackhole: 'BLACKHOLE',
  local: 'LOCAL',
} as const satisfies Record<RouteType, keyof typeof rt.RouteType>

function routeTypeName(name: string | undefined): RouteType {
  const found = Object.entries(routeTypeNames).find(([, upper]) => upper === name)
  return (found?.[0] ?? 'unicast') as RouteType
}

function splitCidr(cidr: string): { readonly bytes: Buffer; readonly prefix: number } {
  const [ip = '', prefix = ''] = cidr.split('/')
  if (!/^\d+$/.test(prefix))
    throw new RangeError(`${JSON.stringify(cidr)} has no prefix length: write it as 10.0.0.0/24`)
  return { bytes: addressBytes(ip), prefix: Number(prefix) }
}

const familyOf = (bytes: Uint8Array): number => (bytes.length === 4 ? AF_INET : AF_INET6)

function formatBytes(bytes: Buffer): string {
  const family = bytes.length === 4 ? 4 : 6
  return formatAddress({ family, value: BigInt(`0x${bytes.toString('hex')}`) })
}

/** `aa:bb:cc:dd:ee:ff` for six bytes. */
export const formatMac = (bytes: Uint8Array): string => [...bytes].map((b) => b.toString(16).padStart(2, '0')).join(':')

/** Six two-digit groups. Devices without Ethernet have none, or one of another length. */
export const isMac = (text: string): boolean => /^([0-9a-f]{2}:){5}[0-9a-f]{2}$/i.test(text)

/** Throws a RangeError for anything but six two-digit groups. */
export function parseMac(text: string): Buffer {
  if (!isMac(text)) throw new RangeError(`${JSON.stringify(text)} is not a MAC address: write it as 02:00:00:00:00:01`)
  return Buffer.from(text.replaceAll(':', ''), 'hex')
}

const textOf = (bytes: Buffer | undefined): string => bytes?.toString('utf8').replace(/\0+$/, '') ?? ''

/** npm `netlink` says `Request rejected: EEXIST` and has no code. */
function codeOf(error: unknown): string {
  const word = error instanceof Error ? (/: (E[A-Z0-9]+|-?\d+)$/.exec(error.message)?.[1] ?? '') : ''
  if (/^E/.test(word)) return word
  return getSystemErrorMap().get(Number(word))?.[0] ?? (error instanceof Error ? error.message : 'unknown')
}
