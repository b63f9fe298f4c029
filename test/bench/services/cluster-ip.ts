import type { Service } from '#datapath/datapath.ts'
import { inPod, load, type Place, serve, Topology } from '../../packets/topology.ts'
import { fast, median, type Row } from '../row.ts'
import { loadIptables, loadNftables, type RuleService } from './kube-proxy.ts'

/**
 * TCP connections to a cluster address (connect, one byte each way, close), with 10, 1,000 and 10,000 Services in the kernel, beside
 * connections to the pod itself, and beside the same over plain routing with as many of kube-proxy's rules. One core for all.
 */
const runMs = 80
const counts = [10, 1_000, 10_000] as const
const rounds = 7
const passes = 3
const port = 9000
const cpu = 0
const vip = '10.96.0.10'
/** The test's own Service comes last: the worst place of a list, the usual one on average is half as far. */
const rulesOf = (count: number, backend: string): RuleService[] => [
  ...Array.from({ length: count - 1 }, (_, i) => ({
    address: `10.97.${i >> 8}.${i & 255}`,
    port: 80,
    backends: [0, 1, 2].map((n) => `10.99.${(i * 3 + n) >> 8}.${(i * 3 + n) & 255}`),
    backendPort: 8080,
  })),
  { address: vip, port: 80, backends: [backend], backendPort: port },
]
const servicesOf = (rules: readonly RuleService[]): Service[] =>
  rules.map(({ address, port: number, backends, backendPort }) => ({
    frontend: { address, port: number, protocol: 'TCP' },
    backends: backends.map((b) => ({ address: b, port: backendPort, protocol: 'TCP' })),
  }))

interface Case {
  readonly name: string
  readonly from: Place
  readonly address: string
  readonly port: number
}

export async function clusterIpRows(): Promise<Row[]> {
  await using stack = new AsyncDisposableStack()
  const cases: Case[] = []
  const add = (name: string, from: Place, address: string, at: number): void => {
    cases.push({ name, from: { ...from, cpu }, address, port: at })
  }
  for (const count of counts) {
    const topology = stack.use(await Topology.create({ label: `k${count}`, direct: 'programs' }))
    const [client, near] = [await topology.node(1).addPod(), await topology.node(1).addPod()]
    const far = await topology.node(2).addPod()
    for (const pod of [near, far]) stack.use(await serve({ ...inPod(pod), cpu }, pod.v4, port))
    const { datapath } = topology.node(1)
    datapath.changeServices(servicesOf(rulesOf(count, near.v4)), [])
    datapath.changeServices(
      servicesOf([{ address: '10.96.0.11', port: 80, backends: [far.v4], backendPort: port }]),
      [],
    )
    add(`service ${count}`, inPod(client), vip, 80)
    if (count !== 10_000) continue
    add('service cross', inPod(client), '10.96.0.11', 80)
    add('pod', inPod(client), near.v4, port)
    add('pod cross', inPod(client), far.v4, port)
  }
  for (const count of counts) {
    const topology = stack.use(await Topology.create({ label: `p${count}`, direct: 'plain' }))
    for (const [index, name, fill] of [
      [1, 'iptables', loadIptables],
      [2, 'nftables', loadNftables],
    ] as const) {
      const node = topology.node(index)
      const [client, near] = [await node.addPod(), await node.addPod()]
      stack.use(await serve({ namespace: near.name, cpu }, near.v4, port))
      const rules = rulesOf(count, near.v4)
      const idle = rules.slice(0, -1).map((r) => ({ ...r, backends: r.backends.slice(0, 1), isIdle: true }))
      fill(topology.name(`node${index}`), count === 10_000 ? [...idle, ...rules.slice(-1)] : rules)
      add(`${name} ${count}`, { namespace: client.name }, vip, 80)
    }
  }
  const found: Map<string, number>[] = []
  for (let pass = 0; pass < passes; pass++) {
    const rates = new Map<string, number[]>(cases.map(({ name }) => [name, []]))
    for (let round = 0; round < rounds; round++)
      for (const { name, from, address, port: at } of cases)
        rates.get(name)?.push(await load(from, 'crr', address, at, runMs))
    found.push(new Map([...rates].map(([name, all]) => [name, fast(all)])))
  }
  for (const [i, rates] of found.entries())
    process.stderr.write(
      `  pass ${i + 1} TCP_CRR k/s: ${[...rates].map(([n, r]) => `${n} ${(r / 1e3).toFixed(1)}`).join(', ')}\n`,
    )
  const ratio = (of: string, to: string): number => median(found.map((r) => (r.get(of) ?? 0) / (r.get(to) ?? 1)))
  const beside = (rules: string, goals: Readonly<Record<number, number>>): Row[] =>
    counts.map((count) => ({
      name: `ClusterIP of ${count.toLocaleString('en')}, TCP_CRR of ${rules} with as many`,
      ratio: ratio(`service ${count}`, `${rules} ${count}`),
      goal: goals[count] ?? 1,
    }))
  return [
    { name: 'ClusterIP of 10,000, TCP_CRR of ours to the pod', ratio: ratio('service 10000', 'pod'), goal: 0.94 },
    {
      name: 'ClusterIP of 10,000 across, TCP_CRR of ours to the pod',
      ratio: ratio('service cross', 'pod cross'),
      goal: 0.91,
    },
    { name: 'ClusterIP of 10,000, TCP_CRR of that of 10', ratio: ratio('service 10000', 'service 10'), goal: 0.97 },
    { name: 'ClusterIP of 1,000, TCP_CRR of that of 10', ratio: ratio('service 1000', 'service 10'), goal: 0.97 },
    // Rules in a list are looked through one by one, those of a map are not.
    ...beside('iptables', { 10: 1.1, 1000: 1.2, 10000: 1.7 }),
    ...beside('nftables', { 10: 1.1, 1000: 1.1, 10000: 1.1 }),
  ]
}
