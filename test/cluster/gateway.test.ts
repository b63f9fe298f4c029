import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import test from 'ava'
import type { Service } from '#api/gen/core-v1.ts'
import type { Condition } from '#api/gen/meta-v1.ts'
import { eventually } from '#base/async/eventually.ts'
import { loopbackPortsFile } from '#cli/cluster/commands.ts'
import { pidFile } from '#cli/cluster/observe.ts'
import { readLoopbackPorts } from '#cli/server/loopback.ts'
import type { Certificate } from '#gateway/engine.ts'
import type { Gateway, HttpRoute } from '#gateway/objects.ts'
import { certificate } from '../gateway/tls.ts'
import { TestCluster, weft } from './cluster.ts'
import { type Answered, type Asked, Outside } from './outside.ts'

/** Gateways as their users have them: objects in, answers to the outside client out. */
let cluster: TestCluster
let outside: Outside
let pem: Certificate

const withinMs = 20_000
const soon = <T>(check: () => T | Promise<T>): Promise<T> => eventually(check, { withinMs })
const gatewayOf = (name: string): Gateway => cluster.json<Gateway>('get', 'gateway', '-n', 'shop', name)
const addressOf = (name: string, family: 4 | 6 = 4): string =>
  gatewayOf(name).status?.addresses?.find(({ value }) => value?.includes(':') === (family === 6))?.value ?? ''
const told = (conditions: readonly Condition[] | undefined, type: string): string => {
  const found = conditions?.find((c) => c.type === type)
  return found === undefined ? '' : `${found.status} ${found.reason}`
}
const routeTold = (name: string, type: string): string => {
  const route = cluster.json<HttpRoute>('get', 'httproute', '-n', 'shop', name)
  return told(route.status?.parents?.[0]?.conditions, type)
}
const programmed = (name: string): Promise<void> =>
  soon(() => {
    const { metadata, status } = gatewayOf(name)
    const condition = status?.conditions?.find(({ type }) => type === 'Programmed')
    if (condition?.status !== 'True' || condition.observedGeneration !== metadata.generation)
      throw new Error(`not programmed: ${condition?.message}`)
  })
const answers = (asked: Asked, status: number): Promise<Answered> =>
  soon(async () => {
    const answer = await outside.ask(asked)
    if (answer.status !== status)
      throw new Error(`${answer.status} instead of ${status}: ${answer.error ?? answer.body}`)
    return answer
  })

const web = (name: string): string => `
apiVersion: apps/v1
kind: Deployment
metadata: { name: ${name}, namespace: shop }
spec:
  replicas: 2
  selector: { matchLabels: { app: ${name} } }
  template:
    metadata: { labels: { app: ${name} } }
    spec:
      terminationGracePeriodSeconds: 0
      containers:
        - name: echo
          image: weft.local/echo:1
          env: [{ name: VERSION, value: ${name} }]
          readinessProbe: { httpGet: { path: /ready, port: 8080 }, periodSeconds: 1 }
---
apiVersion: v1
kind: Service
metadata: { name: ${name}, namespace: shop }
spec: { selector: { app: ${name} }, ports: [{ name: http, port: 80, targetPort: 8080 }] }
---`

const route = (name: string, spec: string): string => `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: ${name}, namespace: shop }
spec:
  parentRefs: [{ name: edge }]
${spec}
---`

test.before(async () => {
  cluster = TestCluster.up('t-gateway')
  outside = new Outside(cluster.layout.fabric.netns)
  const dir = mkdtempSync(join(tmpdir(), 'weft-gateway-'))
  const [key, crt] = [join(dir, 'key'), join(dir, 'crt')]
  pem = await certificate('shop/shop-tls', 'shop.example.com')
  writeFileSync(key, pem.keyPem)
  writeFileSync(crt, pem.certPem)
  cluster.kubectl('create', 'namespace', 'shop')
  for (const name of ['shop-tls', 'other-tls'])
    cluster.kubectl('create', 'secret', 'tls', name, '-n', 'shop', `--cert=${crt}`, `--key=${key}`)
  rmSync(dir, { recursive: true })
  cluster.apply(`
${web('one')}
${web('two')}
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: edge, namespace: shop }
spec:
  gatewayClassName: weft
  infrastructure: { labels: { team: shop }, annotations: { note: ours } }
  listeners:
    - { name: http, port: 80, protocol: HTTP }
    - { name: https, port: 443, protocol: HTTPS, hostname: shop.example.com, tls: { certificateRefs: [{ name: shop-tls }] } }
---
${route(
  'split',
  `  hostnames: [split.example.com]
  rules: [{ backendRefs: [{ name: one, port: 80, weight: 90 }, { name: two, port: 80, weight: 10 }] }]`,
)}
${route(
  'shop',
  `  hostnames: [shop.example.com]
  rules:
    - matches: [{ path: { value: /two } }]
      backendRefs: [{ name: two, port: 80 }]
    - backendRefs: [{ name: one, port: 80 }]`,
)}
`)
  cluster.kubectl('wait', '-n', 'shop', '--for=condition=Available', 'deployment', '--all', '--timeout=40s')
  await programmed('edge')
})
test.after.always(() => {
  outside?.[Symbol.dispose]()
  cluster?.down()
})

