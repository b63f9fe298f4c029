import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { encodeQuery } from '#agent/dns/wire.ts'
import type { Service } from '#api/gen/core-v1.ts'
import { services } from '#api/gen/resources.ts'
import { eventually } from '#base/async/eventually.ts'
import type { NodeLayout } from '#cli/cluster/layout.ts'
import { agentProcess } from '#cli/cluster/plan.ts'
import { adminClient } from '#cli/cluster/ready.ts'
import type { Draft } from '#client/client.ts'
import { TestCluster } from './cluster.ts'
import { scrapeNode } from './scrape.ts'

/** Pods resolve names with the C library's resolver (getent) and with busybox's own (nslookup), which share no line. */
let cluster: TestCluster
let upstream: ChildProcess | undefined

const inPod = (pod: string, script: string): { code: number; stdout: string } =>
  cluster.try(['exec', pod, '--', 'sh', '-c', script])
/** Addresses, each once, in order. */
const glibc = (name: string, pod = 'client'): string[] => {
  const { stdout } = inPod(pod, `getent ahosts ${name}`)
  return [...new Set(stdout.split('\n').flatMap((line) => line.split(/\s+/)[0] || []))].toSorted()
}
const busybox = (name: string, type = '', pod = 'client'): string => {
  const { stdout } = inPod(pod, `nslookup ${type === '' ? '' : `-type=${type}`} ${name}`)
  // The first lines are about the server.
  return stdout.slice(stdout.indexOf('\n\n') + 2)
}
const addressesOf = (text: string): string[] =>
  [...text.matchAll(/^Address: (\S+)$/gm)].flatMap((m) => m[1] ?? []).toSorted()
const json = <T>(...args: string[]): T => cluster.json<T>(...args)

test.before(async () => {
  cluster = TestCluster.up('t-dns', 2, { flags: ['--resolver', '172.30.0.1'] })
  const pod = (name: string, spec: string): string => `
apiVersion: v1
kind: Pod
metadata: { name: ${name}, labels: { app: ${name} } }
spec:
  terminationGracePeriodSeconds: 0
  volumes: [{ name: getent, hostPath: { path: /usr/bin/getent, type: File } }]
  containers:
    - name: main
      image: weft.local/busybox:1
      command: [sleep, "100000"]
      volumeMounts: [{ name: getent, mountPath: /bin/getent }]
${spec}
---`
  cluster.apply(`
${pod('client', '')}
${pod('pet', '  hostname: my-pet\n  subdomain: db')}
${pod('stream', '  dnsConfig: { options: [{ name: use-vc }] }')}
${pod('none', '  dnsPolicy: None\n  dnsConfig: { nameservers: [169.254.20.10], searches: [svc.cluster.local], options: [{ name: ndots, value: "2" }] }')}
${pod('onhost', '  hostNetwork: true\n  dnsPolicy: ClusterFirstWithHostNet')}
apiVersion: v1
kind: Service
metadata: { name: web }
spec: { ipFamilyPolicy: RequireDualStack, selector: { app: client }, ports: [{ name: http, port: 80 }] }
---
apiVersion: v1
kind: Service
metadata: { name: db }
spec: { clusterIP: None, ipFamilyPolicy: RequireDualStack, selector: { app: pet }, ports: [{ name: sql, port: 5432 }] }
---
apiVersion: v1
kind: Service
metadata: { name: alias }
spec: { type: ExternalName, externalName: web.default.svc.cluster.local }
---
apiVersion: v1
kind: Service
metadata: { name: outside }
spec: { type: ExternalName, externalName: www.example.com }
---
apiVersion: v1
kind: Service
metadata: { name: big }
spec: { clusterIP: None, ports: [{ name: http, port: 80 }] }
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: big, labels: { kubernetes.io/service-name: big } }
addressType: IPv4
ports: [{ name: http, port: 80 }]
endpoints: [${Array.from({ length: 90 }, (_, i) => `{ addresses: [192.0.2.${i + 1}] }`).join(', ')}]
`)
  for (const name of ['client', 'pet', 'stream', 'none', 'onhost'])
    cluster.kubectl('wait', '--for=condition=Ready', `pod/${name}`, '--timeout=60s')
})

