import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { Compiler } from '#agent/policy/compile.ts'
import { parsePolicy } from '#agent/policy/parse.ts'
import type { NetworkPolicy as ApiPolicy } from '#api/gen/networking-v1.ts'
import { formatCidr } from '#base/net/address.ts'
import { identities } from '#datapath/maps/identities.ts'
import {
  inPod,
  load,
  onFabric,
  type Place,
  serve,
  type TestPod,
  type TestServer,
  Topology,
} from '../../packets/topology.ts'
import { type NetworkPolicy, nameOf, type Pod } from '../cluster.ts'
import type { Outcome } from '../journey.ts'
import { beginMs } from '../narrate.ts'
import { NodeModel } from '../node.ts'
import type { Packet } from '../packet.ts'
import { changed, emptyCluster, formatStep, parseScenario, type Step } from '../scenario.ts'

/**
 * scenarios/devices.txt on real devices: the model says of each first packet what must become of it, and sockets find out,
 * with streams (segmentation offloads), single transactions and datagrams of one byte; the receiver's kernel checks every
 * checksum that offloads do not excuse. A test-run sees none of that.
 */
const port = 8080
let topology: Topology
const pods = new Map<string, TestPod>()
const servers: TestServer[] = []
const scenario = parseScenario(readFileSync(join(import.meta.dirname, '../scenarios/devices.txt'), 'utf8'))

test.before(async () => {
  topology = await Topology.create({ label: 'm' })
  pods.set('red/a', await topology.node(1).addPod())
  pods.set('red/b', await topology.node(1).addPod())
  pods.set('blue/far', await topology.node(2).addPod())
  for (const pod of pods.values())
    for (const address of [pod.v4, pod.v6]) servers.push(await serve(inPod(pod), address, port))
  for (const address of ['172.30.0.1', 'fd00:172:30::1']) servers.push(await serve(onFabric(topology), address, port))
})
test.after.always(async () => {
  for (const server of servers) await server[Symbol.asyncDispose]()
  await topology?.[Symbol.asyncDispose]()
})

/** The node's datapath, told of each change as the agent would. */
class Agent {
  readonly #compiler = new Compiler()
  readonly #numbers = new Map<string, number>()

  apply(step: Step): void {
    const { datapath } = topology.node(1)
    switch (step.do) {
      case 'node': {
        const { name, addresses } = step.node
        const isOwn = name === 'node-1'
        const identity = isOwn ? identities.host : identities.remoteNode
        datapath.upsertIdentities(
          addresses.map((address) => ({ address, identity, owner: name, ...(isOwn ? {} : { node: 2 }) })),
        )
        return
      }
      case 'namespace':
        this.#compiler.shared.setNamespace(step.namespace.name, step.namespace.labels)
        return
      case 'pod':
        this.#setPod(step.pod)
        return
      case 'policy':
        this.#setPolicy(step.policy)
        return
      case 'service':
        for (const { port: number, protocol } of step.service.ports) {
          if (protocol === 'SCTP') continue
          for (const address of step.service.clusterIPs) {
            const backends = (step.service.endpoints[number] ?? [])
              .filter((e) => e.address.includes(':') === address.includes(':'))
              .map((e) => ({ address: e.address, port: e.port, protocol }))
            datapath.changeServices([{ frontend: { address, port: number, protocol }, backends }], [])
          }
        }
        return
      case 'tunnel':
      case 'remove':
      case 'wait':
      case 'send':
        return
      default:
        step satisfies never
    }
  }

