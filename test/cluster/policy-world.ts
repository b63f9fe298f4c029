import { readFileSync } from 'node:fs'
import type { Pod } from '#api/gen/core-v1.ts'
import type { NetworkPolicySpec } from '#api/gen/networking-v1.ts'
import { namespaces, networkPolicies, pods } from '#api/gen/resources.ts'
import { createHttpClient, type HttpClient } from '#client/http.ts'
import { httpOptionsOf, parseKubeconfig } from '#client/kubeconfig.ts'
import { TestCluster } from './cluster.ts'
import { type Ask, type Case, namespaceNames, podNames, ports, protocols } from './policy-cases.ts'
import { type Answer, buildProbe, networkOfPods, Prober } from './probers.ts'

export const everyone = namespaceNames.flatMap((namespace) => podNames.map((name) => `${namespace}/${name}`))

export interface Outcome {
  readonly ask: Ask
  readonly answer: Answer
}

/** Every pod to every pod; to itself is nobody's business but its own. */
export const asks: readonly Ask[] = everyone.flatMap((from) =>
  everyone.flatMap((to) =>
    from === to
      ? []
      : protocols.flatMap((protocol) =>
          ports.flatMap((port) => ([4, 6] as const).map((family): Ask => ({ from, to, protocol, port, family }))),
        ),
  ),
)

/** An answer that somebody gave: silence is none. */
const said: ReadonlySet<string> = new Set(['open', 'refused', 'prohibited', 'unreachable'])

export const nameOf = (pod: Pod): string => `${pod.metadata.namespace}/${pod.metadata.name}`

/** A cluster of two nodes with three namespaces of three pods, and a prober in each pod and each node. */
export class PolicyWorld {
  readonly cluster: TestCluster
  readonly client: HttpClient
  readonly hosts: readonly Prober[]
  /** Outside of the cluster, on the nodes' own network. */
  readonly outside: Prober
  readonly #probe: ReturnType<typeof buildProbe>
  readonly #probers = new Map<string, Prober>()
  readonly #addresses = new Map<string, readonly string[]>()

  private constructor(cluster: TestCluster, client: HttpClient) {
    this.cluster = cluster
    this.client = client
    this.#probe = buildProbe()
    const { netns } = cluster.layout.fabric
    this.outside = new Prober('outside', this.#probe.path, `/run/netns/${netns}`, [])
    this.hosts = cluster.layout.nodes.map(
      (node) => new Prober(node.name, this.#probe.path, `/run/netns/${node.netns}`, []),
    )
  }

  /** `flags`: more of `weft up`. */
  static async up(name: string, flags: readonly string[] = []): Promise<PolicyWorld> {
    const cluster = TestCluster.up(name, 2, { flags })
    const config = await parseKubeconfig(readFileSync(cluster.layout.server.adminKubeconfig, 'utf8'))
    const world = new PolicyWorld(cluster, createHttpClient(httpOptionsOf(config)))
    await world.#populate()
    return world
  }

  async #populate(): Promise<void> {
    const { client, cluster } = this
    for (const [i, name] of namespaceNames.entries())
      await client.create(namespaces, { metadata: { name, labels: { ns: name, index: String(i + 1) } } })
    const containerPorts = protocols.flatMap((protocol) =>
      ports.map((port) => ({
        name: `p-${port}-${protocol}`,
        containerPort: port,
        protocol: protocol.toUpperCase() as 'TCP' | 'UDP' | 'SCTP',
      })),
    )
    const nodes = cluster.layout.nodes.map((node) => node.name)
    for (const [i, full] of everyone.entries()) {
      const [namespace = '', name = ''] = full.split('/')
      const index = String(podNames.map(String).indexOf(name) + 1)
      const command = ['sleep', '100000']
      await client.create(pods, {
        metadata: { namespace, name, labels: { pod: name, index } },
        spec: {
          // Neighbours on one node and across both.
          nodeSelector: { 'kubernetes.io/hostname': nodes[i % nodes.length] ?? '' },
          terminationGracePeriodSeconds: 0,
          containers: [{ name: 'c', image: 'weft.local/busybox:1', command, ports: containerPorts }],
        },
      })
    }
    for (const namespace of namespaceNames)
      cluster.kubectl('-n', namespace, 'wait', '--for=condition=Ready', 'pod', '--all', '--timeout=60s')
    const made = (await client.list(pods)).items.filter((pod) => everyone.includes(nameOf(pod)))
    const networks = networkOfPods(made.map((pod) => pod.metadata.uid))
    for (const pod of made) {
      const ips = (pod.status.podIPs ?? []).map(({ ip }) => ip)
      this.#addresses.set(nameOf(pod), ips)
      const netns = networks.get(pod.metadata.uid) ?? ''
      this.#probers.set(nameOf(pod), new Prober(nameOf(pod), this.#probe.path, netns, ports))
    }
  }

  addressOf(name: string, family: 4 | 6): string {
    return this.#addresses.get(name)?.find((address) => address.includes(':') === (family === 6)) ?? ''
  }

  prober(name: string): Prober {
    const found = this.#probers.get(name)
    if (found === undefined) throw new Error(`there is no prober in ${name}`)
    return found
  }

  async ask(questions: readonly Ask[]): Promise<Outcome[]> {
    const found = [...this.#probers].map(async ([name, prober]) => {
      const own = questions.filter((ask) => ask.from === name)
      const answers = await prober.ask(
        own.map(({ to, protocol, port, family }) => ({ protocol, address: this.addressOf(to, family), port })),
      )
      return own.map((ask, i) => ({ ask, answer: answers[i] ?? 'nothing' }))
    })
    return (await Promise.all(found)).flat()
  }

