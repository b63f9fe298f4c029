import { existsSync, readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import test from 'ava'
import WebSocket from 'ws'
import type { ConfigMap, Secret } from '#api/gen/core-v1.ts'
import { configMaps, nodes, secrets } from '#api/gen/resources.ts'
import { isConditionTrue } from '#api/meta/conditions.ts'
import { createLeaf } from '#apiserver/pki/certificate.ts'
import { eventually } from '#base/async/eventually.ts'
import { mountsBelow } from '#kernel/mount.ts'
import { SpdyClient } from '#kubelet/server/spdy.ts'
import { startContainerd, type TestContainerd } from './containerd.ts'
import { busybox, collect, collectChannels, startNode, type TestNode, tunnelOver } from './node.ts'

let containerd: TestContainerd
let node: TestNode
test.before(async () => {
  containerd = await startContainerd()
  node = await startNode(containerd)
})
test.after.always(async () => {
  await node?.[Symbol.asyncDispose]()
  await containerd?.[Symbol.asyncDispose]()
})

const ready = (pod: Awaited<ReturnType<TestNode['get']>>) => isConditionTrue(pod.status?.conditions, 'Ready')
const logsOf = async (name: string, container = 'c', query = '') =>
  (await node.fetch(`/containerLogs/default/${name}/${container}${query}`)).body

test.serial('a pod goes from Pending to Running, and leaves nothing when it is deleted', async (t) => {
  const began = performance.now()
  await node.create('web', { hostNetwork: true, containers: [busybox('c', 'echo hello; exec sleep 1000')] })
  const pod = await node.until('web', ready)
  t.log(`created to Ready: ${Math.round(performance.now() - began)} ms`)
  t.like(pod.status, { phase: 'Running', podIP: '127.0.0.1', hostIP: '127.0.0.1', qosClass: 'BestEffort' })
  const [status] = pod.status.containerStatuses ?? []
  t.like(status, { name: 'c', ready: true, started: true, restartCount: 0, image: 'weft.local/busybox:1' })
  t.regex(status?.containerID ?? '', /^containerd:\/\/[0-9a-f]{64}$/)
  t.is(await logsOf('web'), 'hello\n')

  const { uid } = pod.metadata
  await node.remove('web')
  await eventually(async () => (await containerd.runtime.listSandboxes()).length === 0)
  await eventually(() => !existsSync(join(containerd.cgroups.unified, containerd.cgroup, 'pods', uid)))
  t.false(existsSync(join(containerd.dir, 'kubelet/pods', uid)))
  t.deepEqual(mountsBelow(join(containerd.dir, 'kubelet')), [])
})

test.serial('the node is registered, Ready, and renews its lease', async (t) => {
  const found = await eventually(async () => {
    const n = await node.client.get(nodes, { name: 'node-1' })
    return isConditionTrue(n.status.conditions, 'Ready') ? n : false
  })
  t.is(found.metadata.labels?.['kubernetes.io/hostname'], 'node-1')
  t.is(found.status.daemonEndpoints.kubeletEndpoint?.Port, node.port)
  t.true(found.status.images?.some((i) => i.names?.includes('weft.local/busybox:1')))
})

test.serial('environment, volumes, init containers and termination messages', async (t) => {
  await node.client.create<ConfigMap>(configMaps, {
    metadata: { name: 'settings', namespace: 'default' },
    data: { color: 'green', 'a.conf': 'one' },
  })
  await node.client.create<Secret>(secrets, {
    metadata: { name: 'hidden', namespace: 'default' },
    data: { password: Buffer.from('s3cret').toString('base64') },
  })
  const script = [
    'env | grep ^T_ | sort',
    'cat /init/from-init',
    'cat /cfg/a.conf; echo; ls -l /cfg/a.conf | cut -c1-10; readlink /cfg/a.conf',
    'cat /hidden/password; echo',
    'cat /all/token; echo; cat /all/labels; echo; cat /all/ns; echo',
    'cat /one.conf; echo',
    'grep -c " /hidden tmpfs" /proc/mounts',
    'id -u; id -g; id -G',
    'grep alias.example /etc/hosts | cut -f1',
    'cat /etc/resolv.conf',
    'echo bye > /dev/termination-log',
    'exit 3',
  ].join('\n')
  await node.create('kit', {
    hostNetwork: false,
    restartPolicy: 'Never',
    hostAliases: [{ ip: '1.2.3.4', hostnames: ['alias.example'] }],
    securityContext: { runAsUser: 1000, runAsGroup: 2000, fsGroup: 3000 },
    initContainers: [
      busybox('init', 'echo made-by-init > /init/from-init', {
        volumeMounts: [{ name: 'scratch', mountPath: '/init' }],
      }),
    ],
    containers: [
      busybox('c', script, {
        env: [
          { name: 'T_PLAIN', value: 'x' },
          { name: 'T_USES', value: '$(T_PLAIN)-$$(T_PLAIN)-$(NOPE)' },
          { name: 'T_POD', valueFrom: { fieldRef: { apiVersion: 'v1', fieldPath: 'metadata.name' } } },
          { name: 'T_COLOR', valueFrom: { configMapKeyRef: { name: 'settings', key: 'color' } } },
          { name: 'T_PASS', valueFrom: { secretKeyRef: { name: 'hidden', key: 'password' } } },
          { name: 'T_CPU', valueFrom: { resourceFieldRef: { resource: 'limits.cpu', divisor: '1m' } } },
        ],
        envFrom: [{ prefix: 'T_ALL_', configMapRef: { name: 'settings' } }],
        resources: { limits: { cpu: '250m', memory: '64Mi' } },
        volumeMounts: [
          { name: 'scratch', mountPath: '/init' },
          { name: 'cfg', mountPath: '/cfg' },
          { name: 'hidden', mountPath: '/hidden' },
          { name: 'all', mountPath: '/all' },
          { name: 'cfg', mountPath: '/one.conf', subPath: 'a.conf' },
        ],
      }),
    ],
    volumes: [
      { name: 'scratch', emptyDir: { medium: 'Memory', sizeLimit: '1Mi' } },
      {
        name: 'cfg',
        configMap: { name: 'settings', items: [{ key: 'a.conf', path: 'a.conf', mode: 0o400 }], defaultMode: 0o644 },
      },
      { name: 'hidden', secret: { secretName: 'hidden', defaultMode: 0o644 } },
      {
        name: 'all',
        projected: {
          defaultMode: 0o644,
          sources: [
            { serviceAccountToken: { path: 'token', expirationSeconds: 3607 } },
            {
              downwardAPI: {
                items: [
                  { path: 'labels', fieldRef: { fieldPath: 'metadata.labels' } },
                  { path: 'ns', fieldRef: { fieldPath: 'metadata.namespace' } },
                ],
              },
            },
          ],
        },
      },
    ],
  })
  const pod = await node.until('kit', (p) => p.status.phase === 'Failed')
  t.is(
    await logsOf('kit'),
    [
      'T_ALL_color=green',
      'T_COLOR=green',
      'T_CPU=250',
      'T_PASS=s3cret',
      'T_PLAIN=x',
      'T_POD=kit',
      'T_USES=x-$(T_PLAIN)-$(NOPE)',
      'made-by-init',
      'one',
      'lrwxrwxrwx',
      '..data/a.conf',
      's3cret',
      'token-of-kit',
      'app="kit"',
      'default',
      'one',
      '1',
      '1000',
      '2000',
      '2000 3000',
      '1.2.3.4',
      'search default.svc.cluster.local svc.cluster.local cluster.local',
      'nameserver 10.96.0.10',
      'options ndots:5',
      '',
    ].join('\n'),
  )
  t.like(pod.status.containerStatuses?.[0]?.state.terminated, { exitCode: 3, reason: 'Error', message: 'bye\n' })
  t.like(pod.status.initContainerStatuses?.[0], {
    ready: true,
    state: { terminated: { exitCode: 0, reason: 'Completed' } },
  })
  t.is(pod.status.qosClass, 'Burstable')
  await node.remove('kit')
})

test.serial('a changed ConfigMap reaches the file within seconds', async (t) => {
  await node.create('watcher', {
    hostNetwork: true,
    containers: [busybox('c', 'exec sleep 1000', { volumeMounts: [{ name: 'cfg', mountPath: '/cfg' }] })],
    volumes: [{ name: 'cfg', configMap: { name: 'settings' } }],
  })
  const pod = await node.until('watcher', ready)
  const file = join(containerd.dir, 'kubelet/pods', pod.metadata.uid, 'volumes/kubernetes.io~configmap/cfg/color')
  t.is(readFileSync(file, 'utf8'), 'green')
  await node.client.patch(configMaps, { namespace: 'default', name: 'settings' }, 'merge', { data: { color: 'blue' } })
  await eventually(() => readFileSync(file, 'utf8') === 'blue', { withinMs: 15_000 })
  await node.remove('watcher')
})

test.serial('probes decide readiness and restarts; a crash loop backs off', async (t) => {
  await node.create('probed', {
    hostNetwork: true,
    containers: [
      busybox('c', 'touch /tmp/alive; sleep 1; touch /tmp/ready; exec sleep 1000', {
        readinessProbe: { exec: { command: ['test', '-f', '/tmp/ready'] }, periodSeconds: 1 },
        livenessProbe: { exec: { command: ['test', '-f', '/tmp/alive'] }, periodSeconds: 1, failureThreshold: 1 },
      }),
    ],
  })
  const before = await node.until('probed', (p) => p.status.phase === 'Running')
  t.false(ready(before))
  await node.until('probed', ready)
  const exec = node.socket('/exec/default/probed/c?command=rm&command=/tmp/alive&output=1', ['v5.channel.k8s.io'])
  await collect(exec)
  const again = await node.until('probed', (p) => (p.status.containerStatuses?.[0]?.restartCount ?? 0) === 1)
  t.is(again.status.containerStatuses?.[0]?.lastState.terminated?.exitCode, 137)
  await node.remove('probed')

  await node.create('crash', { hostNetwork: true, containers: [busybox('c', 'echo run; exit 7')] })
  const crashed = await node.until(
    'crash',
    (p) => p.status.containerStatuses?.[0]?.state.waiting?.reason === 'CrashLoopBackOff',
  )
  const [status] = crashed.status.containerStatuses ?? []
  t.is(status?.restartCount, 1)
  t.is(status?.lastState.terminated?.exitCode, 7)
  t.regex(status?.state.waiting?.message ?? '', /^back-off 10s restarting failed container=c pod=crash_default\(/)
  t.is(await logsOf('crash', 'c', '?previous=true'), 'run\n')
  await node.remove('crash')
})

test.serial('images that cannot be had are named for what they are', async (t) => {
  await node.create('never', {
    hostNetwork: true,
    containers: [busybox('c', '', { image: 'weft.local/none:1', imagePullPolicy: 'Never' })],
  })
  const never = await node.until(
    'never',
    (p) => p.status.containerStatuses?.[0]?.state.waiting?.reason === 'ErrImageNeverPull',
  )
  t.is(never.status.phase, 'Pending')
  await node.remove('never')
})

test.serial('exec over WebSocket v5: half-close, exit code, stderr', async (t) => {
  await node.create('target', { hostNetwork: true, containers: [busybox('c', 'echo ready; exec sleep 1000')] })
  await node.until('target', ready)
  const query = ['sh', '-c', 'cat; echo oops >&2; exit 5'].map((w) => `command=${encodeURIComponent(w)}`).join('&')
  const socket = node.socket(`/exec/default/target/c?${query}&input=1&output=1&error=1`, ['v5.channel.k8s.io'])
  const output = collect(socket)
  const began = performance.now()
  socket.on('open', () => {
    // All at once, before the runtime has any stream open.
    socket.send(Buffer.from('\0x'))
    socket.send(Buffer.from([255, 0]))
  })
  const { stdout, stderr, error } = await output
  t.is(socket.protocol, 'v5.channel.k8s.io')
  t.is(stdout, 'x')
  t.is(stderr, 'oops\n')
  t.like(JSON.parse(error), {
    status: 'Failure',
    reason: 'NonZeroExitCode',
    details: { causes: [{ reason: 'ExitCode', message: '5' }] },
  })
  t.true(performance.now() - began < 10_000, 'the end of the input is an end, not a time-out')
})

test.serial('exec with a terminal: output comes, and a resize reaches the program', async (t) => {
  const script = 'until [ "$(stty size)" = "33 91" ]; do sleep 0.1; done; read x; stty size; echo "$x"'
  const query = ['sh', '-c', script].map((w) => `command=${encodeURIComponent(w)}`).join('&')
  const socket = node.socket(`/exec/default/target/c?${query}&input=1&output=1&tty=1`, [
    'v5.channel.k8s.io',
    'v4.channel.k8s.io',
  ])
  const output = collect(socket)
  socket.on('open', () => {
    socket.send(Buffer.concat([Buffer.from([4]), Buffer.from('{"Width":91,"Height":33}')]))
    socket.send(Buffer.from('\0go\n'))
  })
  const { stdout, error } = await output
  t.regex(stdout, /33 91\r\ngo\r\n/)
  t.like(JSON.parse(error), { status: 'Success' })
})

test.serial(
  'attach over WebSocket v4: what is said reaches the running container, and its output comes back',
  async (t) => {
    await node.create('listener', {
      hostNetwork: true,
      containers: [busybox('c', 'while read -r x; do echo "heard $x"; echo aside >&2; done', { stdin: true })],
    })
    await node.until('listener', ready)
    const socket = node.socket('/attach/default/listener/c?input=1&output=1&error=1', ['v4.channel.k8s.io'])
    const heard = ['', '', '']
    socket.on('message', (data: Buffer) => {
      const number = data.readUInt8(0)
      heard[number] = (heard[number] ?? '') + data.subarray(1)
    })
    await new Promise((resolve) => socket.on('open', resolve))
    t.is(socket.protocol, 'v4.channel.k8s.io')
    socket.send(Buffer.from('\0one\ntw'))
    socket.send(Buffer.from('\0o\n'))
    await eventually(() => heard[1] === 'heard one\nheard two\n' && heard[2] === 'aside\naside\n')
    const closed = new Promise((resolve) => socket.on('close', resolve))
    socket.close()
    await closed
    const { containerStatuses = [] } = (await node.get('listener')).status
    t.is(containerStatuses[0]?.restartCount, 0, 'it goes on without us')
    await node.remove('listener')
  },
)

test.serial('port-forward, as raw SPDY and tunnelled in a WebSocket', async (t) => {
  const server = createServer((socket) => socket.on('data', (data) => socket.end(`pod heard ${data}`)))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as { port: number }
  try {
    const raw = await node.upgrade('POST', '/portForward/default/target', {
      Connection: 'Upgrade',
      Upgrade: 'SPDY/3.1',
      'X-Stream-Protocol-Version': 'portforward.k8s.io',
    })
    t.is(raw.headers.upgrade, 'SPDY/3.1')
    t.is(await askThrough(raw.socket, raw.head, port), 'pod heard raw')

    const name = 'SPDY/3.1+portforward.k8s.io'
    const tunnelled = await node.upgrade('GET', '/portForward/default/target', {
      Connection: 'Upgrade',
      Upgrade: 'websocket',
      'Sec-WebSocket-Version': '13',
      'Sec-WebSocket-Key': Buffer.alloc(16).toString('base64'),
      'Sec-WebSocket-Protocol': name,
    })
    t.is(tunnelled.headers['sec-websocket-protocol'], name)
    t.is(await askThrough(tunnelOver(tunnelled.socket, tunnelled.head), Buffer.alloc(0), port), 'pod heard raw')
  } finally {
    server.close()
  }
})

test.serial('port-forward over a WebSocket of channels: two for each port, which say its number first', async (t) => {
  const server = createServer((socket) => socket.on('data', (data) => socket.end(`pod heard ${data}`)))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as { port: number }
  // Nobody listens there: the kernel keeps a port that is bound from being given to others.
  const taken = createServer()
  await new Promise<void>((resolve) => taken.listen(0, '127.0.0.2', resolve))
  const { port: silent } = taken.address() as { port: number }
  try {
    const socket = node.socket(`/portForward/default/target?port=${port}&port=${silent}`, ['v4.channel.k8s.io'])
    const output = collectChannels(socket)
    // Said at once, before the runtime has any stream open.
    socket.on('open', () => socket.send(Buffer.from('\0hello')))
    const [data = '', error = '', silentData = '', silentError = ''] = await output
    const number = (value: number) => Buffer.from([value & 0xff, value >> 8]).toString('latin1')
    t.is(socket.protocol, 'v4.channel.k8s.io')
    t.is(data, `${number(port)}pod heard hello`)
    t.is(error, number(port))
    t.is(silentData, number(silent))
    t.true(silentError.startsWith(number(silent)))
    t.regex(silentError, /connection refused/)
  } finally {
    server.close()
    taken.close()
  }
  for (const [query, words] of [
    ['', /query parameter "port" is required/],
    ['?port=70000', /must be numbers from 1 to 65535/],
    ['?port=a', /must be numbers from 1 to 65535/],
  ] as const)
    t.regex(await refusalOf(node.socket(`/portForward/default/target${query}`, ['v4.channel.k8s.io'])), words)
  const other = node.socket('/portForward/default/target?port=80', ['v9.channel.k8s.io'])
  t.regex(await refusalOf(other), /none of the subprotocols v9.channel.k8s.io is supported/)
})

/** The status and words with which a handshake is turned down. */
function refusalOf(socket: WebSocket): Promise<string> {
  return new Promise((resolve, reject) => {
    socket.on('open', () => reject(new Error('the handshake was taken')))
    socket.on('error', reject)
    socket.on('unexpected-response', (_, response) => {
      let words = `${response.statusCode} `
      response.setEncoding('utf8').on('data', (text: string) => {
        words += text
      })
      response.on('end', () => resolve(words))
    })
  })
}

/** One connection through a port-forward, as kubectl makes it: an error and a data stream. */
async function askThrough(socket: Duplex, head: Buffer, port: number): Promise<string> {
  let heard = ''
  const over = Promise.withResolvers<void>()
  const spdy = new SpdyClient(socket, head, {
    data: (_, chunk) => {
      heard += chunk.toString('utf8')
    },
    ended: (id) => {
      if (id === 3) over.resolve()
    },
    closed: () => over.resolve(),
  })
  const errors = spdy.open({ streamtype: 'error', port: String(port), requestid: '0' })
  const data = spdy.open({ streamtype: 'data', port: String(port), requestid: '0' })
  await Promise.all([errors.ready, data.ready])
  spdy.end(errors.id)
  spdy.write(data.id, Buffer.from('raw'))
  await over.promise
  spdy.close()
  return heard
}

test.serial('logs are followed to the end of the container; tail, limit and time stamps', async (t) => {
  await node.create('talker', {
    hostNetwork: true,
    restartPolicy: 'Never',
    containers: [busybox('c', 'for i in 1 2 3 4; do echo line $i; sleep 0.2; done')],
  })
  await node.until('talker', (p) => p.status.phase === 'Running')
  t.is(await logsOf('talker', 'c', '?follow=true'), 'line 1\nline 2\nline 3\nline 4\n')
  t.is(await logsOf('talker', 'c', '?tailLines=2'), 'line 3\nline 4\n')
  t.is(await logsOf('talker', 'c', '?limitBytes=4'), 'line')
  t.regex(await logsOf('talker', 'c', '?timestamps=true&tailLines=1'), /^20\d\d-\d\d-\d\dT\S+ line 4\n$/)
  await node.until('talker', (p) => p.status.phase === 'Succeeded')
  await node.remove('talker')
})

test.serial('nobody gets in without a name or a right', async (t) => {
  t.is((await node.fetch('/pods', { anonymous: true })).status, 401)
  t.is((await node.fetch('/healthz', { anonymous: true })).body, 'ok')
  t.is((await node.fetch('/pods')).status, 200)
  t.regex((await node.fetch('/metrics/resource')).body, /container_memory_working_set_bytes\{container="c"/)
  t.is((await node.fetch('/containerLogs/default/absent/c')).status, 404)
  const nobody = { ca: node.authority.certificate }
  const someone = await createLeaf(node.authority, {
    subject: { commonName: 'jane' },
    usage: 'client',
    now: Date.now(),
  })
  const jane = { ...nobody, cert: someone.certificate, key: someone.key }
  for (const path of ['exec/default/target/c?command=id&output=1', 'attach/default/target/c?output=1']) {
    const open = (tls: object) => new WebSocket(`wss://127.0.0.1:${node.port}/${path}`, ['v5.channel.k8s.io'], tls)
    t.regex(await refusalOf(open(nobody)), /^401 /)
    t.regex(await refusalOf(open(jane)), /^403 Forbidden \(user=jane, verb=get, resource=nodes/)
  }
  const forward = new WebSocket(
    `wss://127.0.0.1:${node.port}/portForward/default/target?port=80`,
    ['v4.channel.k8s.io'],
    nobody,
  )
  t.regex(await refusalOf(forward), /^401 /)
})

test.serial('a restart of the kubelet touches no container', async (t) => {
  const before = await node.get('target')
  const id = before.status.containerStatuses?.[0]?.containerID
  const started = (await containerd.runtime.listContainers(before.metadata.uid)).map((c) => c.id)
  await node.restart()
  await eventually(async () => (await node.fetch('/pods')).body.includes('target'), { withinMs: 15_000 })
  const after = await node.get('target')
  t.is(after.status.containerStatuses?.[0]?.containerID, id)
  t.is(after.metadata.resourceVersion, before.metadata.resourceVersion)
  t.deepEqual(
    (await containerd.runtime.listContainers(before.metadata.uid)).map((c) => c.id),
    started,
  )
  await node.remove('target')
})

test.serial('preStop runs, then the signal; the exit code is told before the pod is gone', async (t) => {
  const seen: (number | undefined)[] = []
  await node.create('graceful', {
    hostNetwork: true,
    terminationGracePeriodSeconds: 5,
    containers: [
      busybox('c', 'trap "exit 42" TERM; while true; do sleep 0.1; done', {
        lifecycle: { preStop: { exec: { command: ['sh', '-c', 'echo stopping > /proc/1/fd/1'] } } },
      }),
    ],
  })
  await node.until('graceful', ready)
  const stop = new AbortController()
  const watching = (async () => {
    const { pods } = await import('#api/gen/resources.ts')
    for await (const event of node.client.watch(pods, { signal: stop.signal }))
      if (event.type === 'MODIFIED') seen.push(event.object.status?.containerStatuses?.[0]?.state.terminated?.exitCode)
  })().catch(() => {})
  await node.remove('graceful', 5)
  stop.abort()
  await watching
  t.true(seen.includes(42))
})