test.after.always(() => {
  upstream?.kill('SIGKILL')
  cluster?.down()
})

const ipsOf = (pod: string): string[] =>
  json<{ status: { podIPs: { ip: string }[] } }>('get', 'pod', pod)
    .status.podIPs.map(({ ip }) => ip)
    .toSorted()
const clusterIpsOf = (name: string): string[] =>
  json<{ spec: { clusterIPs: string[] } }>('get', 'service', name).spec.clusterIPs.toSorted()

test.serial('pods have the resolv.conf of their dnsPolicy', (t) => {
  const file = (pod: string): string[] => inPod(pod, 'cat /etc/resolv.conf').stdout.trim().split('\n').toSorted()
  const usual = [
    'nameserver 10.96.0.10',
    'nameserver fd00:10:96::a',
    'options ndots:5',
    'search default.svc.cluster.local svc.cluster.local cluster.local',
  ]
  t.deepEqual(file('client'), usual)
  t.deepEqual(file('onhost'), usual)
  t.deepEqual(
    file('stream'),
    usual.map((l) => (l.startsWith('options') ? 'options ndots:5 use-vc' : l)),
  )
  t.deepEqual(file('none'), ['nameserver 169.254.20.10', 'options ndots:2', 'search svc.cluster.local'])
})

test.serial(
  'both resolvers find Services by every part of their name, in both families, from pods and from nodes',
  (t) => {
    const ips = clusterIpsOf('web')
    t.is(ips.length, 2)
    for (const pod of ['client', 'onhost', 'stream']) {
      for (const name of [
        'web',
        'web.default',
        'web.default.svc',
        'web.default.svc.cluster.local',
        'WEB.Default.svc.cluster.local.',
      ])
        t.deepEqual(glibc(name, pod), ips, `${name} in ${pod}`)
    }
    // busybox takes names with a dot as they are.
    for (const name of ['web', 'web.default.svc.cluster.local']) t.deepEqual(addressesOf(busybox(name)), ips, name)
    t.deepEqual(glibc('web.default', 'none'), ips)
  },
)

test.serial('headless Services, hostname and subdomain, SRV, PTR, ExternalName and pods by address', (t) => {
  const ips = ipsOf('pet')
  for (const name of ['db', 'my-pet.db', 'my-pet.db.default.svc.cluster.local']) t.deepEqual(glibc(name), ips, name)
  t.deepEqual(addressesOf(busybox('my-pet.db.default.svc.cluster.local')), ips)
  t.regex(
    busybox('_sql._tcp.db.default.svc.cluster.local', 'srv'),
    /service = 0 100 5432 my-pet\.db\.default\.svc\.cluster\.local/,
  )
  t.regex(
    busybox('_http._tcp.web.default.svc.cluster.local', 'srv'),
    /service = 0 100 80 web\.default\.svc\.cluster\.local/,
  )
  for (const ip of clusterIpsOf('web')) {
    t.regex(busybox(ip), /name = web\.default\.svc\.cluster\.local/)
    t.regex(inPod('client', `getent hosts ${ip}`).stdout, /web\.default\.svc\.cluster\.local/)
  }
  for (const ip of ips)
    t.regex(inPod('client', `getent hosts ${ip}`).stdout, /my-pet\.db\.default\.svc\.cluster\.local/)
  t.deepEqual(glibc('alias'), clusterIpsOf('web'))
  t.regex(busybox('alias.default.svc.cluster.local'), /canonical name = web\.default\.svc\.cluster\.local/)
  t.deepEqual(glibc('10-244-1-5.default.pod.cluster.local'), ['10.244.1.5'])
  t.regex(busybox('dns-version.cluster.local', 'txt'), /text = "1\.1\.0"/)
  // The pod's own name for itself is the same as everybody's.
  t.is(inPod('pet', 'hostname').stdout.trim(), 'my-pet')
})

