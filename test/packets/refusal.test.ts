import { execFileSync } from 'node:child_process'
import test from 'ava'
import { eventually } from '#base/async/eventually.ts'
import { gatewayMac } from '#datapath/object.ts'
import { ping } from './ping.ts'
import { inPod, load, onNode, serve, type TestPod, Topology } from './topology.ts'

/** Policies on real sockets: what is refused hears of it at once, what is cut breaks at both ends, offloads on and off. */
let topology: Topology
let a: TestPod
let near: TestPod
let far: TestPod
let set = 0

test.before(async () => {
  topology = await Topology.create({ label: 'r' })
  a = await topology.node(1).addPod()
  near = await topology.node(1).addPod()
  far = await topology.node(2).addPod()
  for (const [i, node] of topology.nodes.entries())
    node.datapath.upsertIdentities([
      ...topology.pods.flatMap((pod, n) =>
        [pod.v4, pod.v6].map((address) => ({
          address,
          identity: 300 + n,
          owner: pod.name,
          node: pod.node === node ? 0 : 1,
        })),
      ),
      ...topology.nodes.flatMap((other, n) =>
        other.addresses.map((address) => ({
          address,
          identity: n === i ? 1 : 3,
          owner: `node${n}`,
          node: n === i ? 0 : 1,
        })),
      ),
    ])
})
test.after.always(() => topology?.[Symbol.asyncDispose]())

/** What may come in: TCP to these ports. */
function allowIn(pod: TestPod, ...ports: readonly number[]): void {
  const number = ++set
  pod.node.datapath.changePolicy({
    entries: ports.map((port) => ({ set: number, peer: 0, protocol: 6, port, portBits: 16, rule: 1 })),
    endpoints: [{ addresses: [pod.v4, pod.v6], ingressSet: number }],
  })
}
const open = (pod: TestPod): void =>
  pod.node.datapath.changePolicy({ endpoints: [{ addresses: [pod.v4, pod.v6], ingressSet: 0 }] })

function offload(state: 'on' | 'off'): void {
  for (const pod of [a, near, far])
    execFileSync('ip', ['netns', 'exec', pod.name, 'ethtool', '-K', 'eth0', 'tx', state])
}

/** Milliseconds until it failed, with what it said. */
async function failure(body: Promise<unknown>): Promise<{ readonly ms: number; readonly words: string }> {
  const start = performance.now()
  try {
    await body
    return { ms: performance.now() - start, words: 'it did not fail' }
  } catch (error) {
    return { ms: performance.now() - start, words: String((error as { stderr?: string }).stderr ?? error) }
  }
}

const inside = (pod: TestPod, ...command: readonly string[]): string =>
  execFileSync('ip', ['netns', 'exec', pod.name, ...command], { encoding: 'utf8' }).trim()
const connections = (pod: TestPod, state: string): string => inside(pod, 'ss', '-Htn', 'state', state)
const established = (pod: TestPod): string => connections(pod, 'established')

/** Segments that the pod has sent again. */
function retransmitted(pod: TestPod): number {
  const [names = '', values = ''] = inside(pod, 'cat', '/proc/net/snmp')
    .split('\n')
    .filter((line) => line.startsWith('Tcp:'))
  return Number(values.split(' ')[names.split(' ').indexOf('RetransSegs')])
}

/** What the pod sends there waits for a neighbour who says nothing, until the function that comes back is called. */
function holdAnswers(pod: TestPod, address: string): () => void {
  const [family, silent] = address.includes(':') ? ['-6', 'fe80::77'] : ['-4', '169.254.1.77']
  inside(pod, 'ip', family, 'route', 'add', address, 'via', silent, 'dev', 'eth0', 'onlink')
  return () => {
    const known = ['lladdr', gatewayMac, 'nud', 'permanent', 'dev', 'eth0']
    inside(pod, 'ip', family, 'neigh', 'replace', silent, ...known)
    inside(pod, 'ip', family, 'route', 'del', address, 'via', silent)
    inside(pod, 'ip', family, 'neigh', 'del', silent, 'dev', 'eth0')
  }
}

