import { execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { parse, parseAllDocuments } from 'yaml'
import { clusterName, definitions, definitionsPath, renderedChart, renderedMonitor } from './chart.ts'
import { TestCluster, weft } from './cluster.ts'
import { clientContainer, echoContainer, onEveryNode } from './on-every-node.ts'

/** The chart on nodes that have a kubelet and no network: it brings the network, and is upgraded under load. */
let cluster: TestCluster
const dir = mkdtempSync(join(tmpdir(), 'weft-chart-'))

test.before(() => {
  cluster = TestCluster.up(clusterName, 2, { flags: ['--agent', 'none'] })
  const archive = join(dir, 'weft.tar')
  weft('image', 'build', '--output', archive)
  weft('image', 'load', '--name', clusterName, archive)
})
test.after.always(() => {
  cluster?.down()
  rmSync(dir, { recursive: true, force: true })
})

const readiness = (): string[] =>
  cluster
    .json<{ items: { status: { conditions: { type: string; status: string }[] } }[] }>('get', 'nodes')
    .items.map((node) => node.status.conditions.find((c) => c.type === 'Ready')?.status ?? '?')

test.serial('L9, L10: before the chart nodes are NotReady; its manifests are accepted, and they become Ready', (t) => {
  t.deepEqual(readiness(), ['False', 'False'])
  t.notRegex(cluster.apply(renderedChart()), /unknown|invalid/i)
  cluster.kubectl('-n', 'kube-system', 'rollout', 'status', 'daemonset/weft-agent', '--timeout=60s')
  cluster.kubectl('wait', '--for=condition=Ready', 'node', '--all', '--timeout=20s')
  cluster.kubectl('-n', 'kube-system', 'rollout', 'status', 'deployment/weft-operator', '--timeout=60s')
})

test('the definitions in the chart are those of src/api', (t) => {
  t.is(readFileSync(definitionsPath, 'utf8'), definitions(), 'node test/cluster/chart.ts PATH/TO/helm makes them again')
})

test('the PodMonitor chooses the pods of the DaemonSet, and a port that they have', (t) => {
  interface Monitor {
    readonly kind: string
    readonly metadata: { readonly namespace: string }
    readonly spec: {
      readonly selector: { readonly matchLabels: Readonly<Record<string, string>> }
      readonly podMetricsEndpoints: readonly { readonly port: string; readonly path: string }[]
    }
  }
  interface Daemons {
    readonly metadata: { readonly namespace: string }
    readonly spec: {
      readonly template: {
        readonly metadata: { readonly labels: Readonly<Record<string, string>> }
        readonly spec: { readonly containers: readonly { readonly ports?: readonly { readonly name: string }[] }[] }
      }
    }
  }
  const monitor = parse(renderedMonitor()) as Monitor
  t.is(monitor.kind, 'PodMonitor')
  const found = parseAllDocuments(renderedChart()).map((d) => d.toJS() as { kind?: string } | null)
  const daemons = found.find((object) => object?.kind === 'DaemonSet') as unknown as Daemons
  t.is(monitor.metadata.namespace, daemons.metadata.namespace)
  t.like(daemons.spec.template.metadata.labels, monitor.spec.selector.matchLabels)
  t.true(Object.keys(monitor.spec.selector.matchLabels).length > 0)
  const ports = daemons.spec.template.spec.containers.flatMap((c) => c.ports?.map(({ name }) => name) ?? [])
  t.deepEqual(monitor.spec.podMetricsEndpoints, [{ port: 'metrics', path: '/metrics' }])
  t.true(ports.includes('metrics'))
})

test.serial('pods reach each other and Services, by name', (t) => {
  cluster.apply(`${onEveryNode('echo', [echoContainer, clientContainer])}
apiVersion: v1
kind: Service
metadata: { name: echo }
spec: { selector: { app: echo }, ports: [{ port: 80, targetPort: 8080 }] }
`)
  cluster.kubectl('rollout', 'status', 'daemonset/echo', '--timeout=30s')
  const pods = cluster.kubectl('get', 'pods', '-l', 'app=echo', '-o', 'name').split('\n')
  t.is(pods.length, 2)
  for (const pod of pods) {
    const answers = cluster.kubectl(
      ...['exec', pod, '-c', 'client', '--', 'sh', '-c', 'for i in $(seq 40); do get http://echo/; done'],
    )
    t.is(new Set([...answers.matchAll(/"pod":"([^"]+)"/g)].map((m) => m[1])).size, 2, answers)
  }
})

test.serial('the operator gives a Gateway its address, the agents serve it, and say so', async (t) => {
  cluster.apply(`
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: front, namespace: default }
spec:
  gatewayClassName: weft
  listeners: [{ name: http, port: 80, protocol: HTTP }]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: echo, namespace: default }
spec:
  parentRefs: [{ name: front }]
  rules: [{ backendRefs: [{ name: echo, port: 80 }] }]
`)
  cluster.kubectl('wait', '--for=condition=Programmed', 'gateway/front', '--timeout=40s')
  const address = cluster.kubectl('get', 'gateway', 'front', '-o', 'jsonpath={.status.addresses[0].value}')
  const script = `process.stdout.write(await (await fetch('http://${address}/')).text())`
  const client = [
    `--net=/run/netns/${cluster.layout.fabric.netns}`,
    process.execPath,
    '--input-type=module',
    '-e',
    script,
  ]
  t.regex(execFileSync('nsenter', client, { encoding: 'utf8', timeout: 10_000 }), /"pod":"echo-/)
})

test.serial('an upgrade replaces every agent, and no request through a Service fails meanwhile', async (t) => {
  const [client = ''] = cluster.kubectl('get', 'pods', '-l', 'app=echo', '-o', 'name').split('\n')
  const address = cluster.kubectl('get', 'service', 'echo', '-o', 'jsonpath={.spec.clusterIP}')
  const agents = (): string =>
    cluster.kubectl('-n', 'kube-system', 'get', 'pods', '-l', 'app.kubernetes.io/component=agent', '-o', 'name')
  const before = agents().split('\n')
  // Ends by itself: at the file's appearance, or after so many requests.
  const script = `n=0; bad=0; while [ ! -e /tmp/stop ] && [ $n -lt 20000 ]; do
      get -t 2 http://${address}/ > /dev/null 2>&1 || bad=$((bad + 1)); n=$((n + 1)); done; echo "requests $n failed $bad"`
  const load = spawn(cluster.kubectlPath, ['exec', client, '-c', 'client', '--', 'sh', '-c', script], {
    env: cluster.env,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const output = Array.fromAsync(load.stdout)
  const patch = { spec: { template: { metadata: { annotations: { upgraded: 'yes' } } } } }
  cluster.kubectl('-n', 'kube-system', 'patch', 'daemonset', 'weft-agent', '-p', JSON.stringify(patch))
  cluster.kubectl('-n', 'kube-system', 'rollout', 'status', 'daemonset/weft-agent', '--timeout=60s')
  cluster.kubectl('exec', client, '-c', 'client', '--', 'touch', '/tmp/stop')
  const [, requests, failed] = /requests (\d+) failed (\d+)/.exec(Buffer.concat(await output).toString()) ?? []
  t.true(Number(requests) > 100, `requests ${requests}`)
  t.is(failed, '0')
  for (const agent of before) t.false(agents().includes(agent), 'the old agent has gone')
})
