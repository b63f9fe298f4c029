import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process'
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import test from 'ava'
import { endpointSlices, endpoints, nodes, pods, secrets, services } from '#api/gen/resources.ts'
import type { KubeObject, Resource } from '#api/meta/resource.ts'
import { eventually } from '#base/async/eventually.ts'
import { addressOf } from '#cli/cluster/layout.ts'
import { agentProcess } from '#cli/cluster/plan.ts'
import { parseKubeconfig } from '#client/kubeconfig.ts'
import { unpackPackages } from '../distribution.ts'
import { TestCluster } from './cluster.ts'
import { clientOf, discover, listAndWatch } from './discovery.ts'

/**
 * A real Prometheus in the fabric, with the files of examples/prometheus. The distribution's is built without discovery
 * by the Kubernetes API, so it gets a list of what that API says; with WEFT_PROMETHEUS=PATH of one that is built whole,
 * the shipped configuration runs as it is.
 */
const examples = resolve(import.meta.dirname, '../../examples/prometheus')
const whole = process.env.WEFT_PROMETHEUS
let cluster: TestCluster
let dir: string
let root: string
let prometheus: ChildProcess | undefined
const port = 9090

interface Target {
  readonly health: string
  readonly lastError: string
  readonly labels: Readonly<Record<string, string>>
  readonly scrapeUrl: string
}

test.before(async () => {
  dir = mkdtempSync(join(tmpdir(), 'weft-prometheus-'))
  root = unpackPackages('prometheus')
  cluster = TestCluster.up('t-prom')
  cluster.apply(readFileSync(join(examples, 'rbac.yaml'), 'utf8'))
  cluster.apply(`
apiVersion: apps/v1
kind: Deployment
metadata: { name: echo }
spec:
  replicas: 2
  selector: { matchLabels: { app: echo } }
  template:
    metadata: { labels: { app: echo } }
    spec: { terminationGracePeriodSeconds: 0, containers: [{ name: echo, image: "weft.local/echo:1" }] }
---
apiVersion: v1
kind: Service
metadata: { name: echo }
spec: { selector: { app: echo }, ports: [{ port: 80, targetPort: 8080 }] }
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: front }
spec: { gatewayClassName: weft, listeners: [{ name: http, port: 80, protocol: HTTP }] }
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: web }
spec:
  parentRefs: [{ name: front }]
  rules: [{ backendRefs: [{ name: echo, port: 80 }] }]
`)
  cluster.kubectl('rollout', 'status', 'deployment/echo', '--timeout=60s')
  const { ca = '' } = await parseKubeconfig(readFileSync(cluster.layout.server.adminKubeconfig, 'utf8'))
  writeFileSync(join(dir, 'ca.crt'), ca)
  writeFileSync(join(dir, 'token'), serviceAccountToken())
  cpSync(join(examples, 'alerts.yaml'), join(dir, 'shipped.yaml'))
  // The drill cannot wait for minutes: how long a rule waits is all that is changed.
  const rules = readFileSync(join(examples, 'alerts.yaml'), 'utf8')
  writeFileSync(join(dir, 'alerts.yaml'), rules.replaceAll(/for: \d+m/g, 'for: 1s'))
  const config = readFileSync(join(examples, 'prometheus.yaml'), 'utf8').replaceAll('_interval: 15s', '_interval: 1s')
  writeFileSync(join(dir, 'prometheus.yaml'), whole === undefined ? await listed(config) : config)
  prometheus = start()
  await eventually(() => get('/-/ready').includes('Ready'), { withinMs: 20_000, pauseMs: 100 })
})

test.after.always(() => {
  prometheus?.kill('SIGKILL')
  cluster?.down()
  if (dir !== undefined) rmSync(dir, { recursive: true, force: true })
})

