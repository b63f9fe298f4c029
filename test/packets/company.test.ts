import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readdirSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import test from 'ava'
import { GatewayAddresses } from '#agent/gateway/sockets/addresses.ts'
import { Steering } from '#agent/gateway/sockets/steer.ts'
import { eventually } from '#base/async/eventually.ts'
import { type Log, silentLog } from '#base/log/log.ts'
import type { Service } from '#datapath/datapath.ts'
import { EventRing } from '#datapath/events/ring.ts'
import { KernelDatapath } from '#datapath/kernel.ts'
import { openMap } from '#datapath/load.ts'
import { gatewayMac } from '#datapath/object.ts'
import { attachedTo, Link, Program } from '#kernel/bpf/program.ts'
import { findCgroups } from '#kernel/cgroup.ts'
import { hasCode } from '#kernel/errno.ts'
import { Attached } from './attached.ts'
import type { Churn } from './churn.ts'
import { frame, plain, read } from './frames.ts'
import { loadOnlooker, sendMarked } from './others.ts'
import { secondNetwork } from './second-network.ts'
import {
  fabricAddresses,
  inPod,
  load,
  onFabric,
  onNode,
  serve,
  type TestNode,
  type TestPod,
  Topology,
} from './topology.ts'

/** A machine is never ours alone: what others set, attach, mark and take away there, and what its devices may do. */
let topology: Topology
let a: TestPod
let b: TestPod
let far: TestPod

test.before(async () => {
  topology = await Topology.create({ label: 'o' })
  a = await topology.node(1).addPod()
  b = await topology.node(1).addPod()
  far = await topology.node(2).addPod()
})
test.after.always(() => topology?.[Symbol.asyncDispose]())

/** ip(8) in the namespace of a node, or of a pod. */
const ip = (namespace: string, ...words: readonly string[]): string =>
  execFileSync('ip', ['-n', namespace, ...words], { encoding: 'utf8' })
const nameOf = (node: TestNode): string => topology.name(`node${node.index}`)
const linkOf = (pod: TestPod, program: string): string =>
  join(pod.node.pinDir, 'links', `endpoint-${pod.endpoint.id}-${program}`)
const hostDevice = (pod: TestPod): string => {
  const links = JSON.parse(ip(nameOf(pod.node), '-j', 'link')) as readonly { ifindex: number; ifname: string }[]
  return links.find(({ ifindex }) => ifindex === pod.endpoint.ifindex)?.ifname ?? ''
}
/** Packets of pods of node 1, or to them, that had this end. */
const packets = (reason: string): number =>
  topology
    .node(1)
    .datapath.counters()
    .filter((c) => c.reason === reason)
    .reduce((sum, c) => sum + c.packets, 0)

test.serial('M7: with strict reverse path filters everywhere all that travelled before still travels', async (t) => {
  for (const node of topology.nodes) {
    const set = (device: string, value: number): void =>
      node.namespace.setSysctl(`net/ipv4/conf/${device}/rp_filter`, value)
    for (const device of ['all', 'default', 'eth0']) set(device, 1)
    t.teardown(() => {
      for (const device of ['all', 'default', 'eth0']) set(device, 0)
    })
  }
  const [one, two] = [topology.node(1), topology.node(2)]
  const [address = ''] = one.addresses
  const services = [b, far].map((pod, i) => {
    const backends = [{ address: pod.v4, port: 9000, protocol: 'TCP' as const }]
    return {
      frontend: { address: '0.0.0.0', port: 30_900 + i, protocol: 'TCP' as const },
      backends,
      outside: { backends },
    }
  })
  one.datapath.changeServices(services, [])
  await one.datapath.attachForServices()
  t.teardown(() =>
    one.datapath.changeServices(
      [],
      services.map((s) => s.frontend),
    ),
  )
  await using _b = await serve(inPod(b), b.v4, 9000)
  await using _far = await serve(inPod(far), far.v4, 9000)
  await using _node = await serve(onNode(topology, one), address, 9001)
  for (const [place, to, port] of [
    [inPod(a), b.v4, 9000],
    [inPod(a), far.v4, 9000],
    [onNode(topology, one), b.v4, 9000],
    [onNode(topology, one), far.v4, 9000],
    [onFabric(topology), b.v4, 9000],
    [inPod(a), address, 9001],
    [inPod(far), address, 9001],
    [onNode(topology, two), address, 9001],
    // From outside by node ports, to this node's pod and to another node's.
    [onFabric(topology), address, 30_900],
    [onFabric(topology), address, 30_901],
  ] as const)
    t.true((await load(place, 'crr', to, port)) > 0, `${place.namespace} to ${to} ${port}`)
})

