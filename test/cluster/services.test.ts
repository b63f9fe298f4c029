import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import test from 'ava'
import { eventually } from '#base/async/eventually.ts'
import { addressOf } from '#cli/cluster/layout.ts'
import { namespaceDir } from '#kernel/netns.ts'
import { TestCluster } from './cluster.ts'
import { clientContainer, echoContainer, onEveryNode } from './on-every-node.ts'

/** Services as somebody on the fabric meets them, and what pods are outside. One cluster, real pods. */
let cluster: TestCluster

interface Answer {
  readonly pod: string
  readonly from: string
}
interface Service {
  readonly spec: { readonly ports: { readonly nodePort: number }[]; readonly healthCheckNodePort?: number }
  readonly status: { readonly loadBalancer: { readonly ingress?: { readonly ip: string }[] } }
}

const literal = (ip: string): string => (ip.includes(':') ? `[${ip}]` : ip)
const nodeAddresses = (index: number): string[] => (cluster.layout.nodes[index]?.addresses ?? []).map(addressOf)
const clients = ['172.30.0.1', 'fd00:172:30::1']
const backendCount = 2
/** That so many go to one of two backends happens once in 10^12 times. */
const draws = 40

interface Reply {
  readonly status: number
  /** Or why there is none: ECONNREFUSED, TIMEOUT. */
  readonly body: string
}

/** One process in the fabric's namespace makes all requests, each on a connection of its own: lines of JSON in, lines of JSON out. */
const asker = `
const http = require('node:http')
require('node:readline').createInterface({ input: process.stdin }).on('line', (line) => {
  const { id, url, milliseconds } = JSON.parse(line)
  const tell = (status, body) => console.log(JSON.stringify({ id, status, body }))
  const request = http.get(url, { agent: false }, (response) => {
    const parts = []
    response.on('data', (part) => parts.push(part))
    response.on('end', () => tell(response.statusCode, Buffer.concat(parts).toString()))
  })
  const late = setTimeout(() => request.destroy(new Error('late')), milliseconds)
  request.on('error', (error) => tell(0, error.code ?? 'TIMEOUT'))
  request.on('close', () => clearTimeout(late))
})`

class Outside {
  readonly #child: ChildProcessWithoutNullStreams
  readonly #waiting = new Map<number, (reply: Reply) => void>()
  #next = 0

  constructor(namespace: string) {
    this.#child = spawn('nsenter', [`--net=${join(namespaceDir, namespace)}`, process.execPath, '-e', asker])
    createInterface(this.#child.stdout).on('line', (line) => {
      const { id, status, body } = JSON.parse(line) as Reply & { id: number }
      this.#waiting.get(id)?.({ status, body })
      this.#waiting.delete(id)
    })
  }

  ask(url: string, milliseconds: number): Promise<Reply> {
    const id = this.#next++
    return new Promise((resolve) => {
      this.#waiting.set(id, resolve)
      this.#child.stdin.write(`${JSON.stringify({ id, url, milliseconds })}\n`)
    })
  }

  stop(): void {
    this.#child.kill()
  }
}
let outside: Outside

const ask = (url: string, milliseconds = 5_000): Promise<Reply> => outside.ask(url, milliseconds)
const answer = async (url: string): Promise<Answer> => JSON.parse((await ask(url)).body) as Answer
const answers = (url: string, count: number): Promise<Answer[]> =>
  Promise.all(Array.from({ length: count }, () => answer(url)))

const service = (name: string): Service => cluster.json<Service>('get', 'service', name)
const addressesOf = (name: string): string[] => (service(name).status.loadBalancer.ingress ?? []).map((i) => i.ip)
const nodePortOf = (name: string): number => service(name).spec.ports[0]?.nodePort ?? 0

/** A question is a round to another process, or a run of kubectl. */
const limits = { withinMs: 15_000, pauseMs: 50 }

const answers200 = (url: string): Promise<void> =>
  eventually(async () => {
    const { status, body } = await ask(url)
    if (status !== 200) throw new Error(`${url}: ${status} ${body}`)
  }, limits)

