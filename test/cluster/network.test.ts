import { hostname } from 'node:os'
import test from 'ava'
import { addressOf } from '#cli/cluster/layout.ts'
import { TestCluster } from './cluster.ts'
import { Executed } from './executed.ts'
import { tablesAfterOne, tablesIn } from './netfilter.ts'
import { clientContainer, echoContainer, onEveryNode } from './on-every-node.ts'

/** Pods, Services and nodes talk through our programs, both families, TCP and UDP; nothing of netfilter is there. */
let cluster: TestCluster
const executed = new Executed()

interface Pod {
  readonly name: string
  readonly node: string
  readonly ips: readonly string[]
}

const pods = (selector: string): Pod[] =>
  cluster
    .json<{
      items: { metadata: { name: string }; spec: { nodeName: string }; status: { podIPs: { ip: string }[] } }[]
    }>('get', 'pods', '-l', selector)
    .items.map((p) => ({ name: p.metadata.name, node: p.spec.nodeName, ips: p.status.podIPs.map((i) => i.ip) }))

const literal = (ip: string): string => (ip.includes(':') ? `[${ip}]` : ip)
const inPod = (pod: Pod, script: string): string => cluster.kubectl('exec', pod.name, '--', 'sh', '-c', script)
const get = (pod: Pod, ip: string, port: number): { pod: string; from: string } =>
  JSON.parse(inPod(pod, `get 'http://${literal(ip)}:${port}/'`)) as { pod: string; from: string }

test.before(() => {
  cluster = TestCluster.up('t-net', 2, { pathFirst: executed.dir })
  // Namespaces are entered and images imported while a cluster is made; from here on, nothing.
  executed.take()
  const onHost = '{ name: echo, image: "weft.local/echo:1", args: [--http, "8088"] }'
  cluster.apply(`${onEveryNode('echo', [echoContainer])}${onEveryNode('client', [clientContainer])}
${onEveryNode('onhost', [clientContainer, onHost], 'hostNetwork: true')}
apiVersion: v1
kind: Service
metadata: { name: echo }
spec:
  ipFamilyPolicy: RequireDualStack
  selector: { app: echo }
  ports:
    - { name: http, port: 80, targetPort: 8080 }
    - { name: udp, port: 9000, protocol: UDP }
---
apiVersion: v1
kind: Service
metadata: { name: empty }
spec:
  ipFamilyPolicy: RequireDualStack
  selector: { app: nobody }
  ports: [{ port: 80 }]
`)
  for (const set of ['echo', 'client', 'onhost'])
    cluster.kubectl('rollout', 'status', `daemonset/${set}`, '--timeout=60s')
})

test.after.always(() => {
  cluster?.down()
  executed[Symbol.dispose]()
})

const clusterIps = (name: string): string[] =>
  cluster.json<{ spec: { clusterIPs: string[] } }>('get', 'service', name).spec.clusterIPs

test.serial('pods of every node reach pods of every node, and are seen under their own address', (t) => {
  for (const client of pods('app=client')) {
    for (const echo of pods('app=echo')) {
      echo.ips.forEach((ip, family) => {
        const answer = get(client, ip, 8080)
        t.deepEqual(
          [answer.pod, answer.from],
          [echo.name, client.ips[family]],
          `${client.node} to ${echo.node} at ${ip}`,
        )
      })
    }
  }
})

test.serial('a node reaches the pods of every node, and pods reach every node', (t) => {
  for (const host of pods('app=onhost'))
    for (const echo of pods('app=echo')) for (const ip of echo.ips) t.is(get(host, ip, 8080).pod, echo.name)
  for (const client of pods('app=client')) {
    for (const node of cluster.layout.nodes) {
      for (const address of node.addresses)
        t.is(get(client, addressOf(address), 8088).pod, hostname(), `${client.node} to ${address}`)
    }
  }
})

test.serial('a ClusterIP spreads over both backends, from pods and from nodes', (t) => {
  for (const client of [...pods('app=client'), ...pods('app=onhost')]) {
    for (const ip of clusterIps('echo')) {
      const lines = inPod(client, `for i in $(seq 40); do get 'http://${literal(ip)}/' || exit 1; done`).split('\n')
      t.is(new Set(lines.map((line) => (JSON.parse(line) as { pod: string }).pod)).size, 2, `${client.name} to ${ip}`)
    }
  }
})

test.serial('a ClusterIP carries UDP, and the answer comes from the address that was asked', (t) => {
  for (const client of [...pods('app=client'), ...pods('app=onhost')]) {
    for (const ip of clusterIps('echo'))
      t.is(inPod(client, `get 'udp://${literal(ip)}:9000/hello-${client.node}'`), `hello-${client.node}`)
  }
})

test.serial('a pod reaches itself through its own Service', (t) => {
  cluster.apply(`
apiVersion: v1
kind: Pod
metadata: { name: alone, labels: { app: alone } }
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - { name: echo, image: "weft.local/echo:1" }
    - { name: client, image: "weft.local/busybox:1", command: [sleep, "100000"] }
---
apiVersion: v1
kind: Service
metadata: { name: alone }
spec: { ipFamilyPolicy: RequireDualStack, selector: { app: alone }, ports: [{ port: 80, targetPort: 8080 }] }
`)
  cluster.kubectl('wait', '--for=condition=Ready', 'pod/alone', '--timeout=30s')
  for (const ip of clusterIps('alone')) {
    t.regex(cluster.kubectl('exec', 'alone', '-c', 'client', '--', 'get', `http://${literal(ip)}/`), /"pod":"alone"/)
  }
})

test.serial('a Service without endpoints refuses at once instead of timing out', (t) => {
  const [client] = pods('app=client')
  if (client === undefined) throw new Error('no client pod')
  for (const ip of clusterIps('empty')) {
    const start = performance.now()
    const { code } = cluster.try(['exec', client.name, '--', 'get', '-t', '20', `http://${literal(ip)}/`])
    t.not(code, 0)
    t.true(performance.now() - start < 5_000, 'refused within five seconds')
  }
})

test.serial('the API server is reached from a pod through the kubernetes Service', (t) => {
  const script = 'nc -w 20 $KUBERNETES_SERVICE_HOST $KUBERNETES_SERVICE_PORT -e sh -c "echo reached >&2" 2>&1'
  for (const client of pods('app=client')) t.is(inPod(client, script), 'reached')
})

test.serial('the kernel has no table of nftables or iptables in any of the namespaces', (t) => {
  const [seen] = tablesAfterOne()
  t.true(seen === 'nft seen' || seen === 'no nftables here', 'one would be seen')
  for (const netns of [cluster.layout.fabric.netns, ...cluster.layout.nodes.map((n) => n.netns)])
    t.deepEqual(tablesIn(netns), [], netns)
})

test.serial('while all that ran, Weft started none of ctr, ip, nsenter, bpftool, kubectl, iptables, nft', (t) => {
  const started = executed.take()
  // The runtime's own: it shows that what a node starts is seen.
  const runtime = started.filter((line) => /^runc by containerd/.test(line))
  t.true(runtime.length > 0)
  t.deepEqual(
    started.filter((line) => !runtime.includes(line)),
    [],
  )
})