test.serial('M7, M13: forwarding that somebody turned off and routes that he took away are put back', async (t) => {
  const node = topology.node(1)
  const nodes = topology.nodes.map((other) => ({
    ...{ name: `node${other.index}`, podCidrs: other.podCidrs },
    via: other === node ? undefined : other.addresses,
  }))
  const forwarding = ['net/ipv4/ip_forward', 'net/ipv6/conf/all/forwarding']
  for (const path of forwarding) node.namespace.setSysctl(path, 0)
  for (const cidr of topology.node(2).podCidrs) ip(nameOf(node), 'route', 'del', cidr)
  // What the agent's loop does every 30 s.
  await node.datapath.setNodes(nodes)
  t.deepEqual(
    forwarding.map((path) => node.namespace.getSysctl(path)),
    ['1', '1'],
  )
  for (const address of [far.v4, far.v6]) {
    await using _ = await serve(inPod(far), address, 9050)
    t.true((await load(inPod(a), 'crr', address, 9050)) > 0)
  }
})

test.serial(
  'M14, M16: a mark that a pod sets opens nothing, also where it is one of ours or of another’s',
  async (t) => {
    const { datapath } = topology.node(1)
    datapath.changePolicy({ endpoints: [{ addresses: [b.v4, b.v6], ingressSet: 99 }] })
    t.teardown(() => datapath.changePolicy({ endpoints: [{ addresses: [b.v4, b.v6], ingressSet: 0 }] }))
    // None; on our own answers, on what is wrapped; kube-proxy's, Istio's, a mesh's.
    for (const mark of [0, 0x57656601, 0x57656602, 0x4000, 0x8000, 1337, 0xffff_ffff]) {
      for (const [to, port, reason] of [
        // Nobody has said who `a` is.
        [b.v4, 9100, 'Unknown sender'],
        ['10.96.0.77', 53, 'Service not found'],
      ] as const) {
        const before = packets(reason)
        sendMarked(a, mark, to, port)
        await eventually(() => packets(reason) > before)
      }
    }
    t.pass()
  },
)

test.serial('M15: programs of others beside ours are left, and ours that somebody detached come back', async (t) => {
  const node = topology.node(1)
  await using _ = await serve(inPod(b), b.v4, 9200)
  using stranger = loadOnlooker(node.pinDir)
  using theirs = await Link.attachDevice(stranger, 'tcxIngress', a.endpoint.ifindex, node.namespace)
  const ours = (): number => {
    using link = Link.openPin(linkOf(a, 'from_container'))
    return link?.info.ifindex ?? 0
  }
  const isJudged = async (): Promise<boolean> => {
    const before = packets('Forwarded')
    t.true((await load(inPod(a), 'crr', b.v4, 9200)) > 0)
    return packets('Forwarded') > before
  }
  t.is(ours(), a.endpoint.ifindex)
  t.true(await isJudged())
  {
    using link = Link.openPin(linkOf(a, 'from_container'))
    link?.detach()
  }
  t.is(ours(), 0)
  node.closeDatapath()
  await node.openDatapath()
  await node.datapath.upsertEndpoint(a.endpoint)
  t.is(ours(), a.endpoint.ifindex)
  t.is(theirs.info.ifindex, a.endpoint.ifindex, 'the other one is still there')
  t.true(await isJudged())
})