  /** Outcomes that are not as the case says. */
  async differences({ allowed }: Pick<Case, 'allowed'>, questions: readonly Ask[] = asks): Promise<Outcome[]> {
    const outcomes = await this.ask(questions)
    return outcomes.filter(({ ask, answer }) => (answer === 'open') !== allowed(ask) || !said.has(answer))
  }

  /** Asks until all is as the case says or the time is over; what was left unanswered for the denials' limit in rate is asked again. */
  async settle(wanted: Pick<Case, 'allowed'>, withinMs = 15_000): Promise<Outcome[]> {
    const end = performance.now() + withinMs
    let wrong = await this.differences(wanted)
    // The last look is at everything: what was right may have become wrong.
    while (wrong.length > 0 && performance.now() < end) wrong = await this.differences(wanted)
    return wrong
  }

  async policy(namespace: string, name: string, spec: NetworkPolicySpec): Promise<void> {
    await this.client.create(networkPolicies, { metadata: { namespace, name }, spec })
  }

  async clear(): Promise<void> {
    for (const namespace of namespaceNames) await this.client.deleteCollection(networkPolicies, { namespace })
  }

  down(): void {
    for (const prober of [...this.#probers.values(), ...this.hosts, this.outside]) prober.end()
    this.#probe.remove()
    this.client[Symbol.dispose]()
    this.cluster.down()
  }
}

/** From each pod (rows) to each (columns), for one port in one family: `.` as expected, else how it was answered. */
export function table(outcomes: readonly Outcome[]): string {
  const groups = new Map<string, Outcome[]>()
  for (const outcome of outcomes) {
    const { protocol, port, family } = outcome.ask
    const key = `${port}/${protocol} over IPv${family}`
    groups.set(key, [...(groups.get(key) ?? []), outcome])
  }
  const shownMax = 4
  return [...groups]
    .slice(0, shownMax)
    .map(([key, wrong]) => {
      const cell = (from: string, to: string): string => {
        const found = wrong.find(({ ask }) => ask.from === from && ask.to === to)
        return found === undefined ? '  . ' : ` ${found.answer.slice(0, 3)}`
      }
      const rows = everyone.map((from) => `${from} ${everyone.map((to) => cell(from, to)).join('')}`)
      return [`${key}: answers that are not as expected`, `    ${everyone.map((n) => ` ${n}`).join('')}`, ...rows].join(
        '\n',
      )
    })
    .join('\n')
}