test.before(async () => {
  cluster = TestCluster.up('t-svc')
  outside = new Outside(cluster.layout.fabric.netns)
  const withHostPort = '{ name: echo, image: "weft.local/echo:1", ports: [{ containerPort: 8080, hostPort: 8880 }] }'
  cluster.apply(`${onEveryNode('echo', [withHostPort])}
apiVersion: v1
kind: Pod
metadata: { name: client, labels: { app: client } }
spec:
  nodeName: node-1
  terminationGracePeriodSeconds: 0
  containers: [${clientContainer}]
---
apiVersion: v1
kind: Pod
metadata: { name: lone, labels: { app: lone } }
spec:
  nodeName: node-2
  terminationGracePeriodSeconds: 1
  containers: [${echoContainer}]
---
apiVersion: v1
kind: Service
metadata: { name: echo }
spec:
  type: LoadBalancer
  ipFamilyPolicy: RequireDualStack
  selector: { app: echo }
  ports: [{ port: 80, targetPort: 8080 }]
---
apiVersion: v1
kind: Service
metadata: { name: lone }
spec:
  type: LoadBalancer
  externalTrafficPolicy: Local
  ipFamilyPolicy: RequireDualStack
  selector: { app: lone }
  ports: [{ port: 80, targetPort: 8080 }]
---
apiVersion: v1
kind: Service
metadata: { name: sticky }
spec:
  type: NodePort
  sessionAffinity: ClientIP
  selector: { app: echo }
  ports: [{ port: 80, targetPort: 8080 }]
---
apiVersion: v1
kind: Service
metadata: { name: empty }
spec:
  type: NodePort
  ipFamilyPolicy: RequireDualStack
  selector: { app: nobody }
  ports: [{ port: 80 }]
---
apiVersion: v1
kind: Service
metadata: { name: bad }
spec:
  selector: { app: echo }
  externalIPs: [172.30.0.11]
  ports: [{ port: 7666, targetPort: 8080 }]
`)
  cluster.kubectl('rollout', 'status', 'daemonset/echo', '--timeout=60s')
  cluster.kubectl('wait', 'pod/client', 'pod/lone', '--for=condition=Ready', '--timeout=60s')
})
test.after.always(() => {
  outside?.stop()
  cluster?.down()
})

test.serial(
  'a load balancer’s addresses and every node’s port lead to all backends, from outside, in both families',
  async (t) => {
    await eventually(async () => addressesOf('echo').length === 2, limits)
    const port = nodePortOf('echo')
    const urls = [
      ...addressesOf('echo').map((ip) => `http://${literal(ip)}/`),
      ...[0, 1].flatMap((i) => nodeAddresses(i).map((ip) => `http://${literal(ip)}:${port}/`)),
    ]
    for (const url of urls) {
      await answers200(url)
      const pods = new Set((await answers(url, draws)).map((a) => a.pod))
      t.is(pods.size, backendCount, url)
    }
  },
)

test.serial(
  'S9: with policy Local clients keep their address, only nodes with a backend answer, and pods reach it from anywhere',
  async (t) => {
    await eventually(async () => addressesOf('lone').length === 2, limits)
    const port = nodePortOf('lone')
    for (const [family, ip] of addressesOf('lone').entries()) {
      await answers200(`http://${literal(ip)}/`)
      t.like(await answer(`http://${literal(ip)}/`), { pod: 'lone', from: clients[family] ?? '' })
      t.like(await answer(`http://${literal(nodeAddresses(1)[family] ?? '')}:${port}/`), {
        from: clients[family] ?? '',
      })
      t.like(await ask(`http://${literal(nodeAddresses(0)[family] ?? '')}:${port}/`, 700), {
        status: 0,
        body: 'TIMEOUT',
      })
      for (const url of [`${literal(ip)}`, `${literal(nodeAddresses(0)[family] ?? '')}:${port}`]) {
        const text = cluster.kubectl('exec', 'client', '--', 'sh', '-c', `get 'http://${url}/'`)
        t.is((JSON.parse(text) as Answer).pod, 'lone', `from a pod of node-1 to ${url}`)
      }
    }
  },
)