test.serial(
  'M15: a program that somebody puts before ours and that passes everything is found, named and left behind ours',
  async (t) => {
    const node = topology.node(1)
    const { datapath } = node
    // What it may not send is judged on its own device and nowhere else.
    const refused = (): number => packets('Policy denied') + packets('Unknown sender')
    datapath.changePolicy({ endpoints: [{ addresses: [a.v4, a.v6], egressSet: 98 }] })
    t.teardown(() => node.datapath.changePolicy({ endpoints: [{ addresses: [a.v4, a.v6], egressSet: 0 }] }))
    const order = (hook: 'tcxIngress' | 'tcxEgress', ifindex: number): string[] =>
      node.namespace
        .within(() => attachedTo(hook, ifindex))
        .map(({ programId }) => {
          using program = Program.openId(programId)
          return program?.name ?? ''
        })
    t.deepEqual(await datapath.keepFirst(), [], 'nobody is in the way')
    const uplink = node.namespace.ifindex('eth0')
    const hooks = [
      ['tcxIngress', a.endpoint.ifindex, 'from_container'],
      ['tcxEgress', a.endpoint.ifindex, 'to_container'],
      ['tcxIngress', uplink, 'from_netdev'],
    ] as const
    for (const [hook, ifindex, ours] of hooks) {
      using stranger = loadOnlooker(node.pinDir, 'bypass')
      using theirs = await Link.attachDevice(stranger, hook, ifindex, node.namespace)
      t.deepEqual(order(hook, ifindex), ['bypass', ours], 'the latest is first')
      const found = await datapath.keepFirst()
      t.deepEqual(
        found.map(({ program, before, ifindex }) => ({ program, before, ifindex })),
        [{ program: 'bypass', before: ours, ifindex }],
      )
      t.deepEqual(order(hook, ifindex), [ours, 'bypass'])
      t.deepEqual(await datapath.keepFirst(), [])
      t.is(theirs.info.ifindex, ifindex, 'the other one is left')
      const before = refused()
      sendMarked(a, 0, b.v4, 9250)
      await eventually(() => refused() > before)
    }
    // The link under our pin is the one that is attached, with the program that is pinned.
    node.closeDatapath()
    await node.openDatapath()
    t.deepEqual(order('tcxIngress', a.endpoint.ifindex), ['from_container'])
  },
)

test.serial('L3: a map that changes while it is read is read whole, each entry once', async (t) => {
  const { pinDir } = topology.node(1)
  using _ = loadOnlooker(pinDir)
  using map = openMap(pinDir, 'churned')
  const stays = 2_000
  const key = Buffer.alloc(4)
  for (let i = 0; i < stays; i++) {
    key.writeUInt32LE(i)
    map.update(key, Buffer.alloc(8))
  }
  const stop = new SharedArrayBuffer(4)
  const churn: Churn = { pinDir, map: 'churned', first: 100_000, count: 4_000, stop }
  const worker = new Worker(join(import.meta.dirname, 'churn.ts'), { workerData: churn })
  await once(worker, 'message')
  try {
    for (let round = 0; round < 30; round++) {
      const keys = map.entries().map((entry) => entry.key.readUInt32LE(0))
      t.is(new Set(keys).size, keys.length, 'none twice')
      t.is(keys.filter((k) => k < stays).length, stays, 'none missing')
    }
  } finally {
    Atomics.store(new Int32Array(stop), 0, 1)
    await once(worker, 'exit')
  }
})

test.serial('L12: a device that is gone is said; another of its number gets programs of its own', async (t) => {
  const node = topology.node(1)
  const { datapath } = node
  const endpoint = { id: 'reused', addresses: ['10.244.1.200'], ifindex: 4242, mac: '02:00:00:00:00:c8' }
  t.teardown(() => datapath.removeEndpoint(endpoint))
  await t.throwsAsync(datapath.upsertEndpoint(endpoint), { message: /4242.*(ENODEV|no such device)/i })
  const links: number[] = []
  for (const name of ['first', 'second']) {
    ip(nameOf(node), 'link', 'add', name, 'index', '4242', 'type', 'veth', 'peer', 'name', `${name}x`)
    await datapath.upsertEndpoint(endpoint)
    using link = Link.openPin(join(node.pinDir, 'links', 'endpoint-reused-from_container'))
    links.push(link?.info.ifindex ?? 0)
    ip(nameOf(node), 'link', 'del', name)
  }
  t.deepEqual(links, [4242, 4242])
})

