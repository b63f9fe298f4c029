import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { encodeAddress } from '#datapath/maps/address.ts'
import { BpfObject } from '#kernel/bpf/object.ts'
import { Link, type Program } from '#kernel/bpf/program.ts'
import { parseMac } from '#kernel/netlink/netlink.ts'
import { installOther, otherVersion } from './relaid.ts'
import { inPod, load, onFabric, serve, type TestPod, Topology } from './topology.ts'

/** What an earlier version has left in the kernel, and what its successor makes of it. */
let topology: Topology
let a: TestPod
let b: TestPod
let far: TestPod

test.before(async () => {
  topology = await Topology.create({ label: 'u' })
  a = await topology.node(1).addPod()
  b = await topology.node(1).addPod()
  far = await topology.node(2).addPod()
})
test.after.always(() => topology?.[Symbol.asyncDispose]())

/** endpoints_v1, as the version before this one had it: { ifindex; mac; pad }. */
const oldMap = `
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct old_key { __u32 word[4]; };
struct old_value { __u32 ifindex; __u16 mac[3]; __u16 pad; };
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct old_key);
	__type(value, struct old_value);
} endpoints_v1 SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, __u32); }
	gone_v3 SEC(".maps"), held_v3 SEC(".maps");
SEC("tc") int nothing(struct __sk_buff *skb) { __u32 k = 0; bpf_map_lookup_elem(&held_v3, &k); return -1; }
char LICENSE[] SEC("license") = "GPL";
`

/** Returns the program beside it. The caller's to dispose. */
function leaveOldMap(pods: readonly TestPod[]): Program {
  const dir = mkdtempSync(join(tmpdir(), 'weft-old-'))
  try {
    writeFileSync(join(dir, 'old.c'), oldMap)
    const machine = process.arch === 'arm64' ? 'aarch64' : 'x86_64'
    const flags = ['-O2', '-g', '-target', 'bpf', `-I/usr/include/${machine}-linux-gnu`]
    execFileSync('clang', [...flags, '-c', join(dir, 'old.c'), '-o', join(dir, 'old.o')])
    using object = BpfObject.open('old', readFileSync(join(dir, 'old.o')), join(topology.node(1).pinDir, 'maps'))
    object.load()
    using map = object.map('endpoints_v1')
    for (const { v4, v6, endpoint } of pods) {
      const value = Buffer.alloc(12)
      value.writeUInt32LE(endpoint.ifindex)
      parseMac(endpoint.mac).copy(value, 4)
      for (const address of [v4, v6]) map.update(encodeAddress(address), value)
    }
    return object.program('nothing')
  } finally {
    rmSync(dir, { recursive: true })
  }
}

test.serial(
  'L1: pods in the layout of the version before are taken over before the programs are exchanged',
  async (t) => {
    const node = topology.node(1)
    using _ = leaveOldMap([a, b])
    for (const pod of [a, b])
      node.datapath.removeEndpoint({ id: 'none', addresses: [pod.v4, pod.v6], ifindex: pod.endpoint.ifindex })
    t.is(node.datapath.addresses().size, 0)
    node.closeDatapath()
    await node.openDatapath()
    t.deepEqual(
      [...node.datapath.addresses().values()].toSorted(),
      [a, a, b, b].map((p) => p.endpoint.ifindex).toSorted(),
    )
    for (const address of [b.v4, b.v6]) {
      await using _server = await serve(inPod(b), address, 8080)
      t.true((await load(inPod(a), 'crr', address, 8080)) > 0)
    }
    t.false(readdirSync(join(node.pinDir, 'maps')).includes('endpoints_v1'), 'nobody reads it any more')
  },
)

test.serial(
  'pins of maps that no version of ours has any more go, but for those that an attached program uses',
  async (t) => {
    const node = topology.node(1)
    const { mapDir, linkDir } = { mapDir: join(node.pinDir, 'maps'), linkDir: join(node.pinDir, 'gateway-links') }
    const pins = (): string[] => readdirSync(mapDir).filter((name) => /^(gone|held|endpoints)_v/.test(name))
    using program = leaveOldMap([])
    const again = async (): Promise<void> => {
      node.closeDatapath()
      await node.openDatapath()
    }
    mkdirSync(linkDir, { recursive: true })
    const path = join(linkDir, 'test')
    {
      using link = await Link.attachDevice(program, 'tcxEgress', node.namespace.ifindex('lo'), node.namespace)
      link.pin(path)
      await again()
      t.deepEqual(pins(), ['endpoints_v2', 'held_v3'])
      t.deepEqual(node.datapath.takenOver?.removed.toSorted(), ['endpoints_v1', 'gone_v3'])
      t.deepEqual(node.datapath.takenOver?.kept, ['held_v3'])
      link.detach()
      rmSync(path)
    }
    await again()
    t.deepEqual(pins(), ['endpoints_v2'])
    await again()
    t.is(node.datapath.takenOver, undefined)
  },
)