  #setPod(pod: Pod): void {
    const number = identities.first + this.#numbers.size
    this.#numbers.set(nameOf(pod), number)
    const meaning = {
      namespace: pod.namespace,
      labels: pod.labels,
      ports: pod.ports.map(({ name, port: container, protocol }) => ({ name, number: container, protocol })),
    }
    this.#compiler.shared.setIdentity(number, meaning)
    const isOwn = pod.node === 'node-1'
    if (isOwn) this.#compiler.setPod(nameOf(pod), meaning)
    topology.node(1).datapath.upsertIdentities(
      pod.addresses.map((address) => ({
        address,
        identity: number,
        owner: nameOf(pod),
        ...(isOwn ? {} : { node: 2 }),
      })),
    )
    this.#write()
  }

  #setPolicy(policy: NetworkPolicy): void {
    const { namespace, name, spec } = policy
    const object = {
      apiVersion: 'networking.k8s.io/v1',
      kind: 'NetworkPolicy',
      metadata: { namespace, name, uid: name, generation: 1 },
      spec,
    }
    const parsed = parsePolicy(object as unknown as ApiPolicy)
    if (!('policy' in parsed)) throw new Error(`the policy was refused: ${JSON.stringify(parsed.problems)}`)
    this.#compiler.setPolicy(nameOf(policy), parsed.policy)
    this.#write()
  }

  #write(): void {
    const round = this.#compiler.round()
    if (round === undefined) return
    topology.node(1).datapath.changePolicy({
      entries: round.add,
      networks: new Map(round.networksAdded.map((n) => [formatCidr(n.cidr), n.class])),
      endpoints: [...round.endpoints].map(([name, { ingress, egress }]) => {
        const pod = pods.get(name)
        return { addresses: pod === undefined ? [] : [pod.v4, pod.v6], ingressSet: ingress, egressSet: egress }
      }),
    })
    round.settle()
  }
}

/** Where the packet's sender is. Outside the node's cgroup: no socket hook translates for it, packets are. */
function placeOf(step: Step & { readonly do: 'send' }): Place {
  const name = step.hook.from === 'pod' ? step.hook.pod : 'blue/far'
  const pod = pods.get(name)
  if (pod === undefined) throw new Error(`there is no pod ${name}`)
  return { namespace: pod.name }
}

const modesOf = ({ layer4 }: Packet): readonly ('crr' | 'rr' | 'stream' | 'urr')[] =>
  layer4.kind === 'udp' ? ['urr'] : ['crr', 'rr', 'stream']

async function tryOut(step: Step & { readonly do: 'send' }, { end, reason }: Outcome): Promise<string | undefined> {
  const { packet } = step
  const { layer4 } = packet
  if (layer4.kind !== 'tcp' && layer4.kind !== 'udp') throw new Error('sockets send TCP and UDP')
  for (const mode of modesOf(packet)) {
    let error: unknown
    const rate = await load(placeOf(step), mode, packet.destination, layer4.destinationPort, 30).catch((e: unknown) => {
      error = e
      return 0
    })
    const passes = end === 'pod' || end === 'out'
    if (passes !== rate > 0) return `${mode} ${rate}/s ${String(error)}, the model says ${end} (${reason})`
  }
  return undefined
}

for (const offloads of ['on', 'off'] as const)
  test.serial(`real devices do what the model says, offloads ${offloads}`, async (t) => {
    for (const pod of pods.values()) pod.namespace.setOffloads('eth0', offloads)
    for (const index of [1, 2]) topology.node(index).namespace.setOffloads('eth0', offloads)
    const agent = new Agent()
    const model = new NodeModel('node-1', emptyCluster)
    let [tried, refused] = [0, 0]
    // What an earlier turn left behind: nobody is isolated.
    topology.node(1).datapath.changePolicy({
      endpoints: [...pods.values()].map((p) => ({ addresses: [p.v4, p.v6], egressSet: 0, ingressSet: 0 })),
    })
    for (const step of scenario.steps) {
      if (step.do !== 'send') {
        agent.apply(step)
        if (step.do !== 'wait') model.change(changed(model.cluster, step))
        continue
      }
      const outcome = model.judge(step.hook, step.packet, beginMs + tried)
      t.is(await tryOut(step, outcome), undefined, formatStep(step))
      tried++
      if (outcome.end === 'refusal') refused++
    }
    t.true(tried > 25 && refused > 5, `${tried} tried, ${refused} refused`)
  })
