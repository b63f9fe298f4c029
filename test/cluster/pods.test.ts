import { execFileSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import type { ConfigMap, Secret, Service, ServiceAccount } from '#api/gen/core-v1.ts'
import { configMaps, pods, secrets, serviceAccounts, services } from '#api/gen/resources.ts'
import { eventually } from '#base/async/eventually.ts'
import { findCgroups } from '#kernel/cgroup.ts'
import { TestCluster } from './cluster.ts'
import { idle, isReady, type PodDraft, shell, Watched, waitsFor } from './watched.ts'

/**
 * Everything that a pod's spec asks of a node, on real nodes: all pods are made at once, then each test looks at its
 * own. What is read in a log was said by the container itself.
 */
let cluster: TestCluster
let api: Watched
const scratch = mkdtempSync(join(tmpdir(), 'weft-pods-'))
const specs = new Map<string, PodDraft>()

test.before(async () => {
  cluster = TestCluster.up('t-pods')
  api = await Watched.start(cluster)
  const namespace = 'default'
  await Promise.all([
    api.client.create<ConfigMap>(configMaps, {
      metadata: { namespace, name: 'settings' },
      data: { color: 'green', 'a.conf': 'one\n', size: '7' },
    }),
    api.client.create<Secret>(secrets, { metadata: { namespace, name: 'hidden' }, stringData: { password: 's3cret' } }),
    api.client.create<ServiceAccount>(serviceAccounts, { metadata: { namespace, name: 'caller' } }),
    api.client.create<Service>(services, {
      metadata: { namespace, name: 'web-front' },
      spec: {
        selector: { app: 'nobody' },
        clusterIP: '10.96.7.7',
        ports: [
          { name: 'http', port: 80 },
          { name: 'dns', port: 53, protocol: 'UDP' },
        ],
      },
    }),
  ])
  await Promise.all([...specs].map(([name, spec]) => api.create(name, spec)))
})

test.after.always(async () => {
  await api?.[Symbol.asyncDispose]()
  cluster?.down()
  rmSync(scratch, { recursive: true, force: true })
})

/** A pod that is made before the first test. */
function pod(name: string, spec: PodDraft): string {
  specs.set(name, { terminationGracePeriodSeconds: 1, ...spec })
  return name
}
/** A pod that says something and ends. */
const once = (name: string, script: string, more: PodDraft = {}, container: Parameters<typeof shell>[2] = {}): string =>
  pod(name, { restartPolicy: 'Never', containers: [shell('c', script, container)], ...more })
const scratchVolume = { name: 'scratch', emptyDir: {} }
const scratchMount = { volumeMounts: [{ name: 'scratch', mountPath: '/s' }] }
/** What `kubectl get pod` shows in its STATUS column. */
const statusColumn = (name: string): string =>
  cluster.kubectl('get', 'pod', name, '--no-headers').split(/ +/)[2] ?? 'nothing'

once(
  'inits',
  'cat /s/steps',
  {
    volumes: [scratchVolume],
    initContainers: [
      shell('first', 'sleep 0.3; echo first >> /s/steps', scratchMount),
      shell('second', 'echo second >> /s/steps', scratchMount),
    ],
  },
  scratchMount,
)
test.serial('init containers run one after the other, then the containers', async (t) => {
  t.deepEqual(await api.linesOf('inits'), ['first', 'second'])
  const { status } = await api.until('inits', (p) => p.status.phase === 'Succeeded')
  t.deepEqual(
    status.initContainerStatuses?.map((s) => [s.name, s.ready, s.state?.terminated?.reason]),
    [
      ['first', true, 'Completed'],
      ['second', true, 'Completed'],
    ],
  )
  t.is(statusColumn('inits'), 'Completed')
  t.true(api.history('inits').some((p) => waitsFor(p) === 'PodInitializing' && p.status.phase === 'Pending'))
})

once('init-fails', 'echo never', { initContainers: [shell('bad', 'exit 4'), shell('later', 'echo never')] })
pod('init-loops', { initContainers: [shell('bad', 'exit 4')], containers: [shell('c', idle)] })
test.serial('a failing init container fails the pod, or is tried again', async (t) => {
  const { status } = await api.until('init-fails', (p) => p.status.phase === 'Failed')
  t.is(status.initContainerStatuses?.[0]?.state?.terminated?.exitCode, 4)
  t.is(status.initContainerStatuses?.[1]?.state?.waiting?.reason, 'PodInitializing')
  t.is(status.containerStatuses?.[0]?.state?.waiting?.reason, 'PodInitializing')
  t.is(statusColumn('init-fails'), 'Init:Error')
  const looping = await api.until('init-loops', (p) => waitsFor(p) === 'CrashLoopBackOff')
  t.is(looping.status.phase, 'Pending')
  t.is(looping.status.initContainerStatuses?.[0]?.restartCount, 1)
  t.is(statusColumn('init-loops'), 'Init:CrashLoopBackOff')
})

once(
  'env',
  "tr '\\0' '\\n' < /proc/1/environ | grep -e ^T_ -e ^WEB_FRONT -e ^KUBERNETES_SERVICE_HOST | sort",
  {},
  {
    envFrom: [
      { prefix: 'T_MAP_', configMapRef: { name: 'settings' } },
      { prefix: 'T_SECRET_', secretRef: { name: 'hidden' } },
      { prefix: 'T_NONE_', configMapRef: { name: 'absent', optional: true } },
    ],
    env: [
      { name: 'T_A', value: 'x' },
      { name: 'T_EXPANDED', value: '$(T_A)-$$(T_A)-$(T_LATER)-$(T_MAP_color)' },
      { name: 'T_LATER', value: 'later' },
      { name: 'T_NAME', valueFrom: { fieldRef: { fieldPath: 'metadata.name' } } },
      { name: 'T_LABEL', valueFrom: { fieldRef: { fieldPath: "metadata.labels['app']" } } },
      { name: 'T_ACCOUNT', valueFrom: { fieldRef: { fieldPath: 'spec.serviceAccountName' } } },
      { name: 'T_NODE', valueFrom: { fieldRef: { fieldPath: 'spec.nodeName' } } },
      { name: 'T_IPS', valueFrom: { fieldRef: { fieldPath: 'status.podIPs' } } },
      { name: 'T_HOST', valueFrom: { fieldRef: { fieldPath: 'status.hostIP' } } },
      { name: 'T_CPU', valueFrom: { resourceFieldRef: { resource: 'requests.cpu', divisor: '1m' } } },
      { name: 'T_MEM', valueFrom: { resourceFieldRef: { resource: 'limits.memory', divisor: '1Mi' } } },
      { name: 'T_KEY', valueFrom: { configMapKeyRef: { name: 'settings', key: 'size' } } },
      { name: 'T_HIDDEN', valueFrom: { secretKeyRef: { name: 'hidden', key: 'password' } } },
      { name: 'T_NOWHERE', valueFrom: { secretKeyRef: { name: 'hidden', key: 'nope', optional: true } } },
    ],
    resources: { requests: { cpu: '50m' }, limits: { memory: '64Mi' } },
  },
)
pod('env-missing', {
  containers: [shell('c', idle, { env: [{ name: 'A', valueFrom: { configMapKeyRef: { name: 'late', key: 'k' } } }] })],
})
test.serial('the environment comes from everywhere', async (t) => {
  const lines = await api.linesOf('env')
  const { status, spec } = await api.until('env', (p) => p.status.phase === 'Succeeded')
  t.deepEqual(lines, [
    'KUBERNETES_SERVICE_HOST=10.96.0.1',
    'T_A=x',
    'T_ACCOUNT=default',
    'T_CPU=50',
    'T_EXPANDED=x-$(T_A)-$(T_LATER)-green',
    'T_HIDDEN=s3cret',
    `T_HOST=${status.hostIP}`,
    `T_IPS=${status.podIPs?.map((i) => i.ip).join(',')}`,
    'T_KEY=7',
    'T_LABEL=env',
    'T_LATER=later',
    'T_MAP_a.conf=one',
    'T_MAP_color=green',
    'T_MAP_size=7',
    'T_MEM=64',
    'T_NAME=env',
    `T_NODE=${spec.nodeName}`,
    'T_SECRET_password=s3cret',
    'WEB_FRONT_PORT=tcp://10.96.7.7:80',
    'WEB_FRONT_PORT_53_UDP=udp://10.96.7.7:53',
    'WEB_FRONT_PORT_53_UDP_ADDR=10.96.7.7',
    'WEB_FRONT_PORT_53_UDP_PORT=53',
    'WEB_FRONT_PORT_53_UDP_PROTO=udp',
    'WEB_FRONT_PORT_80_TCP=tcp://10.96.7.7:80',
    'WEB_FRONT_PORT_80_TCP_ADDR=10.96.7.7',
    'WEB_FRONT_PORT_80_TCP_PORT=80',
    'WEB_FRONT_PORT_80_TCP_PROTO=tcp',
    'WEB_FRONT_SERVICE_HOST=10.96.7.7',
    'WEB_FRONT_SERVICE_PORT=80',
    'WEB_FRONT_SERVICE_PORT_DNS=53',
    'WEB_FRONT_SERVICE_PORT_HTTP=80',
  ])
})
test.serial('a key that is missing holds the container back until it is there', async (t) => {
  const waiting = await api.until('env-missing', (p) => waitsFor(p) === 'CreateContainerConfigError')
  t.is(waiting.status.containerStatuses?.[0]?.state?.waiting?.message, 'configmap "late" not found')
  await api.client.create<ConfigMap>(configMaps, { metadata: { namespace: 'default', name: 'late' }, data: { k: 'v' } })
  await api.until('env-missing', isReady)
  t.pass()
})

once(
  'volumes',
  [
    'grep " /memory tmpfs" /proc/mounts | grep -o size=[0-9]*k',
    'echo x > /disk/x; grep -c " /disk tmpfs" /proc/mounts',
    'ls /map; cat /map/sub/dir/a; stat -L -c %a /map/sub/dir/a /map/color',
    'cat /secret/password; echo; stat -L -c %a /secret/password; grep -c " /secret tmpfs" /proc/mounts',
    'cat /all/config/color; echo; cat /all/name; echo; cat /all/cpu; echo; cut -c1-3 /all/token',
    'echo from-pod > /host/made; cat /one; cat /expr/x',
    '(echo no > /map/color) 2>&1',
    'echo "$(ls /var/run/secrets/kubernetes.io/serviceaccount)"',
    'cat /var/run/secrets/kubernetes.io/serviceaccount/namespace',
  ].join('\n'),
  {
    volumes: [
      { name: 'disk', emptyDir: {} },
      { name: 'memory', emptyDir: { medium: 'Memory', sizeLimit: '2Mi' } },
      {
        name: 'map',
        configMap: {
          name: 'settings',
          defaultMode: 0o604,
          items: [
            { key: 'a.conf', path: 'sub/dir/a', mode: 0o440 },
            { key: 'color', path: 'color' },
          ],
        },
      },
      { name: 'secret', secret: { secretName: 'hidden', defaultMode: 0o400 } },
      {
        name: 'all',
        projected: {
          sources: [
            { serviceAccountToken: { path: 'token', expirationSeconds: 3600, audience: 'somebody' } },
            { configMap: { name: 'settings', items: [{ key: 'color', path: 'config/color' }] } },
            {
              downwardAPI: {
                items: [
                  { path: 'name', fieldRef: { fieldPath: 'metadata.name' } },
                  { path: 'cpu', resourceFieldRef: { containerName: 'c', resource: 'limits.cpu', divisor: '1m' } },
                ],
              },
            },
          ],
        },
      },
      { name: 'host', hostPath: { path: join(scratch, 'host'), type: 'DirectoryOrCreate' } },
    ],
  },
  {
    resources: { limits: { cpu: '300m' } },
    env: [{ name: 'WHO', valueFrom: { fieldRef: { fieldPath: 'metadata.name' } } }],
    volumeMounts: [
      { name: 'disk', mountPath: '/disk', subPath: 'part' },
      { name: 'disk', mountPath: '/expr', subPathExpr: 'part' },
      { name: 'memory', mountPath: '/memory' },
      { name: 'map', mountPath: '/map' },
      { name: 'map', mountPath: '/one', subPath: 'sub/dir/a' },
      { name: 'secret', mountPath: '/secret' },
      { name: 'all', mountPath: '/all' },
      { name: 'host', mountPath: '/host', subPathExpr: '$(WHO)' },
    ],
  },
)
test.serial('every kind of volume has its content, modes and medium', async (t) => {
  t.deepEqual(await api.linesOf('volumes'), [
    'size=2048k',
    '0',
    'color',
    'sub',
    'one',
    '440',
    '604',
    's3cret',
    '400',
    '1',
    'green',
    'volumes',
    '300',
    'eyJ',
    'one',
    'x',
    "sh: can't create /map/color: Read-only file system",
    'ca.crt',
    'namespace',
    'token',
    'default',
  ])
  t.is(readFileSync(join(scratch, 'host/volumes/made'), 'utf8'), 'from-pod\n')
})

const follow = (file: string) =>
  `last=; while true; do now=$(cat ${file}); [ "$now" = "$last" ] || echo "$now"; last=$now; sleep 0.1; done`
pod('follows', {
  containers: [
    shell('map', `${follow('/map/color')}`, { volumeMounts: [{ name: 'map', mountPath: '/map' }] }),
    shell('labels', `${follow('/down/labels')}`, { volumeMounts: [{ name: 'down', mountPath: '/down' }] }),
    // Mounted as one file it keeps what it had; begun anew, the container has the new one.
    shell('one', 'cat /one; echo; while ! [ -e /tmp/end ]; do sleep 0.1; done', {
      volumeMounts: [{ name: 'map', mountPath: '/one', subPath: 'color' }],
    }),
  ],
  volumes: [
    { name: 'map', configMap: { name: 'changing' } },
    { name: 'down', downwardAPI: { items: [{ path: 'labels', fieldRef: { fieldPath: 'metadata.labels' } }] } },
  ],
})
test.serial('a changed ConfigMap and changed labels reach the running containers', async (t) => {
  // Until it is there the pod waits, and says for what.
  await eventually(async () => (await api.events('follows')).some((e) => e.reason === 'FailedMount'), {
    withinMs: 10_000,
    pauseMs: 50,
  })
  const key = { namespace: 'default', name: 'changing' }
  await api.client.create<ConfigMap>(configMaps, { metadata: key, data: { color: 'green' } })
  await api.until('follows', isReady)
  const says = async (container: string, text: string) =>
    eventually(async () => (await api.log('follows', container)) === text, { withinMs: 15_000, pauseMs: 50 })
  await says('map', 'green\n')
  await says('one', 'green\n')
  await api.client.patch(configMaps, key, 'merge', { data: { color: 'blue' } })
  await says('map', 'green\nblue\n')
  await api.client.patch(pods, { ...key, name: 'follows' }, 'merge', { metadata: { labels: { tier: 'front' } } })
  await says('labels', 'app="follows"\napp="follows"\ntier="front"\n')
  cluster.kubectl('exec', 'follows', '-c', 'one', '--', 'touch', '/tmp/end')
  await api.until('follows', (p) => p.status.containerStatuses?.some((s) => s.restartCount === 1) === true)
  await says('one', 'blue\n')
  t.pass()
})

once(
  'secure',
  [
    'id -u; id -g; id -G',
    '(echo x > /root-file) 2>&1; (mkdir /root-dir) 2>&1',
    'echo x > /s/file; stat -c "%u %g" /s/file; stat -c "%g %a" /s',
    'grep -e ^CapEff -e ^CapBnd -e ^NoNewPrivs -e ^Seccomp: /proc/self/status | tr "\\t" " "',
    'stat -L -c "%g %a" /var/run/secrets/kubernetes.io/serviceaccount/token',
  ].join('\n'),
  {
    volumes: [scratchVolume],
    securityContext: {
      runAsUser: 1000,
      runAsGroup: 1500,
      fsGroup: 2000,
      supplementalGroups: [3000],
      seccompProfile: { type: 'RuntimeDefault' },
    },
  },
  {
    ...scratchMount,
    securityContext: {
      readOnlyRootFilesystem: true,
      allowPrivilegeEscalation: false,
      capabilities: { drop: ['ALL'], add: ['NET_BIND_SERVICE'] },
    },
  },
)
once('nonroot', 'echo never', { securityContext: { runAsNonRoot: true } })
once(
  'privileged',
  'grep ^CapEff /proc/self/status; grep ^Seccomp: /proc/self/status',
  {},
  { securityContext: { privileged: true } },
)
test.serial('the security context is what the process has', async (t) => {
  t.deepEqual(await api.linesOf('secure'), [
    '1000',
    '1500',
    '1500 2000 3000',
    "sh: can't create /root-file: Read-only file system",
    "mkdir: can't create directory '/root-dir': Read-only file system",
    '1000 2000',
    '2000 2777',
    'CapEff: 0000000000000000',
    'CapBnd: 0000000000000400',
    'NoNewPrivs: 1',
    'Seccomp: 2',
    '2000 640',
  ])
  const ours = /^CapBnd:\s(\w+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]
  t.deepEqual(await api.linesOf('privileged'), [`CapEff:\t${ours}`, 'Seccomp:\t0'])
  const { status } = await api.until('nonroot', (p) => waitsFor(p) === 'CreateContainerConfigError')
  t.regex(
    status.containerStatuses?.[0]?.state?.waiting?.message ?? '',
    /^container has runAsNonRoot and image will run as root \(pod: "nonroot_default\(/,
  )
})

once('hosts', 'hostname; hostname -f; cat /etc/hosts; cat /etc/resolv.conf', {
  hostname: 'somebody',
  subdomain: 'somewhere',
  hostAliases: [{ ip: '192.0.2.7', hostnames: ['one.example', 'two.example'] }],
  dnsPolicy: 'None',
  dnsConfig: { nameservers: ['192.0.2.53'], searches: ['example'], options: [{ name: 'ndots', value: '3' }] },
})
test.serial('hostname, subdomain, aliases and name servers are in /etc', async (t) => {
  const text = (await api.linesOf('hosts')).join('\n')
  const { status } = await api.until('hosts', (p) => p.status.podIP !== undefined)
  const [v4, v6] = status.podIPs?.map((i) => i.ip) ?? []
  const full = 'somebody.somewhere.default.svc.cluster.local'
  t.true(text.startsWith(`somebody\n${full}\n`), text)
  for (const ip of [v4, v6]) t.true(text.includes(`\n${ip}\t${full}\tsomebody\n`), text)
  t.true(text.includes('\n192.0.2.7\tone.example\ttwo.example\n'), text)
  t.regex(text, /search example\nnameserver 192\.0\.2\.53\noptions ndots:3$/)
})

pod('shared', {
  shareProcessNamespace: true,
  containers: [
    shell('c', idle),
    shell('looks', `until ps | grep -q "[s]leep 76543"; do sleep 0.1; done; cat /proc/1/comm; ${idle}`),
    shell('seen', 'exec sleep 76543'),
  ],
})
test.serial('containers with one process namespace see each other, and the sandbox is process 1', async (t) => {
  await eventually(async () => (await api.log('shared', 'looks')) === 'pause\n', { withinMs: 10_000, pauseMs: 50 })
  t.pass()
})

pod('limited', {
  containers: [
    shell('c', idle, {
      resources: { requests: { cpu: '100m', memory: '32Mi' }, limits: { cpu: '250m', memory: '48Mi' } },
    }),
    shell('free', idle),
  ],
})
test.serial('requests and limits are in the cgroups of container and pod', async (t) => {
  const { spec, metadata, status } = await api.until('limited', isReady)
  t.is(status.qosClass, 'Burstable')
  const { unified, legacy } = findCgroups()
  const node = cluster.layout.nodes.find((n) => n.name === spec.nodeName)
  const id = status.containerStatuses?.find((s) => s.name === 'c')?.containerID?.replace('containerd://', '') ?? ''
  const read = (controller: string, v1: string, v2: string, at: string) => {
    const tree = legacy.find((h) => h.controllers.includes(controller))
    const dir = join(tree?.path ?? unified, node?.cgroup ?? '', 'pods', metadata.uid, at)
    return readFileSync(join(dir, tree === undefined ? v2 : v1), 'utf8').trim()
  }
  t.is(read('memory', 'memory.limit_in_bytes', 'memory.max', id), String(48 << 20))
  t.regex(read('cpu', 'cpu.cfs_quota_us', 'cpu.max', id), /^25000/)
  if (legacy.length > 0) {
    t.is(read('cpu', 'cpu.shares', '', id), '102')
    t.is(read('cpu', 'cpu.shares', '', ''), '102', 'the pod has what its containers ask for')
  }
  const oom = readFileSync(`/proc/${processIn(id)}/oom_score_adj`, 'utf8').trim()
  t.true(Number(oom) > 3 && Number(oom) < 1000, oom)
})

pod('caller', { serviceAccountName: 'caller', containers: [shell('c', idle)] })
test.serial('the token of the service account opens https://kubernetes, as far as its rights go', async (t) => {
  const { status } = await api.until('caller', isReady)
  const pid = processIn(status.containerStatuses?.[0]?.containerID?.replace('containerd://', '') ?? '')
  const ask = (path: string, withToken = true) => askFromPod(pid, path, withToken)
  t.deepEqual(ask('/version', false).status, 401)
  const refused = ask('/api/v1/namespaces/default/pods')
  t.is(refused.status, 403)
  t.regex(refused.body, /User \\"system:serviceaccount:default:caller\\" cannot list resource/)
  cluster.kubectl('create', 'rolebinding', 'caller', '--clusterrole=view', '--serviceaccount=default:caller')
  await eventually(() => ask('/api/v1/namespaces/default/pods').status === 200, { withinMs: 15_000, pauseMs: 50 })
})

/** Asks the API by its Service's address, from inside the pod: its network, its cgroup, its files. */
function askFromPod(pid: string, path: string, withToken: boolean): { status: number; body: string } {
  const { unified } = findCgroups()
  const cgroup = /^0::(.*)$/m.exec(readFileSync(`/proc/${pid}/cgroup`, 'utf8'))?.[1] ?? ''
  const program = `
    const files = '/proc/${pid}/root/var/run/secrets/kubernetes.io/serviceaccount/'
    const read = (name) => process.getBuiltinModule('node:fs').readFileSync(files + name, 'utf8')
    process.getBuiltinModule('node:https').get({
      host: '10.96.0.1', path: ${JSON.stringify(path)}, servername: 'kubernetes', ca: read('ca.crt'),
      headers: ${withToken} ? { authorization: 'Bearer ' + read('token') } : {},
    }, (answer) => {
      let body = ''
      answer.on('data', (text) => { body += text }).on('end', () => console.log(JSON.stringify({ status: answer.statusCode, body })))
    })`
  const enter = 'echo $$ > "$0/cgroup.procs" && exec nsenter "--net=/proc/$1/ns/net" -- "$2" -e "$3"'
  const args = ['-c', enter, join(unified, cgroup), pid, process.execPath, program]
  return JSON.parse(execFileSync('/bin/sh', args, { encoding: 'utf8', timeout: 10_000 })) as {
    status: number
    body: string
  }
}

/** The first process of a container, found by its cgroup. */
function processIn(containerId: string): string {
  const { unified } = findCgroups()
  const found = readdirSync(join(unified, cluster.layout.cgroup), { recursive: true, encoding: 'utf8' }).find((path) =>
    path.endsWith(`${containerId}/cgroup.procs`),
  )
  const pid = readFileSync(join(unified, cluster.layout.cgroup, found ?? ''), 'utf8').split('\n')[0]
  if (!pid) throw new Error(`container ${containerId} has no process`)
  return pid
}
