import { Netlink } from '#kernel/netlink/netlink.ts'
import { createNamespace, deleteNamespace, Namespace } from '#kernel/netns.ts'
import { inPod, load, type Place, serve, type TestServer, Topology } from '../packets/topology.ts'
import { fast, median, type Row } from './row.ts'

/**
 * Pod traffic against a bare veth pair and against plain routing, in one interleaved run: client, server and all the
 * kernel's work for them on one core, so that a rate says what the whole path costs. Of each case its fast phase is taken, in
 * three passes; a ratio is the median of theirs.
 */
const runMs = 120
const rounds = 11
const passes = 3
const port = 9000
const cpu = 0
const vip = '10.96.0.10'

type Mode = 'rr' | 'crr' | 'urr' | 'stream'
const modes: readonly Mode[] = ['rr', 'crr', 'urr', 'stream']
const modeNames = { rr: 'TCP_RR', crr: 'TCP_CRR', urr: 'UDP_RR', stream: 'stream' } as const satisfies Record<
  Mode,
  string
>

interface Case {
  readonly from: Place
  readonly address: string
  readonly port: number
}
const caseNames = ['veth', 'plainSame', 'plainCross', 'same', 'cross', 'queued', 'service'] as const
type CaseName = (typeof caseNames)[number]
type Rates = Record<Mode, Record<CaseName, number>>

/** What is judged: a case against its base. */
const judged: readonly {
  readonly name: string
  readonly mode: Mode
  readonly of: CaseName
  readonly to: CaseName
  readonly goal: number
}[] = [
  { name: 'same node, TCP_RR of a veth pair', mode: 'rr', of: 'same', to: 'veth', goal: 0.95 },
  { name: 'same node, TCP_CRR of a veth pair', mode: 'crr', of: 'same', to: 'veth', goal: 0.92 },
  { name: 'same node, UDP_RR of a veth pair', mode: 'urr', of: 'same', to: 'veth', goal: 0.9 },
  { name: 'same node, stream of a veth pair', mode: 'stream', of: 'same', to: 'veth', goal: 0.9 },
  { name: 'cross node, TCP_RR of a veth pair', mode: 'rr', of: 'cross', to: 'veth', goal: 0.92 },
  { name: 'cross node, TCP_CRR of a veth pair', mode: 'crr', of: 'cross', to: 'veth', goal: 0.85 },
  { name: 'cross node, UDP_RR of a veth pair', mode: 'urr', of: 'cross', to: 'veth', goal: 0.85 },
  { name: 'cross node, stream of a veth pair', mode: 'stream', of: 'cross', to: 'veth', goal: 0.85 },
  // As by a device that is no veth pair's end: packets wait in its queue.
  { name: 'cross node by a queue, TCP_RR of a veth pair', mode: 'rr', of: 'queued', to: 'veth', goal: 0.85 },
  { name: 'cross node by a queue, TCP_CRR of a veth pair', mode: 'crr', of: 'queued', to: 'veth', goal: 0.79 },
  { name: 'same node, TCP_RR of plain routing', mode: 'rr', of: 'same', to: 'plainSame', goal: 1 },
  { name: 'cross node, TCP_RR of plain routing', mode: 'rr', of: 'cross', to: 'plainCross', goal: 1 },
  { name: 'cross node, TCP_CRR of plain routing', mode: 'crr', of: 'cross', to: 'plainCross', goal: 1 },
  { name: 'cross node by a queue, TCP_RR of plain routing', mode: 'rr', of: 'queued', to: 'plainCross', goal: 1 },
  { name: 'ClusterIP, TCP_CRR of ours to the pod', mode: 'crr', of: 'service', to: 'same', goal: 0.95 },
  { name: 'ClusterIP, TCP_RR of ours to the pod', mode: 'rr', of: 'service', to: 'same', goal: 0.95 },
  { name: 'ClusterIP, UDP_RR of ours to the pod', mode: 'urr', of: 'service', to: 'same', goal: 0.95 },
]

export async function run(): Promise<Row[]> {
  await using bench = await Bench.create()
  const ratios: number[][] = judged.map(() => [])
  for (let pass = 0; pass < passes; pass++) {
    const rates = await bench.pass()
    for (const [i, { mode, of, to }] of judged.entries()) ratios[i]?.push(rates[mode][of] / rates[mode][to])
    report(pass, rates)
  }
  return judged.map(({ name, goal }, i) => ({ name, goal, ratio: median(ratios[i] ?? []) }))
}