const shop = { host: 'shop.example.com' } as const

test.serial(
  'a route is answered on both families, by HTTP and by TLS, and from pods at the same address',
  async (t) => {
    for (const family of [4, 6] as const) {
      const address = addressOf('edge', family)
      t.not(address, '', `an address of family ${family}`)
      const plain = await answers({ address, port: 80, ...shop }, 200)
      t.like(JSON.parse(plain.body), { version: 'one' })
      const secure = await answers({ address, port: 443, ...shop, path: '/two/x', ca: pem.certPem }, 200)
      t.like(JSON.parse(secure.body), { version: 'two', path: '/two/x' })
    }
    t.is((await outside.ask({ address: addressOf('edge'), port: 80, host: 'nobody.example.com' })).status, 404)
    cluster.kubectl('run', 'client', '-n', 'shop', '--image=weft.local/busybox:1', '--', 'sleep', '1000')
    cluster.kubectl('wait', '-n', 'shop', '--for=condition=Ready', 'pod/client', '--timeout=20s')
    const service = cluster.json<Service>('get', 'service', '-n', 'shop', 'weft-gateway-edge')
    for (const address of [addressOf('edge'), service.spec.clusterIP ?? '']) {
      const script = `printf 'GET / HTTP/1.1\\r\\nHost: shop.example.com\\r\\nConnection: close\\r\\n\\r\\n' | nc -w 5 ${address} 80`
      t.regex(cluster.kubectl('exec', '-n', 'shop', 'client', '--', 'sh', '-c', script), /^HTTP\/1.1 200/, address)
    }
  },
)

test.serial('90 to 10 is 90 to 10, within five standard deviations', async (t) => {
  const asked = { address: addressOf('edge'), port: 80, host: 'split.example.com' }
  await answers(asked, 200)
  const count = 1000
  let two = 0
  for (let i = 0; i < count; i += 50) {
    const answers = await Promise.all(Array.from({ length: 50 }, () => outside.ask(asked)))
    for (const { status, body } of answers) {
      t.is(status, 200)
      if ((JSON.parse(body) as { version: string }).version === 'two') two++
    }
  }
  const deviation = Math.sqrt(count * 0.1 * 0.9)
  t.true(Math.abs(two - count * 0.1) < 5 * deviation, `${two} of ${count}`)
})

test.serial(
  'a Gateway’s Service carries its infrastructure; its ports lead to it from the machine’s loopback',
  async (t) => {
    const service = cluster.json<Service>('get', 'service', '-n', 'shop', 'weft-gateway-edge')
    t.like(service.metadata.labels, { team: 'shop', 'gateway.networking.k8s.io/gateway-name': 'edge' })
    t.like(service.metadata.annotations, { note: 'ours' })
    const ports = await soon(() => {
      const found = readLoopbackPorts(loopbackPortsFile(cluster.layout)).filter((p) => p.gateway === 'shop/edge')
      if (found.length !== 2) throw new Error(JSON.stringify(found))
      return found
    })
    const port = ports.find((p) => p.port === 80)?.loopback ?? 0
    const answer = await fetch(`http://127.0.0.1:${port}/`, { headers: { host: 'split.example.com' } })
    t.true([200, 404].includes(answer.status), 'fetch sets its own host')
    t.regex(weft('status', '--name', 't-gateway'), new RegExp(`shop/edge +http://127\\.0\\.0\\.1:${port} `))
  },
)

