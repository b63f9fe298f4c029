import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import test from 'ava'
import type { Pod } from '#api/gen/core-v1.ts'
import { networkPolicies, pods } from '#api/gen/resources.ts'
import { eventually } from '#base/async/eventually.ts'
import { addressOf } from '#cli/cluster/layout.ts'
import { createHttpClient } from '#client/http.ts'
import { httpOptionsOf, parseKubeconfig } from '#client/kubeconfig.ts'
import { TestCluster } from '../cluster/cluster.ts'
import { scrapeNode } from '../cluster/scrape.ts'

/**
 * Pods (40; the full hundred with WEFT_DRILL_PODS=100) whose first instruction sends one datagram to a guarded pod on the other node. Each has an identity that
 * no other has. The datagram is not sent twice: where the other node does not know the pod yet, it is lost, and the pod fails.
 */
const callers = Number(process.env.WEFT_DRILL_PODS ?? 40)
const cluster = TestCluster.up('t-first')
const client = createHttpClient(
  httpOptionsOf(await parseKubeconfig(readFileSync(cluster.layout.server.adminKubeconfig, 'utf8'))),
)
test.after.always(() => {
  client[Symbol.dispose]()
  cluster.down()
})

/** Packets dropped on their way into pods, by reason. */
async function dropped(node: string): Promise<Map<string, number>> {
  const text = await scrapeNode(cluster, node)
  const lines = text.matchAll(/^cilium_drop_count_total\{direction="INGRESS",reason="([^"]+)"\} (\d+)/gm)
  return new Map([...lines].map(([, reason = '', count]) => [reason, Number(count)]))
}

test.serial('P11, P22: pods that send at their first instruction lose no packet', async (t) => {
  t.timeout(110_000)
  const [near = '', far = ''] = cluster.layout.nodes.map((node) => node.name)
  await client.create(pods, {
    metadata: { namespace: 'default', name: 'guarded', labels: { role: 'guarded' } },
    spec: {
      nodeSelector: { 'kubernetes.io/hostname': far },
      terminationGracePeriodSeconds: 0,
      containers: [{ name: 'echo', image: 'weft.local/echo:1' }],
    },
  })
  cluster.kubectl('wait', '--for=condition=Ready', 'pod/guarded', '--timeout=30s')
  await client.create(networkPolicies, {
    metadata: { namespace: 'default', name: 'guard' },
    spec: {
      podSelector: { matchLabels: { role: 'guarded' } },
      policyTypes: ['Ingress'],
      ingress: [
        {
          // A label that is each caller's own: each is an identity by itself.
          from: [{ podSelector: { matchExpressions: [{ key: 'caller', operator: 'Exists' }] } }],
          ports: [{ protocol: 'UDP', port: 9000 }],
        },
      ],
    },
  })
  // And what they may send themselves is also only what a policy says.
  await client.create(networkPolicies, {
    metadata: { namespace: 'default', name: 'callers' },
    spec: {
      podSelector: { matchExpressions: [{ key: 'caller', operator: 'Exists' }] },
      policyTypes: ['Egress'],
      egress: [{ to: [{ podSelector: { matchLabels: { role: 'guarded' } } }] }],
    },
  })
  const guarded = await client.get(pods, { namespace: 'default', name: 'guarded' })
  const addresses = (guarded.status.podIPs ?? []).map(({ ip }) => (ip.includes(':') ? `[${ip}]` : ip))
  const before = await dropped(far)
  await Promise.all(
    Array.from({ length: callers }, (_, i) =>
      client.create(pods, {
        metadata: { namespace: 'default', name: `caller-${i}`, labels: { caller: `c${i}` } },
        spec: {
          nodeSelector: { 'kubernetes.io/hostname': near },
          restartPolicy: 'Never',
          terminationGracePeriodSeconds: 0,
          containers: [
            {
              name: 'c',
              image: 'weft.local/busybox:1',
              command: ['get', '-t', '20', `udp://${addresses[i % addresses.length]}:9000/from-${i}`],
            },
          ],
        },
      }),
    ),
  )
  const ended = await eventually(
    async (): Promise<Pod[]> => {
      const { items } = await client.list(pods, { namespace: 'default', labelSelector: 'caller' })
      const done = items.filter((pod) => pod.status.phase === 'Succeeded' || pod.status.phase === 'Failed')
      if (done.length < callers) throw new Error(`${done.length} of ${callers} pods have ended`)
      return done
    },
    { withinMs: 100_000, pauseMs: 100 },
  )
  const lost = ended.filter((pod) => pod.status.phase === 'Failed').map((pod) => pod.metadata.name)
  t.deepEqual(lost, [], `${lost.length} of ${callers} had no answer`)
  t.is(new Set(ended.map((pod) => pod.metadata.annotations?.['weft.dev/identity'])).size, callers)
  const after = await dropped(far)
  for (const reason of ['Policy denied', 'Unknown sender'])
    t.is(after.get(reason) ?? 0, before.get(reason) ?? 0, reason)
})

test.serial(
  'a sender from the pods’ networks whom nobody knows is counted apart from one who is not allowed',
  async (t) => {
    const [, far] = cluster.layout.nodes
    if (far === undefined) throw new Error('no second node')
    const guarded = await client.get(pods, { namespace: 'default', name: 'guarded' })
    const [to = ''] = (guarded.status.podIPs ?? []).map(({ ip }) => ip)
    const stranger = '10.244.0.250'
    const via = addressOf(far.addresses[0] ?? '')
    const before = await dropped(far.name)
    // Who can send such packets is on the nodes' own network; here it is the fabric.
    const inFabric = (command: string, args: readonly string[]): void => {
      execFileSync('nsenter', [`--net=/run/netns/${cluster.layout.fabric.netns}`, command, ...args], { stdio: 'pipe' })
    }
    inFabric('ip', ['address', 'add', `${stranger}/32`, 'dev', 'lo'])
    inFabric('ip', ['route', 'add', `${to}/32`, 'via', via])
    try {
      inFabric(process.execPath, ['-e', threeDatagrams, stranger, to])
    } finally {
      inFabric('ip', ['route', 'del', `${to}/32`])
      inFabric('ip', ['address', 'del', `${stranger}/32`, 'dev', 'lo'])
    }
    // The fabric may have to ask for the node's address first.
    const after = await eventually(async () => {
      const now = await dropped(far.name)
      const counted = (now.get('Unknown sender') ?? 0) - (before.get('Unknown sender') ?? 0)
      if (counted < 3) throw new Error(`${counted} of 3 datagrams are counted`)
      return now
    })
    t.is((after.get('Unknown sender') ?? 0) - (before.get('Unknown sender') ?? 0), 3)
    t.is(after.get('Policy denied') ?? 0, before.get('Policy denied') ?? 0)
  },
)

const threeDatagrams = `
const [from, to] = process.argv.slice(1)
const socket = require('dgram').createSocket('udp4')
socket.bind(0, from, async () => {
  for (let i = 0; i < 3; i++) await new Promise((sent) => socket.send('hello', 9000, to, sent))
  socket.close()
})`
