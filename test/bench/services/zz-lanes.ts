import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { compile } from '#datapath/compile.ts'
import { KernelDatapath, type XdpMode } from '#datapath/kernel.ts'
import { BpfObject } from '#kernel/bpf/object.ts'
import { Link } from '#kernel/bpf/program.ts'
import { ensureCgroup, findCgroups, removeCgroup } from '#kernel/cgroup.ts'
import { mountBpf, unmount } from '#kernel/mount.ts'
import { Netlink } from '#kernel/netlink/netlink.ts'
import { createNamespace, deleteNamespace, Namespace } from '#kernel/netns.ts'
import { frame } from '../../packets/frames.ts'
import { median, type Row } from '../row.ts'
import { loadNftables } from './kube-proxy.ts'

/**
 * Node ports packet by packet: datagrams with checksums, of 4,096 flows, come in by the uplink and go out by it again to a
 * backend elsewhere (or, for `local`, nowhere). On one core, generator and sink included; each way in namespaces of its own.
 */
const SINK = process.env.SINK ?? 'tc'
const packets = Number(process.env.PACKETS ?? 196_608)
const rounds = Number(process.env.ROUNDS ?? 5)
const nodePort = 30_080
const node = '10.246.0.1'
const outside = '10.246.0.2'
const backends = ['10.244.7.11', '10.244.7.12', '10.244.7.13']
const outsideMac = '02:00:00:00:00:02'
const nodeMac = '02:00:00:00:00:01'

type Way = 'tc' | 'xdp' | 'nftables' | 'cable' | 'queue' | 'f0' | 'f1' | 'f2' | 'f3'

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
  await nodeLink.setRoute({ destination: '10.244.7.0/24', gateway: outside, deviceIndex: uplink })
  inside.setSysctl('net/ipv4/ip_forward', 1)
  // A device of a veth pair polls (and takes redirected frames) only with this, or with a program of its own.
  inside.setOffloads('eth0', 'on')
  if (way === 'nftables') {
    const service = { address: node, port: nodePort, backends, backendPort: 8080, protocol: 'udp' as const }
    loadNftables(`${prefix}-node`, [], [service])
  } else if (/^f/.test(way)) {
    const o = join(dir, 'floor.o')
    execFileSync('clang', [
      '-O2',
      '-g',
      '-target',
      'bpf',
      '-mcpu=v3',
      '-I/usr/include/x86_64-linux-gnu',
      '-c',
      resolve(import.meta.dirname, 'zz-floor.bpf.c'),
      '-o',
      o,
    ])
    const f = BpfObject.open('floor', readFileSync(o), null)
    const m = Buffer.alloc(4)
    m.writeUInt32LE(Number(way[1]))
    f.setGlobal('cfg_mode', m)
    f.load()
    stack.use(await Link.attachDevice(stack.use(f.program('floor_tc')), 'tcxIngress', uplink, inside))
  } else
    await openDatapath(stack, prefix, inside, way === 'xdp' ? 'native' : 'off', way === 'queue' ? 'queue' : 'straight')
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
  const [generate, sink, sinkTc] = [
    stack.use(object.program('generate')),
    stack.use(object.program('sink')),
    object.program('sink_tc'),
  ]
  const counts = stack.use(object.map('bench_counts'))
  object[Symbol.dispose]()
  if (way === 'xdp' || SINK !== 'tc') stack.use(await Link.attachDevice(sink, 'xdpNative', cable, out))
  if (way !== 'xdp') stack.use(await Link.attachDevice(stack.use(sinkTc), 'tcxIngress', cable, out))
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
      if (process.env.DBG)
        for (const e of ['node', 'out'])
          console.log(
            execFileSync(
              'nsenter',
              [`--net=/run/netns/${prefix}-${e}`, 'sh', '-c', 'ip -s -s link; nstat -a 2>/dev/null | head -30'],
              { encoding: 'utf8' },
            ),
          )
      return (returned() - before) / seconds
    },
    [Symbol.asyncDispose]: () => kept[Symbol.asyncDispose](),
  }
}

async function openDatapath(
  stack: AsyncDisposableStack,
  prefix: string,
  namespace: Namespace,
  xdp: XdpMode,
  cable: 'straight' | 'queue',
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
      xdp,
      cable,
    }),
  )
  const list = backends.map((address) => ({ address, port: 8080, protocol: 'UDP' as const }))
  const frontend = { address: '0.0.0.0', port: nodePort, protocol: 'UDP' as const }
  datapath.changeServices([{ frontend, backends: list, outside: { backends: list } }], [])
  datapath.setAddresses([{ address: node, kind: 'own' }])
}

/** The fast phase of a noisy machine. */
const fast = (values: readonly number[]): number => values.toSorted((a, b) => b - a)[Math.floor(values.length / 5)] ?? 0

export async function nodePortRows(): Promise<Row[]> {
  await using stack = new AsyncDisposableStack()
  const ways = (process.env.WAYS ?? 'nftables,queue,cable,xdp,f0,f1,f2,f3').split(',') as Way[]
  const lanes = new Map<Way, Lane>()
  for (const way of ways) lanes.set(way, stack.use(await lane(way)))
  for (let pass = 0; pass < 3; pass++) {
    const found = new Map(ways.map((w) => [w, [] as number[]]))
    for (let round = 0; round < rounds; round++) for (const [way, { measure }] of lanes) found.get(way)?.push(measure())
    const n = fast(found.get('nftables') ?? [1])
    console.log(
      ways
        .map(
          (w) =>
            `${w} ${(1e9 / fast(found.get(w) ?? [])).toFixed(0)} ns (${(fast(found.get(w) ?? []) / n).toFixed(2)})`,
        )
        .join(', '),
    )
  }
  return []
}