test.serial('an answer that is too long for a datagram comes by TCP', (t) => {
  t.is(glibc('big').length, 90)
  t.is(glibc('big', 'stream').length, 90)
})

test.serial('a name that is not there is said to be so, by both resolvers', (t) => {
  for (const name of ['nosuch.default.svc.cluster.local', 'web.nosuch.svc.cluster.local']) {
    t.is(inPod('client', `getent ahosts ${name}.`).code, 2, name)
    t.regex(inPod('client', `nslookup ${name}`).stdout, /NXDOMAIN/, name)
  }
})

test.serial(
  'what is not of the cluster: SERVFAIL at once while nobody can be asked, then the answer of the fabric’s resolver',
  async (t) => {
    const start = performance.now()
    t.regex(inPod('client', 'nslookup -type=a www.example.com').stdout, /SERVFAIL/)
    t.true(performance.now() - start < 2000, 'a second is what kubectl takes')
    upstream = inNamespace(cluster.layout.fabric.netns, resolverScript)
    await once(upstream.stdout ?? upstream, 'data')
    t.deepEqual(addressesOf(busybox('www.example.com', 'a')), ['192.0.2.77'])
    t.deepEqual(glibc('www.example.com.'), ['192.0.2.77'])
    t.deepEqual(glibc('outside'), ['192.0.2.77'], 'ExternalName')
  },
)

test.serial('an answer changes within 20 ms of the object', async (t) => {
  using client = await adminClient(cluster.layout)
  const times: number[] = []
  for (let i = 0; i < 7; i++) {
    const name = `fresh-${i}`
    const asker = askInNode(`${name}.default.svc.cluster.local`)
    try {
      await eventually(() => asker.lines.length > 0)
      const draft = { metadata: { name, namespace: 'default' }, spec: { ports: [{ port: 80 }] } }
      await client.create<Service>(services, draft as Draft<Service>)
      const there = performance.timeOrigin + performance.now()
      await eventually(() => asker.lines.length > 1)
      times.push(Number(asker.lines[1]) - there)
    } finally {
      asker.end()
    }
  }
  t.log(`ms from the answer to the write to the answer to the name: ${times.map((ms) => ms.toFixed(1)).join(' ')}`)
  const [, , , middle = Number.NaN] = times.toSorted((a, b) => a - b)
  t.true(middle < 20, `${middle} ms`)
})

test.serial('broken datagrams are counted, and names go on', async (t) => {
  // A header that says 257 questions: refused, with an answer.
  const junk = `xx${'\\001'.repeat(14)}`
  t.is(inPod('client', `get -t 2 "udp://10.96.0.10:53/$(printf '${junk}')"`).code, 0)
  t.deepEqual(glibc('web'), clusterIpsOf('web'))
  const node = json<{ spec: { nodeName: string } }>('get', 'pod', 'client').spec.nodeName
  const metrics = await scrapeNode(cluster, node)
  t.regex(metrics, /^weft_dns_refused_total\{reason="malformed"\} [1-9]/m)
})

test.serial(
  'names are answered while the agent is gone, and the next one takes over with what has changed',
  async (t) => {
    const node = nodeOf('client')
    t.not(await cluster.kill(agentProcess(node)), undefined)
    t.deepEqual(inPlace('web.default.svc.cluster.local', node), ['10.96'], 'from the table')
    t.deepEqual(inPlace('www.example.org', node), ['SERVFAIL'], 'nobody to ask, said at once')
    cluster.kubectl('create', 'service', 'clusterip', 'meanwhile', '--tcp=80')
    t.deepEqual(inPlace('meanwhile.default.svc.cluster.local', node), ['NXDOMAIN'])
    cluster.weftUp({}, ['--resolver', '172.30.0.1'])
    await eventually(() => glibc('meanwhile').length === 1, { withinMs: 10_000, pauseMs: 50 })
    t.deepEqual(glibc('web'), clusterIpsOf('web'))
    t.deepEqual(glibc('www.example.com.'), ['192.0.2.77'])
  },
)

