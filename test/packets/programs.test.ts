import test from 'ava'
import fc from 'fast-check'
import type { Counter } from '#datapath/maps/counters.ts'
import { gatewayMac } from '#datapath/object.ts'
import type { TestRunResult } from '#kernel/bpf/program.ts'
import { formatMac, parseMac } from '#kernel/netlink/netlink.ts'
import { addressBytes } from '#kernel/netns.ts'
import { Attached } from './attached.ts'
import { type TestPod, Topology } from './topology.ts'

/** Packet in, verdict and packet out: BPF_PROG_TEST_RUN on a node's own programs and maps, nothing is sent. */
const verdicts = { pass: 0, drop: 2, redirect: 7 } as const

let topology: Topology
let pod: TestPod
let near: TestPod
let far: TestPod
let attached: Attached

test.before(async () => {
  topology = await Topology.create({ label: 'p', direct: 'programs' })
  pod = await topology.node(1).addPod()
  near = await topology.node(1).addPod()
  far = await topology.node(2).addPod()
  attached = new Attached(topology.node(1))
})
test.after.always(async () => {
  attached?.[Symbol.dispose]()
  await topology?.[Symbol.asyncDispose]()
})

const sent = (packet: Buffer, from = pod): TestRunResult =>
  attached.run('from_container', packet, from.endpoint.ifindex)
const arrived = (packet: Buffer): TestRunResult =>
  attached.run('from_netdev', packet, topology.node(1).namespace.ifindex('eth0'))

/** The pods' own stacks say something now and then, by multicast. */
const noise = 'Multicast or link-local destination'

/** The counters that grew while `body` ran: `EGRESS Invalid source ip`. `expected`: also where it is what may be noise. */
function counted(body: () => void, expected?: string): string[] {
  const read = (): readonly Counter[] => topology.node(1).datapath.counters()
  const before = read()
  body()
  return read().flatMap(({ packets, direction, reason }, i) =>
    packets > (before[i]?.packets ?? 0) && (reason !== noise || expected === noise) ? [`${direction} ${reason}`] : [],
  )
}

function ethernet(ethertype: number, payload: Buffer, destination = gatewayMac, source = '02:00:00:00:00:99'): Buffer {
  const type = Buffer.alloc(2)
  type.writeUInt16BE(ethertype)
  return Buffer.concat([parseMac(destination), parseMac(source), type, payload])
}

function checksum(bytes: Buffer): number {
  let sum = 0
  for (let i = 0; i < bytes.length; i += 2) sum += bytes.readUInt16BE(i)
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
  return ~sum & 0xffff
}

function ip4(
  source: string,
  destination: string,
  { ttl = 64, protocol = 17, payload = Buffer.alloc(20) } = {},
): Buffer {
  const header = Buffer.alloc(20)
  header[0] = 0x45
  header.writeUInt16BE(20 + payload.length, 2)
  header[8] = ttl
  header[9] = protocol
  addressBytes(source).copy(header, 12)
  addressBytes(destination).copy(header, 16)
  header.writeUInt16BE(checksum(header), 10)
  return ethernet(0x0800, Buffer.concat([header, payload]))
}

function ip6(source: string, destination: string, { hops = 64, next = 17, payload = Buffer.alloc(20) } = {}): Buffer {
  const header = Buffer.alloc(8)
  header[0] = 0x60
  header.writeUInt16BE(payload.length, 4)
  header[6] = next
  header[7] = hops
  return ethernet(0x86dd, Buffer.concat([header, addressBytes(source), addressBytes(destination), payload]))
}

function arp(senderMac: string, sender: string, target: string): Buffer {
  const fixed = Buffer.from('0001080006040001', 'hex')
  const body = Buffer.concat([fixed, parseMac(senderMac), addressBytes(sender), Buffer.alloc(6), addressBytes(target)])
  return ethernet(0x0806, body, 'ff:ff:ff:ff:ff:ff', senderMac)
}

const pseudo6 = (packet: Buffer): Buffer => {
  const rest = packet.subarray(54)
  const tail = Buffer.alloc(8)
  tail.writeUInt32BE(rest.length, 0)
  tail[7] = packet[20] ?? 0
  return Buffer.concat([packet.subarray(22, 54), tail, rest])
}

function solicitation(source: string, target: string, destination = 'ff02::1:ff00:1', hops = 255): Buffer {
  const option = Buffer.from('0101020000000099', 'hex')
  const payload = Buffer.concat([Buffer.from('8700000000000000', 'hex'), addressBytes(target), option])
  const packet = ip6(source, destination, { hops, next: 58, payload })
  packet.writeUInt16BE(checksum(pseudo6(packet)), 56)
  return packet
}

