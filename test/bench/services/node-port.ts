import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { compile } from '#datapath/compile.ts'
import { KernelDatapath } from '#datapath/kernel.ts'
import { BpfObject } from '#kernel/bpf/object.ts'
import { Link } from '#kernel/bpf/program.ts'
import { ensureCgroup, findCgroups, removeCgroup } from '#kernel/cgroup.ts'
import { mountBpf, unmount } from '#kernel/mount.ts'
import { Netlink } from '#kernel/netlink/netlink.ts'
import { createNamespace, deleteNamespace, Namespace } from '#kernel/netns.ts'
import { frame } from '../../packets/frames.ts'
import { fast, median, type Row } from '../row.ts'
import { loadNftables } from './kube-proxy.ts'

/**
 * Node ports packet by packet: datagrams with checksums, of 4,096 flows, come in by the uplink and go out by it again to a pod
 * of another node. On one core, generator and sink included; each way in namespaces of its own. `queue`: tc as over a real
 * device, without the short way that a veth pair has to its other end. They end where they come out: in the driver for XDP,
 * behind it for the others.
 */
const packets = 131_072
const rounds = 5
const nodePort = 30_080
const node = '10.246.0.1'
const outside = '10.246.0.2'
const backendNet = '10.244.7.0/24'
const backends = ['10.244.7.11', '10.244.7.12', '10.244.7.13']
const outsideMac = '02:00:00:00:00:02'
const nodeMac = '02:00:00:00:00:01'

type Way = 'tc' | 'queue' | 'xdp' | 'nftables'

interface Lane extends AsyncDisposable {
  /** Packets a second that came out again. */
  measure(): number
}

async function compileTraffic(dir: string): Promise<Buffer> {
  const source = resolve(import.meta.dirname, 'traffic.bpf.c')
  const machine = process.arch === 'arm64' ? 'aarch64-linux-gnu' : 'x86_64-linux-gnu'
  const out = join(dir, 'traffic.o')
  const flags = ['-O2', '-g', '-target', 'bpf', '-mcpu=v3', `-I/usr/include/${machine}`]
  execFileSync('clang', [...flags, '-c', source, '-o', out], { stdio: ['ignore', 'ignore', 'inherit'] })
  return readFileSync(out)
}

async function lane(way: Way): Promise<Lane> {
  await using stack = new AsyncDisposableStack()
  const prefix = `weft-test-${way}${process.pid}`
  const dir = mkdtempSync(join(tmpdir(), 'weft-traffic-'))
  stack.defer(() => rmSync(dir, { recursive: true, force: true }))
  const elf = await compileTraffic(dir)
  for (const end of ['node', 'out']) {
    createNamespace(`${prefix}-${end}`)
    stack.defer(() => deleteNamespace(`${prefix}-${end}`))
  }
  const inside = stack.use(Namespace.open(`${prefix}-node`))
  const out = stack.use(Namespace.open(`${prefix}-out`))
  const nodeLink = stack.use(Netlink.open(inside))
  const outLink = stack.use(Netlink.open(out))
  await nodeLink.addVeth({ name: 'eth0', mac: nodeMac }, { name: 'gen0', mac: outsideMac, namespace: out })
  const [uplink, cable] = [inside.ifindex('eth0'), out.ifindex('gen0')]
  await Promise.all([
    nodeLink.addAddress(uplink, `${node}/24`),
    outLink.addAddress(cable, `${outside}/24`),
    nodeLink.setLinkUp(inside.ifindex('lo')),
    nodeLink.setLinkUp(uplink),
    outLink.setLinkUp(cable),
  ])
  await nodeLink.setNeighbour({ address: outside, mac: outsideMac, deviceIndex: uplink })
  await nodeLink.setRoute({ destination: backendNet, gateway: outside, deviceIndex: uplink })
  inside.setSysctl('net/ipv4/ip_forward', 1)
  // A device of a veth pair polls (and takes redirected frames) only with this, or with a program of its own.
  inside.setOffloads('eth0', 'on')
  if (way === 'nftables') {
    const service = { address: node, port: nodePort, backends, backendPort: 8080, protocol: 'udp' as const }
    loadNftables(`${prefix}-node`, [], [service])
  } else await openDatapath(stack, prefix, inside, way)
  const bytes = frame({
    source: outside,
    destination: node,
    protocol: 'UDP',
    sourcePort: 1024,
    destinationPort: nodePort,
    payload: Buffer.alloc(18),
  })
  Buffer.from(`${nodeMac}:${outsideMac}`.replaceAll(':', ''), 'hex').copy(bytes)
  const object = BpfObject.open('traffic', elf, null)
  const index = Buffer.alloc(4)
  index.writeUInt32LE(cable)
  object.setGlobal('cfg_ifindex', index)
  object.setGlobal('cfg_frame', bytes)
  object.load()
  const generate = stack.use(object.program('generate'))
  const sink = stack.use(object.program(way === 'xdp' ? 'sink' : 'sink_tc'))
  const counts = stack.use(object.map('bench_counts'))
  object[Symbol.dispose]()
  stack.use(await Link.attachDevice(sink, way === 'xdp' ? 'xdpNative' : 'tcxIngress', cable, out))
  const returned = (): number => {
    const key = Buffer.from([1, 0, 0, 0])
    const value = counts.lookup(key) ?? Buffer.alloc(0)
    let sum = 0n
    for (let at = 0; at < value.length; at += 8) sum += value.readBigUInt64LE(at)
    return Number(sum)
  }
  const kept = stack.move()
  return {
    measure() {
      const before = returned()
      const start = process.hrtime.bigint()
      out.within(() => generate.runLive(bytes, packets))
      const seconds = Number(process.hrtime.bigint() - start) / 1e9
      return (returned() - before) / seconds
    },
    [Symbol.asyncDispose]: () => kept[Symbol.asyncDispose](),
  }
}