test.serial('the process that answers is started again when it is killed, with every name', async (t) => {
  const node = nodeOf('client')
  const pids = readdirSync('/proc').filter(
    (pid) =>
      /^\d+$/.test(pid) &&
      commandOf(pid).includes('weft-names') &&
      commandOf(pid).includes(join(node.runDir, 'names.sock')),
  )
  t.is(pids.length, 1, 'one for each node')
  process.kill(Number(pids[0]), 'SIGKILL')
  const start = performance.now()
  await eventually(() => inPlace('web.default.svc.cluster.local', node).join() === '10.96', { withinMs: 15_000 })
  t.log(`${Math.round(performance.now() - start)} ms`)
})

/** A resolver that knows one address. */
const resolverScript = `
const s = require('dgram').createSocket('udp4')
s.on('message', (q, from) => {
  const end = q.indexOf(0, 12) + 5
  const a = q.readUInt16BE(end - 4) === 1
  const out = Buffer.concat([q.subarray(0, end), a ? Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 77]) : Buffer.alloc(0)])
  out.writeUInt16BE(0x8180, 2); out.writeUInt16BE(a ? 1 : 0, 6); out.writeUInt32BE(0, 8)
  s.send(out, from.port, from.address)
})
s.bind(53, '172.30.0.1', () => console.log('ready'))
`

const nodeOf = (pod: string): NodeLayout => {
  const { nodeName } = json<{ spec: { nodeName: string } }>('get', 'pod', pod).spec
  const node = cluster.layout.nodes.find(({ name }) => name === nodeName)
  if (node === undefined) throw new Error(`no node ${nodeName}`)
  return node
}

function commandOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8')
  } catch {
    return ''
  }
}

/** What the node's resolver says of a name, without a pod: the first half of its address, or the code. */
function inPlace(name: string, node: NodeLayout): string[] {
  const query = encodeQuery(1, name, 1).toString('base64')
  const args = [`--net=/run/netns/${node.netns}`, process.execPath, '-e', onceScript, query]
  return [execFileSync('nsenter', args, { encoding: 'utf8', timeout: 5_000 }).trim()]
}

/** Asks once. */
const onceScript = `
const s = require('dgram').createSocket('udp4')
const codes = { 2: 'SERVFAIL', 3: 'NXDOMAIN' }
const late = setTimeout(() => { console.log('silence'); process.exit() }, 1500)
s.on('message', (a) => {
  clearTimeout(late)
  const end = a.indexOf(0, 12) + 5
  console.log(a.readUInt16BE(6) > 0 ? a[end + 12] + '.' + a[end + 13] : codes[a[3] & 15])
  s.close()
})
s.send(Buffer.from(process.argv[1], 'base64'), 53, '169.254.20.10')
`

/** Says that it asks, and when there is an answer. */
const askerScript = `
const s = require('dgram').createSocket('udp4')
const q = Buffer.from(process.argv[1], 'base64')
s.on('message', (a) => { if (a.readUInt16BE(6) > 0) { console.log(performance.timeOrigin + performance.now()); process.exit() } })
s.connect(53, '169.254.20.10', () => { setInterval(() => s.send(q), 1); console.log('asking') })
`

function askInNode(name: string): { readonly lines: readonly string[]; end(): void } {
  const query = encodeQuery(1, name, 1).toString('base64')
  const asker = inNamespace(cluster.layout.nodes[0]?.netns ?? '', askerScript, query)
  const lines: string[] = []
  asker.stdout?.on('data', (data: Buffer) => lines.push(...data.toString().trim().split('\n')))
  return { lines, end: () => asker.kill('SIGKILL') }
}

function inNamespace(netns: string, script: string, ...args: readonly string[]): ChildProcess {
  return spawn('nsenter', [`--net=/run/netns/${netns}`, process.execPath, '-e', script, ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
}