test('a pod’s packet to a pod of its node is redirected: MACs exchanged, one hop less, checksum right', (t) => {
  const { verdict, data } = sent(ip4(pod.v4, near.v4))
  t.is(verdict, verdicts.redirect)
  t.is(formatMac(data.subarray(0, 6)), near.endpoint.mac)
  t.is(formatMac(data.subarray(6, 12)), gatewayMac)
  t.is(data[22], 63)
  t.is(checksum(data.subarray(14, 34)), 0)
  const six = sent(ip6(pod.v6, near.v6))
  t.is(six.verdict, verdicts.redirect)
  t.is(six.data[21], 63)
})

test('the header checksum stays right for every TTL and every address', (t) => {
  fc.assert(
    fc.property(fc.integer({ min: 2, max: 255 }), fc.integer({ min: 0, max: 0xffff }), (ttl, id) => {
      const packet = ip4(pod.v4, near.v4, { ttl })
      packet.writeUInt16BE(id, 18)
      packet.writeUInt16BE(0, 24)
      packet.writeUInt16BE(checksum(packet.subarray(14, 34)), 24)
      const { data } = sent(packet)
      t.is(data[22], ttl - 1)
      t.is(checksum(data.subarray(14, 34)), 0)
    }),
    { numRuns: 500 },
  )
})

test('a packet to another node’s pod goes out by the routes, and one to the node goes to its stack', (t) => {
  t.is(sent(ip4(pod.v4, far.v4)).verdict, verdicts.redirect)
  t.is(sent(ip6(pod.v6, far.v6)).verdict, verdicts.redirect)
  for (const [i, address] of topology.node(1).addresses.entries())
    t.is(sent(i === 0 ? ip4(pod.v4, address) : ip6(pod.v6, address)).verdict, verdicts.pass)
})

test('what has no hop left goes to the stack, which says so', (t) => {
  for (const to of [near, far]) {
    t.is(sent(ip4(pod.v4, to.v4, { ttl: 1 })).verdict, verdicts.pass)
    t.is(sent(ip6(pod.v6, to.v6, { hops: 1 })).verdict, verdicts.pass)
  }
})

test('P25: a pod that uses another’s address, or one of nobody, is dropped and counted', (t) => {
  for (const packet of [
    ip4(near.v4, far.v4),
    ip4('1.2.3.4', near.v4),
    ip4('0.0.0.0', near.v4),
    ip6(near.v6, far.v6),
    ip6('2001:db8::1', near.v6),
    // Mapped, it would read as the pod's own IPv4 address.
    ip6(`::ffff:${pod.v4}`, near.v6),
  ]) {
    const grown = counted(() => t.is(sent(packet).verdict, verdicts.drop))
    t.deepEqual(grown, ['EGRESS Invalid source ip'])
  }
})

test('a Service address without a Service is refused; multicast and unknown protocols go no further', (t) => {
  for (const packet of [ip4(pod.v4, '10.96.0.10'), ip6(pod.v6, 'fd00:10:96::10')])
    t.deepEqual(
      counted(() => t.is(sent(packet).verdict, verdicts.redirect)),
      ['EGRESS Service not found'],
    )
  for (const [packet, reason] of [
    [ip4(pod.v4, '224.0.0.251'), noise],
    [ip6(pod.v6, 'ff02::fb'), noise],
    [ip6('fe80::5', pod.v6), noise],
    [ethernet(0x8100, Buffer.alloc(60)), 'Unsupported protocol'],
  ] as const)
    t.deepEqual(
      counted(() => t.is(sent(packet).verdict, verdicts.drop), reason),
      [`EGRESS ${reason}`],
    )
})

test('headers that lie are dropped', (t) => {
  const wrongVersion = ip4(pod.v4, near.v4)
  wrongVersion[14] = 0x65
  const shortHeader = ip4(pod.v4, near.v4)
  shortHeader[14] = 0x44
  for (const packet of [wrongVersion, shortHeader])
    t.deepEqual(
      counted(() => t.is(sent(packet).verdict, verdicts.drop)),
      ['EGRESS Invalid packet'],
    )
})

test('a packet for a pod that comes by the uplink is delivered; the node’s own goes to its stack, uncounted', (t) => {
  const { verdict, data } = arrived(ip4(far.v4, pod.v4))
  t.is(verdict, verdicts.redirect)
  t.is(formatMac(data.subarray(0, 6)), pod.endpoint.mac)
  t.is(arrived(ip6(far.v6, pod.v6)).verdict, verdicts.redirect)
  const own = topology.node(1).addresses[0] ?? ''
  t.deepEqual(
    counted(() => t.is(arrived(ip4(far.v4, own)).verdict, verdicts.pass)),
    [],
  )
})