test.serial('S12: health checks tell a load balancer which node to ask', async (t) => {
  const port = service('lone').spec.healthCheckNodePort ?? 0
  t.true(port > 0)
  const healthUrl = (node: number): string => `http://${nodeAddresses(node)[0]}:${port}/`
  await answers200(healthUrl(1))
  await t.notThrowsAsync(
    eventually(async () => {
      const { status, body } = await ask(healthUrl(0))
      if (status !== 503) throw new Error(`node-1 has no backend, and says ${status} ${body}`)
    }, limits),
  )
  t.is((await ask(`http://${nodeAddresses(0)[0]}:10256/healthz`)).status, 200)
})

test.serial('S13: a node port without endpoints refuses at once, in both families', async (t) => {
  const port = nodePortOf('empty')
  for (const ip of nodeAddresses(0)) {
    // Silence would be a time-out.
    t.like(await ask(`http://${literal(ip)}:${port}/`), { body: 'ECONNREFUSED' })
  }
  const refused = cluster.try(['exec', 'client', '--', 'sh', '-c', `get 'http://${nodeAddresses(1)[0]}:${port}/'`])
  t.not(refused.code, 0)
})

test.serial('S16: a client of a Service with session affinity stays with one pod', async (t) => {
  const url = `http://${nodeAddresses(0)[0]}:${nodePortOf('sticky')}/`
  // Of two first connections at the same moment neither knows of the other's backend.
  await answers200(url)
  t.is(new Set((await answers(url, 12)).map((a) => a.pod)).size, 1)
})

test.serial('S19: a host port leads to the pod of that node, from outside and from a pod', async (t) => {
  for (const index of [0, 1]) {
    const pods = cluster.json<{ items: { metadata: { name: string }; spec: { nodeName: string } }[] }>(
      'get',
      'pods',
      '-l',
      'app=echo',
    )
    const own = pods.items.find((p) => p.spec.nodeName === `node-${index + 1}`)?.metadata.name
    for (const ip of nodeAddresses(index)) t.is((await answer(`http://${literal(ip)}:8880/`)).pod, own ?? '')
  }
  const text = cluster.kubectl('exec', 'client', '--', 'sh', '-c', `get 'http://${nodeAddresses(0)[0]}:8880/'`)
  t.regex((JSON.parse(text) as Answer).pod, /^echo-/)
})

test.serial('S20: an external IP that is a node’s address changes nothing, and its owner is told', async (t) => {
  t.like(await ask(`http://${nodeAddresses(0)[0]}:7666/`), { status: 0, body: 'ECONNREFUSED' })
  await eventually(async () => cluster.kubectl('get', 'events').includes('ExternalIPRefused'), limits)
})

test.serial('a pod talks to the outside under its node’s address', async (t) => {
  const script = `require('http').createServer((q, s) => s.end(q.socket.remoteAddress)).listen(7777, '::', () => console.log('up'))`
  const server = spawn('nsenter', [
    `--net=${join(namespaceDir, cluster.layout.fabric.netns)}`,
    process.execPath,
    '-e',
    script,
  ])
  try {
    await new Promise<void>((up) => createInterface(server.stdout).once('line', () => up()))
    for (const [family, client] of clients.entries()) {
      const seen = cluster.kubectl('exec', 'client', '--', 'sh', '-c', `get 'http://${literal(client)}:7777/'`)
      t.is(seen.replace('::ffff:', ''), nodeAddresses(0)[family] ?? '')
    }
  } finally {
    server.kill()
  }
})

test.serial(
  'L19: an address moves to another node when its node may not answer any more, and connections go on',
  async (t) => {
    const [ip = ''] = addressesOf('echo')
    const url = `http://${ip}/`
    const nodes = [0, 1].map((i) => nodeAddresses(i)[0] ?? '')
    // Answers of a backend elsewhere were asked under the address of the node that announces.
    const announcer = async (): Promise<number> => {
      const seen = (await answers(url, draws)).map((a) => nodes.indexOf(a.from))
      return seen.find((i) => i >= 0) ?? -1
    }
    const before = await announcer()
    t.true(before >= 0)
    cluster.kubectl('label', 'node', `node-${before + 1}`, 'node.kubernetes.io/exclude-from-external-load-balancers=')
    await eventually(async () => (await announcer()) === 1 - before, limits)
    cluster.kubectl('label', 'node', `node-${before + 1}`, 'node.kubernetes.io/exclude-from-external-load-balancers-')
    await eventually(async () => (await announcer()) === before, limits)
  },
)