test.serial('weft flows -f tells of requests, with rule and endpoint', async (t) => {
  const program = join(import.meta.dirname, '../../src/cli/main.ts')
  const args = [program, 'flows', '--name', 't-gateway', '-f', '-o', 'json', '--last', '1']
  const flows = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  const seen: string[] = []
  createInterface({ input: flows.stdout }).on('line', (line) => seen.push(line))
  try {
    await soon(async () => {
      await outside.ask({ address: addressOf('edge'), port: 80, host: 'split.example.com', path: '/told' })
      const told = seen.find((line) => line.includes('http://split.example.com/told'))
      assert.ok(told)
      const { flow } = JSON.parse(told) as { flow: { l7: { http: object }; destination: object; Summary: string } }
      assert.deepEqual(flow.l7.http, {
        code: 200,
        method: 'GET',
        url: 'http://split.example.com/told',
        protocol: 'HTTP/1.1',
      })
      assert.match(JSON.stringify(flow.destination), /"pod_name":"(one|two)-/)
    })
    t.pass()
  } finally {
    flows.kill()
  }
})

test.serial('a node may read the certificates that Gateways use, and no other Secret', async (t) => {
  const can = (name: string): string =>
    cluster
      .try([
        'auth',
        'can-i',
        'get',
        `secret/${name}`,
        '-n',
        'shop',
        '--as=system:node:node-1',
        '--as-group=system:nodes',
      ])
      .stdout.trim()
  await soon(() => assert.equal(can('shop-tls'), 'yes'))
  t.regex(can('other-tls'), /^no/)
})

test.serial('bad input has its condition and reason, and the rest goes on', async (t) => {
  const before = await answers({ address: addressOf('edge'), port: 80, ...shop }, 200)
  t.is(before.status, 200)
  const bad: [string, string, string, string][] = [
    ['ghost', '  rules: [{ backendRefs: [{ name: ghost, port: 80 }] }]', 'ResolvedRefs', 'False BackendNotFound'],
    [
      'kind',
      '  rules: [{ backendRefs: [{ group: x.example.com, kind: Bucket, name: b }] }]',
      'ResolvedRefs',
      'False InvalidKind',
    ],
    [
      'foreign',
      '  rules: [{ backendRefs: [{ name: kubernetes, namespace: default, port: 443 }] }]',
      'ResolvedRefs',
      'False RefNotPermitted',
    ],
    [
      'slow',
      '  rules: [{ matches: [{ path: { type: RegularExpression, value: "/(a+)+$" } }], backendRefs: [{ name: one, port: 80 }] }]',
      'Accepted',
      'False UnsupportedValue',
    ],
    [
      'broken',
      '  rules: [{ matches: [{ headers: [{ type: RegularExpression, name: x, value: "(" }] }], backendRefs: [{ name: one, port: 80 }] }]',
      'Accepted',
      'False UnsupportedValue',
    ],
    ['section', '  rules: [{ backendRefs: [{ name: one, port: 80 }] }]', 'Accepted', 'False NoMatchingParent'],
    [
      'injected',
      '  rules: [{ matches: [{ headers: [{ name: x, value: "a;show info\\\\ \\"b" }] }], backendRefs: [{ name: one, port: 80 }] }]',
      'Accepted',
      'True Accepted',
    ],
  ]
  cluster.apply(
    bad
      .map(([name, spec]) => route(name, `  hostnames: [${name}.example.com]\n${spec}`))
      .join('')
      .replace(
        'metadata: { name: section, namespace: shop }\nspec:\n  parentRefs: [{ name: edge }]',
        'metadata: { name: section, namespace: shop }\nspec:\n  parentRefs: [{ name: edge, sectionName: nowhere }]',
      ),
  )
  for (const [name, , type, expected] of bad) await soon(() => assert.equal(routeTold(name, type), expected, name))
  for (const name of ['ghost', 'kind', 'foreign'])
    await answers({ address: addressOf('edge'), port: 80, host: `${name}.example.com` }, 500)
  for (const name of ['slow', 'broken', 'section'])
    await answers({ address: addressOf('edge'), port: 80, host: `${name}.example.com` }, 404)
  const injected = { address: addressOf('edge'), port: 80, host: 'injected.example.com' }
  await answers({ ...injected, headers: { x: 'a;show info\\ "b' } }, 200)
  t.is((await outside.ask(injected)).status, 404)
  t.is((await outside.ask({ address: addressOf('edge'), port: 80, ...shop })).status, 200)
})

test.serial('a bad certificate is the listener’s own affair', async (t) => {
  cluster.apply(`
apiVersion: v1
kind: Secret
metadata: { name: nonsense, namespace: shop }
type: kubernetes.io/tls
data: { tls.crt: bm9uc2Vuc2U=, tls.key: bm9uc2Vuc2U= }
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: half, namespace: shop }
spec:
  gatewayClassName: weft
  listeners:
    - { name: good, port: 80, protocol: HTTP }
    - { name: bad, port: 443, protocol: HTTPS, tls: { certificateRefs: [{ name: nonsense }] } }
    - { name: strange, port: 1234, protocol: example.com/SPEECH }
`)
  await programmed('half')
  const listeners = gatewayOf('half').status?.listeners ?? []
  const of = (name: string, type: string): string => told(listeners.find((l) => l.name === name)?.conditions, type)
  t.is(of('good', 'Programmed'), 'True Programmed')
  t.is(of('bad', 'ResolvedRefs'), 'False InvalidCertificateRef')
  t.is(of('bad', 'Programmed'), 'False Invalid')
  t.is(of('strange', 'Accepted'), 'False UnsupportedProtocol')
  t.is(told(gatewayOf('half').status?.conditions, 'Accepted'), 'True ListenersNotValid')
})

test.serial('Programmed waits for every node’s engine', async (t) => {
  const node = cluster.layout.nodes[1]
  if (node === undefined) return t.fail('there are two nodes')
  const pid = Number(readFileSync(pidFile(cluster.layout, 'node-2/agent'), 'utf8').split(' ')[0])
  process.kill(pid, 'SIGSTOP')
  try {
    cluster.kubectl(
      'patch',
      'gateway',
      'edge',
      '-n',
      'shop',
      '--type=json',
      '-p',
      '[{"op":"add","path":"/spec/listeners/-","value":{"name":"more","port":8080,"protocol":"HTTP"}}]',
    )
    await soon(() => {
      const condition = gatewayOf('edge').status?.conditions?.find((c) => c.type === 'Programmed')
      assert.equal(condition?.status, 'False')
      assert.equal(condition?.reason, 'Pending')
      assert.match(condition?.message ?? '', /node-2$/)
    })
  } finally {
    process.kill(pid, 'SIGCONT')
  }
  await programmed('edge')
  t.is((await answers({ address: addressOf('edge'), port: 8080, ...shop }, 200)).status, 200)
})

test.serial('an Ingress is served beside Gateways, with its certificate', async (t) => {
  cluster.apply(`
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: { name: shop, namespace: shop }
spec:
  ingressClassName: weft
  tls: [{ hosts: [shop.example.com], secretName: shop-tls }]
  rules:
    - host: shop.example.com
      http:
        paths:
          - { path: /two, pathType: Prefix, backend: { service: { name: two, port: { number: 80 } } } }
          - { path: /, pathType: Exact, backend: { service: { name: one, port: { name: http } } } }
`)
  const address = await soon(() => {
    const ip = cluster.json<{ status: Service['status'] }>('get', 'ingress', '-n', 'shop', 'shop').status.loadBalancer
      ?.ingress?.[0]?.ip
    if (ip === undefined) throw new Error('no address yet')
    return ip
  })
  t.like(JSON.parse((await answers({ address, port: 80, ...shop, path: '/two' }, 200)).body), { version: 'two' })
  t.like(JSON.parse((await answers({ address, port: 443, ...shop, ca: pem.certPem }, 200)).body), {
    version: 'one',
  })
  t.is((await outside.ask({ address, port: 80, ...shop, path: '/other' })).status, 404)
  cluster.kubectl('delete', 'ingress', '-n', 'shop', 'shop')
  await soon(() => assert.notEqual(cluster.try(['get', 'service', '-n', 'kube-system', 'weft-ingress']).code, 0))
})

test.serial('agents are killed under load: no request fails', async (t) => {
  const load = outside.load({ address: addressOf('edge'), port: 80, ...shop })
  try {
    for (const name of ['node-1/agent', 'node-2/agent']) {
      t.not(await cluster.kill(name), undefined)
      cluster.weftUp()
    }
    const remove = '[{"op":"remove","path":"/spec/listeners/2"}]'
    cluster.kubectl('patch', 'gateway', 'edge', '-n', 'shop', '--type=json', '-p', remove)
    // Both agents are back when both engines have that.
    await programmed('edge')
  } finally {
    const { count, failures } = await load.stop()
    t.deepEqual(failures, [])
    t.true(count > 1000, `${count} requests`)
  }
})