test.serial(
  'M13: pods’ devices have addresses that were set, which a machine’s own rules for names leave alone',
  (t) => {
    // 3 = NET_ADDR_SET: udev's MACAddressPolicy is for those that the kernel made up.
    for (const [namespace, device] of [
      [nameOf(a.node), hostDevice(a)],
      [a.name, 'eth0'],
    ] as const) {
      const path = `/sys/class/net/${device}/addr_assign_type`
      t.is(execFileSync('ip', ['netns', 'exec', namespace, 'cat', path], { encoding: 'utf8' }).trim(), '3')
    }
    t.regex(ip(nameOf(a.node), 'link', 'show', hostDevice(a)), new RegExp(gatewayMac))
  },
)

test.serial('M18: packets to a pod whose device has gone a moment ago are lost, and nobody else’s', async (t) => {
  const gone = await topology.node(1).addPod()
  const [sent, forwarded] = [3, packets('Forwarded')]
  // Its programs do not know yet: the agent takes it away next.
  ip(nameOf(gone.node), 'link', 'del', hostDevice(gone))
  for (let i = 0; i < sent; i++) sendMarked(a, 0, gone.v4, 9500)
  await eventually(() => packets('Forwarded') >= forwarded + sent)
  for (const to of [b, far]) {
    await using _ = await serve(inPod(to), to.v4, 9500)
    t.true((await load(inPod(a), 'crr', to.v4, 9500)) > 0)
  }
  gone.node.datapath.removeEndpoint(gone.endpoint)
  t.false(gone.node.datapath.addresses().has(gone.v4))
})

test.serial('M4: packets larger than 64 KiB, whose header says a length of 0, arrive (BIG TCP)', async (t) => {
  const large = ['gso_max_size', '180000', 'gro_max_size', '180000']
  for (const pod of [a, b]) {
    ip(pod.name, 'link', 'set', 'eth0', ...large)
    ip(nameOf(pod.node), 'link', 'set', hostDevice(pod), ...large)
  }
  interface Statistics {
    readonly stats64: { readonly rx: { readonly bytes: number; readonly packets: number } }
  }
  const received = (): Statistics['stats64']['rx'] => {
    const [found] = JSON.parse(ip(b.name, '-s', '-j', 'link', 'show', 'eth0')) as Statistics[]
    return found?.stats64.rx ?? { bytes: 0, packets: 0 }
  }
  await using _ = await serve(inPod(b), b.v6, 9300)
  const before = { ...received(), invalid: packets('Invalid packet') }
  t.true((await load(inPod(a), 'stream', b.v6, 9300, 100)) > 0)
  const after = received()
  t.log(`${((after.bytes - before.bytes) / (after.packets - before.packets)).toFixed(0)} bytes a packet`)
  t.is(packets('Invalid packet'), before.invalid)
})

test.serial('L17: records that nobody fetches are counted as lost, and hold up no packet', (t) => {
  const node = topology.node(1)
  using attached = new Attached(node)
  const program = attached.program('from_container')
  using ring = EventRing.open(node.pinDir)
  const batch = Buffer.alloc(1 << 22)
  const drain = (): number => {
    let all = 0
    for (let drained = ring.drain(batch); drained > 0; drained = ring.drain(batch)) all += drained
    return all
  }
  drain()
  const before = { lost: ring.lost(), dropped: packets('Invalid source ip') }
  const context = Buffer.alloc(192)
  context.writeUInt32LE(a.endpoint.ifindex, 40)
  const packet = frame({ source: '192.0.2.1', destination: b.v4 })
  // More than the ring holds. A signal to this process ends a run of many before its time: what was dropped is asked for.
  const dropped = (): number => packets('Invalid source ip') - before.dropped
  node.namespace.within(() => {
    while (dropped() < 60_000) {
      try {
        t.is(program.testRun(packet, { context, repeat: 5_000 }).verdict, 2)
      } catch (error) {
        if (!hasCode(error, 'EINTR')) throw error
      }
    }
  })
  program[Symbol.dispose]()
  const lost = ring.lost() - before.lost
  t.true(lost > 0)
  const all = lost + drain()
  // What a device says of itself to its link now and then is told, too.
  t.true(all >= dropped() && all < dropped() + 100, `${dropped()} were dropped; ${all} were told or counted as lost`)
})