function serviceAccountToken(): string {
  const path = '/api/v1/namespaces/monitoring/serviceaccounts/prometheus/token'
  const request = { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenRequest', spec: {} }
  const { code, stdout, stderr } = cluster.try(['create', '--raw', path, '-f', '-'], { input: JSON.stringify(request) })
  if (code !== 0) throw new Error(`no token: ${stderr}`)
  return (JSON.parse(stdout) as { status: { token: string } }).status.token
}

/** The same configuration with the targets that discovery would find, by the same rights, in a file for each role. */
async function listed(config: string): Promise<string> {
  using client = await clientOf(cluster.layout, readFileSync(join(dir, 'token'), 'utf8'))
  for (const [role, groups] of Object.entries(await discover(client)))
    writeFileSync(join(dir, `${role}.json`), JSON.stringify(groups))
  return config.replaceAll(
    /kubernetes_sd_configs:\n {6}- role: (\w+)\n(?: {8}.*\n)+/g,
    (_, role: string) => `file_sd_configs:\n      - files: [${role}.json]\n`,
  )
}

function start(): ChildProcess {
  const program = whole ?? join(root, 'usr/bin/prometheus')
  const pages = whole === undefined ? [`--web.local-assets=${join(root, 'usr/share/prometheus/web/')}`] : []
  const child = spawn(
    'nsenter',
    [
      `--net=/run/netns/${cluster.layout.fabric.netns}`,
      program,
      `--config.file=${join(dir, 'prometheus.yaml')}`,
      `--storage.tsdb.path=${join(dir, 'data')}`,
      `--web.listen-address=127.0.0.1:${port}`,
      '--log.level=warn',
      ...pages,
    ],
    { stdio: ['ignore', 'inherit', 'inherit'] },
  )
  return child
}

/** A command of ours to its end, whatever that is. */
function say(command: 'status' | 'doctor'): { readonly code: number | null; readonly text: string } {
  const main = resolve(import.meta.dirname, '../../src/cli/main.ts')
  const args = [main, command, '--name', cluster.layout.name]
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8', timeout: 60_000 })
  return { code: status, text: `${stdout}${stderr}` }
}

/** What Prometheus says at a path. */
const get = (path: string): string => fromFabric(`http://127.0.0.1:${port}${path}`)

/** What is answered to somebody in the fabric. Throws for anything but 2xx. */
function fromFabric(url: string): string {
  const script = `fetch(process.argv[1]).then(async (a) => { process.stdout.write(await a.text()); if (!a.ok) process.exitCode = 1 }, (e) => { console.error(String(e.cause ?? e)); process.exitCode = 1 })`
  return execFileSync(
    'nsenter',
    [`--net=/run/netns/${cluster.layout.fabric.netns}`, process.execPath, '-e', script, url],
    { encoding: 'utf8', maxBuffer: 64 << 20, stdio: ['ignore', 'pipe', 'ignore'] },
  )
}

const targets = (): Target[] =>
  (JSON.parse(get('/api/v1/targets')) as { data: { activeTargets: Target[] } }).data.activeTargets

/** `[labels, value]` of each series of a query. */
function query(expression: string): [Record<string, string>, number][] {
  const answer = JSON.parse(get(`/api/v1/query?query=${encodeURIComponent(expression)}`)) as {
    data: { result: { metric: Record<string, string>; value: [number, string] }[] }
  }
  return answer.data.result.map(({ metric, value }) => [metric, Number(value[1])])
}

test.serial('the rules that we ship are rules', (t) => {
  const promtool = join(root, 'usr/bin/promtool')
  const said = execFileSync(promtool, ['check', 'rules', join(dir, 'shipped.yaml')], { encoding: 'utf8' })
  t.regex(said, /SUCCESS: \d+ rules found/)
})

test.serial(
  'the service account may ask what discovery asks, gets the labels that are read, and may no more',
  async (t) => {
    using client = await clientOf(cluster.layout, readFileSync(join(dir, 'token'), 'utf8'))
    for (const ask of [nodes, pods, services, endpoints, endpointSlices] as readonly Resource<KubeObject>[])
      await t.notThrowsAsync(listAndWatch(client, ask), ask.resource)
    const found = await discover(client)
    const config = readFileSync(join(examples, 'prometheus.yaml'), 'utf8')
    const read = new Set(config.match(/__meta_kubernetes_\w+/g))
    const told = new Set([...found.node, ...found.endpointslice].flatMap(({ labels }) => Object.keys(labels)))
    t.deepEqual([...told].toSorted(), [...read].toSorted())
    t.is(found.node.length, cluster.layout.nodes.length)
    for (const refused of [
      client.list(secrets),
      client.get(nodes, { name: 'none' }, { subresource: 'proxy' }),
      client.delete(pods, { namespace: 'default', name: 'none' }),
    ])
      await t.throwsAsync(refused, { message: /forbidden/ })
  },
)

test.serial('server and nodes are found and read, and its own page of targets says so', async (t) => {
  const names = ['weft-containers', 'weft-containers', 'weft-node', 'weft-node', 'weft-server']
  await eventually(
    () => {
      const all = targets()
      const bad = all.filter((target) => target.health !== 'up')
      if (all.length !== names.length || bad.length > 0) throw new Error(JSON.stringify(bad.length > 0 ? bad : all))
    },
    { withinMs: 20_000, pauseMs: 200 },
  )
  t.deepEqual(
    targets()
      .map((target) => target.labels.job)
      .toSorted(),
    names,
  )
  // Its page as it has been since 2013; the newer one is a program for a browser, which the distribution leaves out.
  const page = whole === undefined ? get('/classic/targets') : ''
  if (whole === undefined) {
    for (const node of cluster.layout.nodes) {
      t.true(page.includes(`${addressOf(node.addresses[0] ?? '')}:10250/metrics`), node.name)
      t.true(page.includes(`node=&#34;${node.name}&#34;`) || page.includes(`node="${node.name}"`), node.name)
    }
    t.regex(page, /weft-node \(2\/2 up\)/)
    t.regex(page, /weft-server \(1\/1 up\)/)
  }
})

test.serial('the names that dashboards know are there', async (t) => {
  const expected = {
    'weft-server': [
      'apiserver_request_total',
      'apiserver_request_duration_seconds_bucket',
      'apiserver_current_inflight_requests',
      'workqueue_depth',
      'workqueue_adds_total',
      'workqueue_queue_duration_seconds_bucket',
      'weft_part_running',
      'process_resident_memory_bytes',
    ],
    'weft-node': [
      'kubelet_pods',
      'cilium_endpoint',
      'cilium_endpoint_state',
      'cilium_forward_count_total',
      'cilium_bpf_map_capacity',
      'cilium_bpf_map_ops_total',
      'weft_feature_available',
      'weft_dns_queries_total',
      'weft_agent_ready',
      'process_resident_memory_bytes',
    ],
    'weft-containers': [
      'container_memory_working_set_bytes',
      'container_cpu_usage_seconds_total',
      'machine_memory_bytes',
    ],
  }
  await eventually(() => query('count(up == 1)')[0]?.[1] === 5, { withinMs: 10_000, pauseMs: 200 })
  for (const [job, families] of Object.entries(expected))
    for (const family of families) t.true(query(`count(${family}{job="${job}"})`).length > 0, `${family} of ${job}`)
  t.is(query('sum(cilium_endpoint)')[0]?.[1], 2)
})

test.serial('every name that an alert or the dashboard asks for is told by somebody', (t) => {
  const known = new Set(Object.keys((JSON.parse(get('/api/v1/metadata')) as { data: Record<string, unknown> }).data))
  const texts = ['alerts.yaml', 'dashboard.json'].map((name) => readFileSync(join(examples, name), 'utf8'))
  const asked = new Set(
    texts.flatMap((text) =>
      [...text.matchAll(/\b(?:weft|cilium|hubble|apiserver|workqueue|scheduler|process)_[a-z_]+/g)].map((m) => m[0]),
    ),
  )
  t.true(asked.size > 25)
  t.deepEqual(
    [...asked].filter((name) => !known.has(name) && !known.has(name.replace(/_(?:bucket|sum|count)$/, ''))),
    [],
  )
})

test.serial('golden signals: requests, codes and times of a route and its backend', async (t) => {
  cluster.kubectl('wait', '--for=condition=Programmed', 'gateway/front', '--timeout=30s')
  const { addresses } = cluster.json<{ status: { addresses: { value: string }[] } }>('get', 'gateway', 'front').status
  const [address = ''] = addresses.map(({ value }) => value).filter((value) => !value.includes(':'))
  await eventually(() => fromFabric(`http://${address}/`) !== '', { withinMs: 10_000, pauseMs: 100 })
  for (let i = 0; i < 9; i++) fromFabric(`http://${address}/`)
  const labels = 'route="HTTPRoute/default/web",rule="0",backend="default/echo:80"'
  await eventually(
    () => {
      const counted = query(`sum(weft_gateway_requests_total{${labels},code="200"})`)[0]?.[1] ?? 0
      if (counted < 10) throw new Error(`${counted} requests are counted`)
    },
    { withinMs: 10_000, pauseMs: 200 },
  )
  t.true((query(`sum(weft_gateway_request_duration_seconds_count{${labels}})`)[0]?.[1] ?? 0) >= 10)
  const [, quantile = Number.NaN] =
    query(`histogram_quantile(0.5, sum by (le) (weft_gateway_request_duration_seconds_bucket{${labels}}))`)[0] ?? []
  t.true(quantile > 0 && quantile < 1, `${quantile} s`)
})

test.serial('the number of series does not grow with what runs: no pod, address or user is a label', (t) => {
  const byJob = new Map(
    query('count by (job, instance) ({job=~"weft-node|weft-server"})').map(([labels, count]) => [
      `${labels.job} ${labels.instance}`,
      count,
    ]),
  )
  t.log([...byJob].map(([target, count]) => `${target}: ${count}`).join(', '))
  for (const [target, count] of byJob)
    t.true(count < (target.startsWith('weft-node') ? 1500 : 12_000), `${target}: ${count}`)
  const pods = cluster.json<{ items: { metadata: { name: string }; status: { podIP: string } }[] }>('get', 'pods').items
  const { data } = JSON.parse(
    get(`/api/v1/series?match[]=${encodeURIComponent('{job=~"weft-node|weft-server"}')}`),
  ) as {
    data: Record<string, string>[]
  }
  const values = new Set(data.flatMap((labels) => Object.values(labels)))
  for (const { metadata, status } of pods)
    for (const value of [metadata.name, status.podIP]) t.false(values.has(value), value)
})

test.serial('weft status and weft doctor find nothing wrong', (t) => {
  const status = say('status')
  t.is(status.code, 0, status.text)
  t.regex(status.text, /: everything works\n/)
  const doctor = say('doctor')
  t.is(doctor.code, 0, doctor.text)
  t.regex(doctor.text, /, 0 faults, /)
  t.is(doctor.text.match(/ok {7}names/g)?.length, 8, 'two addresses, two transports, two nodes')
})

test.serial('drill: an agent is killed, and the alert for it fires with its name', async (t) => {
  const firing = (): string[] =>
    query('ALERTS{alertstate="firing"}').map(([labels]) => `${labels.alertname} ${labels.node ?? ''}`)
  t.deepEqual(
    firing().filter((line) => !line.startsWith('WeftPodsPending')),
    [],
  )
  const [, second] = cluster.layout.nodes
  if (second === undefined) return t.fail()
  t.not(await cluster.kill(agentProcess(second)), undefined)
  await eventually(() => firing().includes(`WeftNodeDown ${second.name}`), { withinMs: 20_000, pauseMs: 200 })
  const status = say('status')
  t.is(status.code, 1)
  t.regex(status.text, new RegExp(`${second.name}/agent +FAULT does not run\\n +-> `))
  const doctor = say('doctor')
  t.is(doctor.code, 1)
  t.regex(doctor.text, /FAULT {4}agent +does not run\n +-> /)
  t.regex(doctor.text, /FAULT {4}names +169\.254\.20\.10 by tcp: /)
  cluster.weftUp()
  await eventually(() => !firing().some((line) => line.startsWith('WeftNodeDown')), { withinMs: 20_000, pauseMs: 200 })
  t.pass()
})