async function openDatapath(
  stack: AsyncDisposableStack,
  prefix: string,
  namespace: Namespace,
  way: Way,
): Promise<void> {
  const pinDir = `/run/${prefix}`
  const cgroup = `${prefix}`
  ensureCgroup(findCgroups(), cgroup)
  stack.defer(() => removeCgroup(findCgroups(), cgroup))
  execFileSync('mkdir', ['-p', pinDir])
  mountBpf(pinDir)
  stack.defer(() => {
    unmount(pinDir)
    rmSync(pinDir, { recursive: true, force: true })
  })
  const datapath = stack.use(
    await KernelDatapath.open({
      objects: await compile({ cacheDir: '/var/cache/weft/bpf' }),
      pinDir,
      cgroupPath: join(findCgroups().unified, cgroup),
      uplink: 'eth0',
      serviceCidrs: ['10.96.0.0/16'],
      podCidrs: ['10.244.0.0/16'],
      namespace,
      xdp: way === 'xdp' ? 'native' : 'off',
      cable: way === 'queue' ? 'queue' : 'straight',
    }),
  )
  const list = backends.map((address) => ({ address, port: 8080, protocol: 'UDP' as const }))
  const frontend = { address: '0.0.0.0', port: nodePort, protocol: 'UDP' as const }
  datapath.changeServices([{ frontend, backends: list, outside: { backends: list } }], [])
  datapath.setAddresses([{ address: node, kind: 'own' }])
}

export async function nodePortRows(): Promise<Row[]> {
  await using stack = new AsyncDisposableStack()
  const ways = ['tc', 'queue', 'xdp', 'nftables'] as const
  const lanes = new Map<Way, Lane>()
  for (const way of ways) lanes.set(way, stack.use(await lane(way)))
  const passes: Record<Way, number>[] = []
  for (let pass = 0; pass < 3; pass++) {
    const found: Record<Way, number[]> = { tc: [], queue: [], xdp: [], nftables: [] }
    for (let round = 0; round < rounds; round++) for (const [way, { measure }] of lanes) found[way].push(measure())
    const { tc, queue, xdp, nftables } = found
    passes.push({ tc: fast(tc), queue: fast(queue), xdp: fast(xdp), nftables: fast(nftables) })
  }
  for (const [i, p] of passes.entries())
    process.stderr.write(`  pass ${i + 1}: ${ways.map((w) => `${w} ${(p[w] / 1e6).toFixed(2)}`).join(', ')} Mpps\n`)
  const ratio = (way: Way): number => median(passes.map((p) => p[way] / p.nftables))
  return [
    { name: 'node port by tc, packets/s of nftables', ratio: ratio('tc'), goal: 1.7 },
    { name: 'node port by XDP, packets/s of nftables', ratio: ratio('xdp'), goal: 2.5 },
  ]
}