test.serial('M11: an uplink whose packets have no Ethernet header is refused, and nothing is attached', async (t) => {
  const node = topology.node(1)
  ip(nameOf(node), 'link', 'add', 'bare', 'type', 'vxlan', 'external', 'gpe', 'dstport', '4790')
  t.teardown(() => ip(nameOf(node), 'link', 'del', 'bare'))
  const pinDir = join(node.pinDir, 'bare')
  mkdirSync(pinDir)
  const opened = KernelDatapath.open({
    objects: topology.objects,
    pinDir,
    cgroupPath: join(findCgroups().unified, node.cgroup),
    uplink: 'bare',
    serviceCidrs: ['10.96.0.0/16'],
    namespace: node.namespace,
  })
  await t.throwsAsync(opened, { message: /Cannot attach to bare: .*Ethernet/ })
  t.deepEqual(readdirSync(pinDir), [])
})

test.serial(
  'M17: a Gateway’s address is its engine’s, whoever listens on every address; all others are that one’s',
  async (t) => {
    const node = topology.node(1)
    const [own = ''] = node.addresses
    const virtual = '10.9.0.1'
    const place = onNode(topology, node)
    await using _everywhere = await serve(place, '0.0.0.0', 9400)
    const object = topology.objects.find(({ name }) => name === 'sk_lookup')
    if (object === undefined) throw new Error('sk_lookup was not compiled')
    using steering = Steering.open(object, node.pinDir, node.namespace)
    const addresses = new GatewayAddresses(node.netlink)
    await addresses.set([virtual])
    t.teardown(() => addresses.set([]))
    t.true((await load(place, 'crr', virtual, 9400)) > 0, 'an address like any other until it is a Gateway’s')
    steering.set([{ address: virtual, port: 9400, slot: 0 }])
    // Without an engine nobody has it.
    await t.throwsAsync(load(place, 'crr', virtual, 9400), { message: /ECONNREFUSED/ })
    let accepted = 0
    const engine = createServer((connection) => {
      accepted++
      connection.on('error', () => {}).pipe(connection)
    })
    const listening = node.namespace.listen('127.0.0.1', 0)
    steering.setSocket(0, listening)
    engine.listen({ fd: listening.release() })
    await once(engine, 'listening')
    t.teardown(() => engine.close())
    t.true((await load(place, 'crr', virtual, 9400)) > 0)
    const before = accepted
    t.true(before > 1)
    t.true((await load(place, 'crr', own, 9400)) > 0)
    t.is(accepted, before)
  },
)

test.serial('M10: pods go out under an address that stays: not under a temporary or a deprecated one', async (t) => {
  const node = topology.node(1)
  ip(nameOf(node), 'link', 'add', 'many', 'type', 'veth', 'peer', 'name', 'manyx')
  t.teardown(() => ip(nameOf(node), 'link', 'del', 'many'))
  ip(nameOf(node), '-6', 'address', 'add', '2001:db8::9/64', 'dev', 'many', 'nodad')
  ip(nameOf(node), '-6', 'address', 'add', '2001:db8::1/64', 'dev', 'many', 'nodad', 'preferred_lft', '0')
  const listed = await node.netlink.addresses(node.namespace.ifindex('many'))
  t.deepEqual(
    listed.filter((address) => address.startsWith('2001:')),
    ['2001:db8::9/64', '2001:db8::1/64'],
  )
  t.is(
    ip(nameOf(node), '-6', '-o', 'address', 'show', 'dev', 'many').split('2001:db8::1/64')[0]?.includes('::9'),
    false,
  )
})