/** Absolute rates for the curious, on standard error: only ratios are judged. */
function report(pass: number, rates: Rates): void {
  for (const mode of modes) {
    const cells = caseNames.map(
      (name) => `${name} ${(rates[mode][name] / (mode === 'stream' ? 125e6 : 1e3)).toFixed(1)}`,
    )
    process.stderr.write(
      `  pass ${pass + 1} ${modeNames[mode].padEnd(8)} ${mode === 'stream' ? 'Gbit/s' : 'k/s'}: ${cells.join(', ')}\n`,
    )
  }
}

/** All cases alive at once, each in namespaces of its own. */
class Bench implements AsyncDisposable {
  readonly #cases: Readonly<Record<CaseName, Case>>
  readonly #stack: AsyncDisposableStack

  private constructor(cases: Readonly<Record<CaseName, Case>>, stack: AsyncDisposableStack) {
    this.#cases = cases
    this.#stack = stack
  }

  static async create(): Promise<Bench> {
    await using stack = new AsyncDisposableStack()
    const listen = async (at: Place, address: string): Promise<TestServer> =>
      stack.use(await serve({ ...at, cpu }, address, port))
    const veth = await addPair(stack)
    await listen(veth.server, veth.address)
    const cases: Partial<Record<CaseName, Case>> = { veth: { from: veth.client, address: veth.address, port } }
    for (const label of ['plain', 'programs', 'queued'] as const) {
      const direct = label === 'plain' ? 'plain' : 'programs'
      const datapath = label === 'queued' ? { cable: 'queue' as const } : {}
      const topology = stack.use(await Topology.create({ label, direct, datapath }))
      const client = await topology.node(1).addPod()
      const near = await topology.node(1).addPod()
      const far = await topology.node(2).addPod()
      // Without programs there is no cgroup either.
      const at = direct === 'plain' ? (pod: typeof client): Place => ({ namespace: pod.name }) : inPod
      await listen(at(far), far.v4)
      if (label === 'queued') {
        cases.queued = { from: at(client), address: far.v4, port }
        continue
      }
      await listen(at(near), near.v4)
      cases[direct === 'plain' ? 'plainSame' : 'same'] = { from: at(client), address: near.v4, port }
      cases[direct === 'plain' ? 'plainCross' : 'cross'] = { from: at(client), address: far.v4, port }
      if (direct === 'plain') continue
      const backends = (protocol: 'TCP' | 'UDP') => [{ address: near.v4, port, protocol }]
      topology.node(1).datapath.changeServices(
        (['TCP', 'UDP'] as const).map((protocol) => ({
          frontend: { address: vip, port: 80, protocol },
          backends: backends(protocol),
        })),
        [],
      )
      cases.service = { from: at(client), address: vip, port: 80 }
    }
    return new Bench(cases as Record<CaseName, Case>, stack.move())
  }

  async pass(): Promise<Rates> {
    const rates = {} as Rates
    for (const mode of modes) {
      const found = Object.fromEntries(caseNames.map((name) => [name, [] as number[]])) as Record<CaseName, number[]>
      for (let round = 0; round < rounds; round++) {
        for (const name of caseNames) {
          const { from, address, port: at } = this.#cases[name]
          found[name].push(await load({ ...from, cpu }, mode, address, at, runMs))
        }
      }
      rates[mode] = Object.fromEntries(caseNames.map((name) => [name, fast(found[name])])) as Record<CaseName, number>
    }
    return rates
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack[Symbol.asyncDispose]()
  }
}

/** Two namespaces on one cable, with nothing of ours. */
export async function addPair(stack: AsyncDisposableStack): Promise<{ client: Place; server: Place; address: string }> {
  const names = ['client', 'server'].map((end) => `weft-test-pair${process.pid}-${end}`)
  const [a = '', b = ''] = names
  for (const name of names) {
    createNamespace(name)
    stack.defer(() => deleteNamespace(name))
  }
  using first = Namespace.open(a)
  using second = Namespace.open(b)
  using nearEnd = Netlink.open(first)
  using farEnd = Netlink.open(second)
  await nearEnd.addVeth({ name: 'eth0' }, { name: 'eth0', namespace: second })
  await Promise.all([
    nearEnd.addAddress(first.ifindex('eth0'), '10.245.0.1/24'),
    farEnd.addAddress(second.ifindex('eth0'), '10.245.0.2/24'),
    nearEnd.setLinkUp(first.ifindex('eth0')),
    farEnd.setLinkUp(second.ifindex('eth0')),
  ])
  return { client: { namespace: a }, server: { namespace: b }, address: '10.245.0.2' }
}