test('M8: ARP for a pod of this node is answered on the uplink, for others it is the stack’s', (t) => {
  const asker = '02:00:00:00:00:55'
  const { verdict, data } = arrived(arp(asker, '172.30.0.1', pod.v4))
  t.is(verdict, verdicts.redirect)
  t.is(formatMac(data.subarray(0, 6)), asker)
  t.is(data.readUInt16BE(20), 2)
  t.is(formatMac(data.subarray(22, 28)), formatMac(data.subarray(6, 12)))
  t.deepEqual(data.subarray(28, 32), addressBytes(pod.v4))
  t.deepEqual(data.subarray(38, 42), addressBytes('172.30.0.1'))
  t.is(arrived(arp(asker, '172.30.0.1', far.v4)).verdict, verdicts.pass)
  t.is(arrived(arp(asker, pod.v4, pod.v4)).verdict, verdicts.pass, 'an announcement is no question')
})

test('M9: a neighbour solicitation for a pod is answered with a right checksum, also where it is only a check of life', (t) => {
  for (const destination of ['ff02::1:ff00:2', pod.v6]) {
    const { verdict, data } = arrived(solicitation('fd00:172:30::1', pod.v6, destination))
    t.is(verdict, verdicts.redirect)
    t.is(data.length, 14 + 40 + 32)
    t.is(data[54], 136)
    t.is(data[21], 255)
    t.is(checksum(pseudo6(data)), 0)
    t.deepEqual(data.subarray(22, 38), addressBytes(pod.v6))
    t.deepEqual(data.subarray(38, 54), addressBytes('fd00:172:30::1'))
    t.is(formatMac(data.subarray(80, 86)), formatMac(data.subarray(6, 12)))
  }
  t.is(arrived(solicitation('fd00:172:30::1', far.v6)).verdict, verdicts.pass)
  t.is(arrived(solicitation('::', pod.v6)).verdict, verdicts.pass, 'a search for duplicates is not for us')
})

test('M9, M12: what the machine itself needs from its link passes untouched: DHCP of both families, router advertisements', (t) => {
  const datagram = (from: number, to: number): Buffer<ArrayBuffer> => {
    const payload = Buffer.alloc(20)
    payload.writeUInt16BE(from, 0)
    payload.writeUInt16BE(to, 2)
    payload.writeUInt16BE(20, 4)
    return payload
  }
  const advertisement = ip6('fe80::99', 'ff02::1', {
    hops: 255,
    next: 58,
    payload: Buffer.from([134, ...Buffer.alloc(15)]),
  })
  for (const packet of [
    // An offer to all, and to an address that nobody has yet; a renewal.
    ip4('172.30.0.1', '255.255.255.255', { payload: datagram(67, 68) }),
    ip4('172.30.0.1', '172.30.0.77', { payload: datagram(67, 68) }),
    ip4('172.30.0.1', topology.node(1).addresses[0] ?? '', { payload: datagram(67, 68) }),
    ip6('fe80::99', 'fe80::1234', { payload: datagram(547, 546) }),
    ip6('fe80::99', 'ff02::1:2', { payload: datagram(546, 547) }),
    advertisement,
  ])
    t.deepEqual(
      counted(() => {
        const { verdict, data } = arrived(packet)
        t.is(verdict, verdicts.pass)
        t.deepEqual(data, packet)
      }),
      [],
    )
})

test('a pod that asks for its gateway is told, and for anything else it hears nothing', (t) => {
  t.is(sent(arp(pod.endpoint.mac, pod.v4, '169.254.1.1')).verdict, verdicts.redirect)
  t.is(sent(arp(pod.endpoint.mac, pod.v4, '169.254.1.2')).verdict, verdicts.drop)
  const { verdict, data } = sent(solicitation(pod.v6, 'fe80::1'))
  t.is(verdict, verdicts.redirect)
  t.is(checksum(pseudo6(data)), 0)
  t.is(sent(solicitation(pod.v6, near.v6)).verdict, verdicts.drop)
})

test('no bytes whatever make a program do anything but pass, drop or redirect, and none passes for another pod', (t) => {
  const start = fc.constantFrom(
    ip4(pod.v4, near.v4),
    ip6(pod.v6, near.v6),
    arp(pod.endpoint.mac, pod.v4, '169.254.1.1'),
    solicitation(pod.v6, 'fe80::1'),
  )
  const change = fc.record({ at: fc.nat({ max: 85 }), to: fc.nat({ max: 255 }) })
  // The kernel refuses to test-run IPv6 frames shorter than their first header.
  const known: readonly number[] = Object.values(verdicts)
  fc.assert(
    fc.property(
      start,
      fc.array(change, { maxLength: 8 }),
      fc.integer({ min: 54, max: 120 }),
      (packet, changes, length) => {
        const bytes = Buffer.alloc(length)
        packet.copy(bytes)
        for (const { at, to } of changes) if (at < length) bytes[at] = to
        t.true(known.includes(arrived(bytes).verdict))
        const { verdict } = sent(bytes)
        t.true(known.includes(verdict))
        const ipv4 = bytes.readUInt16BE(12) === 0x0800
        if (verdict !== verdicts.drop && ipv4) t.deepEqual(bytes.subarray(26, 30), addressBytes(pod.v4))
      },
    ),
    { numRuns: 3_000 },
  )
})