/** A node port in both families for a pod. */
const nodePort = (pod: TestPod, port: number): Service[] =>
  ([pod.v4, pod.v6] as const).map((address, i) => {
    const backends = [{ address, port: 9500, protocol: 'TCP' as const }]
    return { frontend: { address: i === 0 ? '0.0.0.0' : '::', port, protocol: 'TCP' }, backends, outside: { backends } }
  })

test.serial(
  'M6: of a second way out of the node the agent says that it is there; node ports are refused by it at once',
  async (t) => {
    const node = topology.node(1)
    const warnings: object[] = []
    const log: Log = { ...silentLog, warn: (fields) => warnings.push(fields), child: () => log }
    const again = async (): Promise<void> => {
      node.closeDatapath()
      await node.openDatapath(undefined, { log })
    }
    await again()
    t.deepEqual(warnings, [])
    const { place, away } = await secondNetwork(topology, node)
    t.teardown(away)
    await again()
    t.deepEqual(warnings, [{ uplink: 'eth0', beside: ['eth1'], addresses: node.addresses }])
    const services = nodePort(b, 30_950)
    node.datapath.changeServices(services, [])
    t.teardown(() =>
      node.datapath.changeServices(
        [],
        services.map((s) => s.frontend),
      ),
    )
    await using _four = await serve(inPod(b), b.v4, 9500)
    await using _six = await serve(inPod(b), b.v6, 9500)
    for (const address of [...node.addresses, '198.51.100.11', '2001:db8:51::11'])
      await t.throwsAsync(load(place, 'crr', address, 30_950), { message: /ECONNREFUSED/ }, address)
    for (const address of node.addresses)
      t.true((await load(onFabric(topology), 'crr', address, 30_950)) > 0, 'and by the uplink as ever')
  },
)

test.serial(
  'M6: what has the uplink’s address leaves as the routes for that address say, a node port’s answers and what pods send',
  async (t) => {
    const node = topology.node(1)
    const { away } = await secondNetwork(topology, node)
    t.teardown(away)
    const services = [...nodePort(b, 30_960), ...nodePort(far, 30_961)]
    node.datapath.changeServices(services, [])
    await node.datapath.attachForServices()
    t.teardown(() =>
      node.datapath.changeServices(
        [],
        services.map((s) => s.frontend),
      ),
    )
    // Clients behind the fabric, to whom the node's main table leads by the second way.
    const clients = ['203.0.113.1', '2001:db8:113::1']
    for (const [i, client] of clients.entries()) {
      const [own = '', family] = [node.addresses[i], i === 0 ? '-4' : '-6']
      const gateway = ['198.51.100.1', '2001:db8:51::1'][i] ?? ''
      const fabric = topology.name('fabric')
      const host = `${client}/${i === 0 ? 32 : 128}`
      ip(fabric, family, 'address', 'add', host, 'dev', 'br0', ...(i === 0 ? [] : ['nodad']))
      ip(fabric, family, 'route', 'add', own, 'dev', 'br0', 'src', client)
      ip(nameOf(node), family, 'route', 'add', client, 'via', gateway, 'dev', 'eth1')
      ip(nameOf(node), family, 'rule', 'add', 'from', own, 'lookup', '100')
      ip(nameOf(node), family, 'route', 'add', client, 'via', fabricAddresses[i] ?? '', 'dev', 'eth0', 'table', '100')
      t.teardown(() => {
        ip(nameOf(node), family, 'rule', 'del', 'from', own, 'lookup', '100')
        ip(nameOf(node), family, 'route', 'flush', 'table', '100')
        ip(fabric, family, 'route', 'del', own, 'dev', 'br0')
        ip(fabric, family, 'address', 'del', host, 'dev', 'br0')
      })
      t.regex(ip(nameOf(node), 'route', 'get', client), /dev eth1/)
      for (const [pod, port] of [
        [b, 30_960],
        [far, 30_961],
      ] as const) {
        await using _pod = await serve(inPod(pod), i === 0 ? pod.v4 : pod.v6, 9500)
        t.true((await load(onFabric(topology), 'crr', own, port)) > 0, `${client} to ${own} ${port}`)
      }
      await using _client = await serve(onFabric(topology), client, 9501)
      t.true((await load(inPod(a), 'crr', client, 9501)) > 0, `a pod to ${client}`)
    }
  },
)