test.serial(
  'L6, L8: programs are exchanged under a connection, which goes on: its flow and its policy are where they were',
  async (t) => {
    const node = topology.node(1)
    await using _server = await serve(inPod(b), b.v4, 8081)
    const entries = [{ set: 7, peer: 0, protocol: 6, port: 8081, portBits: 16, rule: 1 }]
    node.datapath.changePolicy({ entries, endpoints: [{ addresses: [b.v4, b.v6], ingressSet: 7 }] })
    const running = load(inPod(a), 'rr', b.v4, 8081, 1_500)
    const pinned = (): string[] =>
      readdirSync(join(node.pinDir, 'programs')).filter((name) => name.startsWith('from_container'))
    const before = pinned()
    for (const cidr of ['10.97.0.0/16', '10.98.0.0/16', '10.96.0.0/16']) {
      node.closeDatapath()
      // Other constants are other programs.
      await node.openDatapath([cidr, 'fd00:10:96::/112'])
      if (cidr === '10.97.0.0/16') t.notDeepEqual(pinned(), before)
    }
    t.true((await running) > 0)
    t.deepEqual(node.datapath.endpointPolicies().get(b.v4), { egressSet: 0, ingressSet: 7 })
    t.is(node.datapath.flows().filter(({ tuple }) => tuple.destinationPort === 8081).length <= 1, true)
    node.datapath.changePolicy({ endpoints: [{ addresses: [b.v4, b.v6], ingressSet: 0 }] })
  },
)

test.serial(
  'L1: connections go on and begin while programs of another layout come and go again: upgrade, roll-back, upgrade',
  async (t) => {
    const node = topology.node(1)
    const [address = ''] = node.addresses
    const other = await otherVersion()
    const pins = (): string[] =>
      readdirSync(join(node.pinDir, 'maps')).filter((name) => /^(flows|translations)_v/.test(name))
    // One at a time is served at a port.
    const nodePorts = [b, far].flatMap((pod, i) =>
      [0, 1].map((j) => ({ pod, port: 8090 + j, nodePort: 30_800 + 10 * i + j })),
    )
    const services = nodePorts.map(({ pod, port, nodePort }) => {
      const backends = [{ address: pod.v4, port, protocol: 'TCP' as const }]
      const frontend = { address: '0.0.0.0', port: nodePort, protocol: 'TCP' as const }
      return { frontend, backends, outside: { backends }, number: `${nodePort}`, port: 80, affinitySeconds: 600 }
    })
    node.datapath.changeServices(services, [])
    // b may answer and begin nothing: an answer that nobody knows to be one is refused.
    const identities = [a, b].map((pod, i) => ({ address: pod.v4, identity: 300 + i, owner: pod.name }))
    node.datapath.upsertIdentities(identities)
    node.datapath.changePolicy({ endpoints: [{ addresses: [b.v4, b.v6], egressSet: 9 }] })
    await using servers = new AsyncDisposableStack()
    for (const port of [8090, 8091]) {
      servers.use(await serve(onFabric(topology), '172.30.0.1', port))
      for (const pod of [b, far]) servers.use(await serve(inPod(pod), pod.v4, port))
    }
    const forMs = 2_500
    const running = [
      // Under the node's address: to the outside, and from there to a pod of the other node.
      load(inPod(a), 'rr', '172.30.0.1', 8090, forMs),
      load(inPod(a), 'urr', '172.30.0.1', 8090, forMs),
      load(inPod(a), 'crr', '172.30.0.1', 8091, forMs),
      load(onFabric(topology), 'rr', address, 30_810, forMs),
      load(onFabric(topology), 'crr', address, 30_811, forMs),
      load(onFabric(topology), 'rr', address, 30_800, forMs),
      load(onFabric(topology), 'crr', address, 30_801, forMs),
      load(inPod(a), 'urr', b.v4, 8090, forMs),
    ]
    const all = Promise.all(running)
    const isOver = all.then(
      () => true,
      () => true,
    )
    let rounds = 0
    do {
      node.closeDatapath()
      const taken = await installOther(node, other)
      const { translations = 0, affinity_v1: affinities = 0 } = taken
      t.true(translations > 0 && affinities > 0, JSON.stringify(taken))
      t.deepEqual(pins(), ['flows_v7', 'translations_v7'])
      await node.openDatapath()
      t.deepEqual(pins(), ['flows_v1', 'translations_v1'])
      rounds++
    } while (!(await Promise.race([isOver, false])))
    for (const [i, rate] of (await all).entries()) t.true(rate > 0, `${i}`)
    t.log(`${rounds} rounds`, (await all).join(' '))
  },
)