for (const state of ['on', 'off'] as const) {
  test.serial(`P20: who is refused hears a reset or an ICMP error at once (transmit offload ${state})`, async (t) => {
    offload(state)
    for (const to of [near, far]) {
      allowIn(to, 9_999)
      for (const address of [to.v4, to.v6]) {
        await using _server = await serve(inPod(to), address, 8080)
        const tcp = await failure(load(inPod(a), 'crr', address, 8080, 200))
        t.regex(tcp.words, /ECONNREFUSED/)
        const udp = await failure(load(inPod(a), 'urr', address, 8080, 200))
        t.regex(udp.words, /EHOSTUNREACH|EACCES/)
        t.true(tcp.ms < 900 && udp.ms < 900, `${tcp.ms} ms, ${udp.ms} ms`)
      }
      open(to)
    }
    offload('on')
  })

  test.serial(
    `P2: an established connection that is no longer allowed breaks at both ends (transmit offload ${state})`,
    async (t) => {
      offload(state)
      for (const to of [near, far])
        for (const address of [to.v4, to.v6]) {
          await using _server = await serve(inPod(to), address, 8080)
          const running = failure(load(inPod(a), 'rr', address, 8080, 5_000))
          await eventually(() => established(to) !== '' && established(a) !== '')
          allowIn(to, 9_999)
          const { words, ms } = await running
          t.regex(words, /ECONNRESET/)
          t.true(ms < 4_000)
          await eventually(() => established(to) === '' && established(a) === '')
          open(to)
        }
      offload('on')
    },
  )
}

test.serial(
  'P2: a connection that a policy meets half open is refused at both ends, before its SYN is sent again',
  async (t) => {
    // At the server's node, and at the client's.
    for (const to of [near, far])
      for (const address of [to.v4, to.v6])
        for (const [guarded, direction] of [[to, 'ingressSet'] as const, [a, 'egressSet'] as const]) {
          const policy = (number: number): void =>
            guarded.node.datapath.changePolicy({
              endpoints: [{ addresses: [guarded.v4, guarded.v6], [direction]: number }],
            })
          await using _server = await serve(inPod(to), address, 8080)
          let before: number
          let inTime: boolean
          let words: string
          do {
            before = retransmitted(a)
            const answer = holdAnswers(to, address.includes(':') ? a.v6 : a.v4)
            const asked = failure(load(inPod(a), 'crr', address, 8080, 200))
            await eventually(() => connections(to, 'syn-recv') !== '')
            policy(++set)
            // A machine that took a second for this much shows nothing: once more.
            inTime = retransmitted(a) === before
            answer()
            words = (await asked).words
            await eventually(() => connections(to, 'syn-recv') === '')
            policy(0)
          } while (!inTime)
          t.regex(words, /ECONNREFUSED/, `${to.name} ${address} ${direction}`)
          t.is(retransmitted(a), before, `${to.name} ${address} ${direction}`)
        }
  },
)

test.serial('P3: the node reaches its guarded pod, by every protocol, and the pod may answer', async (t) => {
  near.node.datapath.changePolicy({
    endpoints: [{ addresses: [near.v4, near.v6], ingressSet: ++set, egressSet: ++set }],
  })
  for (const address of [near.v4, near.v6]) {
    await using _server = await serve(inPod(near), address, 8080)
    t.true((await load(onNode(topology, near.node), 'crr', address, 8080)) > 0)
    t.true((await load(onNode(topology, near.node), 'urr', address, 8080)) > 0)
    t.regex((await failure(load(onNode(topology, topology.node(2)), 'crr', address, 8080))).words, /ECONNREFUSED/)
  }
  near.node.datapath.changePolicy({ endpoints: [{ addresses: [near.v4, near.v6], ingressSet: 0, egressSet: 0 }] })
})

test.serial(
  'S5, M3: datagrams of 20,000 bytes and streams of large segments pass a guarded pod, offloads on and off',
  async (t) => {
    for (const state of ['on', 'off'] as const) {
      offload(state)
      for (const to of [near, far]) {
        allowIn(to, 8080)
        for (const address of [to.v4, to.v6]) {
          await using _server = await serve(inPod(to), address, 8080)
          t.true((await load(inPod(a), 'stream', address, 8080, 100)) > 1e6)
          open(to)
          t.regex(ping(a, address, { size: 20_000 }), / 0% packet loss/)
          allowIn(to, 8080)
        }
        open(to)
      }
      offload('on')
    }
  },
)

test.serial('M2: a packet too large for the next device is answered with what would fit', (t) => {
  const resize = (mtu: string): void => {
    for (const node of ['node1', 'node2'])
      execFileSync('ip', ['netns', 'exec', topology.name(node), 'ip', 'link', 'set', 'eth0', 'mtu', mtu])
  }
  resize('1400')
  try {
    // The first is told of, the next is cut to size; so is its answer.
    for (const address of [far.v4, far.v6])
      t.regex(ping(a, address, { size: 1_420, count: 4 }), / [0-9]{1,2}% packet loss/)
  } finally {
    resize('1500')
  }
})