test.serial(
  'M12: the node gets another address on its uplink: pods go out under it and node ports answer there, without a restart',
  async (t) => {
    const node = topology.node(1)
    const name = nameOf(node)
    const others = ['172.30.0.77', 'fd00:172:30::77']
    const exchange = (gone: readonly string[], come: readonly string[]): void => {
      for (const [i, address] of come.entries())
        ip(name, 'address', 'add', `${address}/${[24, 64][i]}`, 'dev', 'eth0', ...(i === 0 ? [] : ['nodad']))
      for (const [i, address] of gone.entries()) ip(name, 'address', 'del', `${address}/${[24, 64][i]}`, 'dev', 'eth0')
    }
    const known = node.datapath.knownAddresses()
    const services = nodePort(far, 30_970)
    node.datapath.changeServices(services, [])
    // Otherwise the first address takes those of its network along.
    node.namespace.setSysctl('net/ipv4/conf/eth0/promote_secondaries', 1)
    t.deepEqual((await node.datapath.followNode()).changed, undefined)
    /** Under what `weft why` says that a pod's packet leaves. */
    const asked = (destination: string): string | undefined => {
      const source = destination.includes(':') ? a.v6 : a.v4
      const question = frame({ source, destination, sourcePort: 40_000, destinationPort: 80 })
      const { packet } = node.datapath.probe().judge('from_container', question, a.endpoint.ifindex)
      return read(packet).from.split(' ')[0]
    }
    t.is(asked(fabricAddresses[0] ?? ''), plain(node.addresses[0] ?? ''))
    exchange(node.addresses, others)
    try {
      t.deepEqual((await node.datapath.followNode()).changed, { before: [...node.addresses], now: others })
      t.deepEqual((await node.datapath.followNode()).changed, undefined)
      // As the Node says it once its kubelet does.
      node.datapath.setAddresses(others.map((address) => ({ address, kind: 'own' })))
      for (const [i, own] of others.entries()) {
        const outside = fabricAddresses[i] ?? ''
        await using _outside = await serve(onFabric(topology), outside, 9510)
        t.true((await load(inPod(a), 'crr', outside, 9510)) > 0, `a pod to ${outside}`)
        const out = node.datapath
          .translations()
          .filter(({ from }) => from.destination === outside && from.destinationPort === 9510)
        t.true(out.length > 0 && out.every(({ to }) => to.source === own), `under ${own}`)
        t.is(asked(outside), plain(own))
        await using _far = await serve(inPod(far), i === 0 ? far.v4 : far.v6, 9500)
        t.true((await load(onFabric(topology), 'crr', own, 30_970)) > 0, `a node port at ${own}`)
      }
    } finally {
      exchange(others, node.addresses)
      await node.datapath.followNode()
      node.datapath.setAddresses(known)
      node.datapath.changeServices(
        [],
        services.map((s) => s.frontend),
      )
    }
  },
)

test.serial('M13: a pod’s own route that somebody took away comes back with the others', async (t) => {
  const node = topology.node(1)
  const routes = (): string => ip(nameOf(node), 'route') + ip(nameOf(node), '-6', 'route')
  for (const address of [b.v4, b.v6]) ip(nameOf(node), 'route', 'del', address, 'dev', hostDevice(b))
  t.false(routes().includes(`${b.v4} dev`))
  await node.datapath.setNodes(
    topology.nodes.map((other) => ({
      ...{ name: `node${other.index}`, podCidrs: other.podCidrs },
      via: other === node ? undefined : other.addresses,
    })),
  )
  for (const address of [b.v4, b.v6]) {
    t.true(routes().includes(`${address} dev ${hostDevice(b)}`))
    await using _ = await serve(inPod(b), address, 9530)
    t.true((await load(onNode(topology, node), 'crr', address, 9530)) > 0)
  }
})
