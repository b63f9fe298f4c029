import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import WebSocket from 'ws'
import type { Pod } from '#api/gen/core-v1.ts'
import { eventually } from '#base/async/eventually.ts'
import { parseKubeconfig } from '#client/kubeconfig.ts'
import { TestCluster } from './cluster.ts'

/** Every way of using kubectl that the README and a newcomer expect, against a real cluster, with the distribution's kubectl. */
let cluster: TestCluster
/** It is asked for by running kubectl, or shown by one that runs. */
const until = (holds: () => boolean): Promise<boolean> => eventually(holds, { withinMs: 30_000, pauseMs: 100 })
const scratch = mkdtempSync(join(tmpdir(), 'weft-kubectl-'))

test.before(() => {
  cluster = TestCluster.up('t-kubectl')
  cluster.apply(web('web', 'one'))
  cluster.kubectl('rollout', 'status', 'deployment/web', '--timeout=60s')
})

test.after.always(() => {
  cluster?.down()
  rmSync(scratch, { recursive: true, force: true })
})

const web = (name: string, version: string, replicas = 2): string => `
apiVersion: apps/v1
kind: Deployment
metadata: { name: ${name}, labels: { app: ${name} } }
spec:
  replicas: ${replicas}
  selector: { matchLabels: { app: ${name} } }
  template:
    metadata: { labels: { app: ${name} } }
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: echo
          image: weft.local/echo:1
          env: [{ name: VERSION, value: "${version}" }]
          ports: [{ containerPort: 8080, name: http }]
        - name: shell
          image: weft.local/busybox:1
          command: [sh, -c, "echo started ${version}; trap 'exit 0' TERM; while true; do sleep 1 & wait; done"]
`

/** One that runs, and is not on its way out: a roll-out does not wait for those. */
function firstPod(): string {
  const { items } = cluster.json<{ items: Pod[] }>('get', 'pods', '-l', 'app=web')
  const found = items.find((p) => p.metadata.deletionTimestamp === undefined && p.status.phase === 'Running')
  if (found === undefined) throw new Error('no pod of web runs')
  return found.metadata.name
}

test.serial('get -o wide, yaml, json and jsonpath show the same pod', (t) => {
  const name = firstPod()
  const wide = cluster.kubectl('get', 'pod', name, '-o', 'wide')
  t.regex(wide, /^NAME +READY +STATUS +RESTARTS +AGE +IP +NODE +NOMINATED NODE +READINESS GATES\n/)
  t.regex(wide, new RegExp(`\n${name} +2/2 +Running +0 +\\d+s +10\\.244\\.\\d+\\.\\d+ +node-\\d `))
  t.regex(cluster.kubectl('get', 'pod', name, '-o', 'yaml'), /\n {2}podIP: 10\.244\./)
  const pod = cluster.json<{ status: { podIPs: { ip: string }[] } }>('get', 'pod', name)
  t.is(pod.status.podIPs.length, 2)
  t.is(pod.status.podIPs[0]?.ip, cluster.kubectl('get', 'pod', name, '-o', 'jsonpath={.status.podIP}'))
})

test.serial('describe names the events of a pod', (t) => {
  const text = cluster.kubectl('describe', 'pod', firstPod())
  for (const reason of ['Scheduled', 'Created', 'Started']) t.regex(text, new RegExp(`Normal +${reason} `))
  t.regex(text, /Status: +Running/)
  t.regex(cluster.kubectl('describe', 'node', 'node-1'), /Ready +True/)
})

test.serial('explain shows a field with its type', (t) => {
  t.regex(cluster.kubectl('explain', 'deployment.spec.replicas'), /FIELD: +replicas <integer>/)
  t.regex(cluster.kubectl('explain', 'pods.spec.containers'), /\n +image\s+<string>/)
})

test.serial('get -w sees a change as it happens', async (t) => {
  cluster.kubectl('create', 'configmap', 'watched', '--from-literal=step=one')
  const output = '-o=jsonpath={.data.step}{"\\n"}'
  const child = spawn(cluster.kubectlPath, ['get', 'configmap', 'watched', '-w', output], {
    env: cluster.env,
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const lines: string[] = []
  child.stdout.on('data', (chunk: Buffer) =>
    lines.push(
      ...chunk
        .toString()
        .split('\n')
        .filter((l) => l !== ''),
    ),
  )
  try {
    await until(() => lines.includes('one'))
    cluster.kubectl('patch', 'configmap', 'watched', '-p', '{"data":{"step":"two"}}')
    await until(() => lines.includes('two'))
    t.deepEqual(lines, ['one', 'two'])
  } finally {
    child.kill()
  }
})

test.serial('label, annotate and edit by patch', (t) => {
  cluster.kubectl('label', 'deployment', 'web', 'tier=front')
  cluster.kubectl('annotate', 'deployment', 'web', 'note=hello')
  cluster.kubectl(
    'patch',
    'deployment',
    'web',
    '--type=json',
    '-p',
    '[{"op":"add","path":"/metadata/labels/by","value":"json"}]',
  )
  cluster.kubectl('patch', 'deployment', 'web', '--type=merge', '-p', '{"metadata":{"labels":{"by2":"merge"}}}')
  t.is(
    cluster.kubectl(
      'get',
      'deployment',
      'web',
      '-o',
      'jsonpath={.metadata.labels.tier} {.metadata.annotations.note} {.metadata.labels.by} {.metadata.labels.by2}',
    ),
    'front hello json merge',
  )
  const editor = join(scratch, 'editor.sh')
  writeFileSync(editor, '#!/bin/sh\nsed -i "s/tier: front/tier: edited/" "$1"\n', { mode: 0o755 })
  const { code, stderr } = cluster.try(['edit', 'deployment', 'web'], { env: { KUBE_EDITOR: editor } })
  t.is(code, 0, stderr)
  t.is(cluster.kubectl('get', 'deployment', 'web', '-o', 'jsonpath={.metadata.labels.tier}'), 'edited')
})

test.serial('scale, wait and the scale subresource', (t) => {
  cluster.kubectl('scale', 'deployment', 'web', '--replicas=3')
  cluster.kubectl('wait', '--for=condition=Available', 'deployment/web', '--timeout=30s')
  cluster.kubectl('rollout', 'status', 'deployment/web', '--timeout=30s')
  t.is(cluster.kubectl('get', 'deployment', 'web', '-o', 'jsonpath={.status.readyReplicas}'), '3')
  cluster.kubectl('scale', 'deployment', 'web', '--replicas=2')
  cluster.kubectl('rollout', 'status', 'deployment/web', '--timeout=30s')
})

test.serial('rollout: a new version, its history, undo and restart', async (t) => {
  cluster.apply(web('web', 'two'))
  cluster.kubectl('rollout', 'status', 'deployment/web', '--timeout=60s')
  t.regex(cluster.kubectl('rollout', 'history', 'deployment/web'), /\n1 .*\n2 /)
  cluster.kubectl('rollout', 'undo', 'deployment/web')
  cluster.kubectl('rollout', 'status', 'deployment/web', '--timeout=60s')
  t.is(
    cluster.kubectl('get', 'deployment', 'web', '-o', 'jsonpath={.spec.template.spec.containers[0].env[0].value}'),
    'one',
  )
  const before = firstPod()
  cluster.kubectl('rollout', 'restart', 'deployment/web')
  cluster.kubectl('rollout', 'status', 'deployment/web', '--timeout=60s')
  // The roll-out does not wait for those that are on their way out.
  await until(() => cluster.try(['get', 'pod', before]).code === 1)
  t.regex(cluster.try(['get', 'pod', before]).stderr, /NotFound/, 'the pod of before has gone')
})

test.serial('logs -f shows what was written and what is written while it looks', async (t) => {
  const pod = firstPod()
  t.is(cluster.kubectl('logs', pod, '-c', 'shell'), 'started one')
  const child = spawn(cluster.kubectlPath, ['logs', '-f', pod, '-c', 'shell'], {
    env: cluster.env,
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let seen = ''
  child.stdout.on('data', (chunk: Buffer) => {
    seen += chunk
  })
  try {
    await until(() => seen === 'started one\n')
    cluster.kubectl('exec', pod, '-c', 'shell', '--', 'sh', '-c', 'echo more > /proc/1/fd/1')
    await until(() => seen !== 'started one\n')
    t.is(seen, 'started one\nmore\n')
    t.is(child.exitCode, null, 'it goes on looking')
  } finally {
    child.kill()
  }
})

test.serial('logs --previous shows the container of before', async (t) => {
  cluster.apply(`
apiVersion: v1
kind: Pod
metadata: { name: again }
spec:
  containers:
    - name: c
      image: weft.local/busybox:1
      command: [sh, -c, "echo run at $(date +%s); sleep 1; exit 3"]
`)
  await until(
    () =>
      Number(cluster.kubectl('get', 'pod', 'again', '-o', 'jsonpath={.status.containerStatuses[0].restartCount}')) >= 1,
  )
  t.regex(cluster.kubectl('logs', 'again', '--previous'), /^run at \d+$/)
  cluster.kubectl('delete', 'pod', 'again', '--now')
})

test.serial('exec -i hands over input, output and the exit code', (t) => {
  const { code, stdout } = cluster.try(['exec', '-i', firstPod(), '-c', 'shell', '--', 'sh', '-c', 'cat; exit 5'], {
    input: 'x',
  })
  t.deepEqual([code, stdout], [5, 'x'])
})

test.serial('exec -it has a terminal of the size that is asked for', (t) => {
  const wait = 'for i in $(seq 150); do [ "$(stty size 2>/dev/null)" = "40 120" ] && break; sleep 0.1; done'
  const out = cluster.script(['exec', '-it', firstPod(), '-c', 'shell', '--', 'sh', '-c', `tty; ${wait}; stty size`], {
    rows: 40,
    columns: 120,
  })
  t.regex(out, /\/dev\/pts\/\d/)
  t.regex(out, /40 120/)
})

test.serial('cp brings a file in and out unchanged', (t) => {
  const local = join(scratch, 'in')
  writeFileSync(local, `${'weft '.repeat(40_000)}\n`)
  const pod = firstPod()
  cluster.kubectl('cp', local, `${pod}:/tmp/copied`, '-c', 'shell')
  cluster.kubectl('cp', `${pod}:/tmp/copied`, join(scratch, 'out'), '-c', 'shell')
  t.deepEqual(readFileSync(join(scratch, 'out')), readFileSync(local))
})

test.serial('port-forward reaches a pod from the machine', async (t) => {
  const pod = firstPod()
  const child = spawn(cluster.kubectlPath, ['port-forward', pod, ':8080'], {
    env: cluster.env,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  try {
    const port = await new Promise<string>((resolve, reject) => {
      let text = ''
      child.stdout.on('data', (chunk: Buffer) => {
        text += chunk
        const found = /127\.0\.0\.1:(\d+)/.exec(text)
        if (found?.[1]) resolve(found[1])
      })
      child.on('exit', (code) => reject(new Error(`kubectl port-forward ended with ${code}`)))
    })
    for (const path of ['/a', '/b']) {
      const answer = (await (await fetch(`http://127.0.0.1:${port}${path}`)).json()) as { path: string }
      t.is(answer.path, path)
    }
  } finally {
    child.kill()
  }
})

test.serial(
  'WebSocket: a log is followed, and port-forward by channels says the number of its port first',
  async (t) => {
    const pod = firstPod()
    const { server, ca, cert, key } = await parseKubeconfig(readFileSync(cluster.layout.server.adminKubeconfig, 'utf8'))
    const url = `${server.replace('https', 'wss')}/api/v1/namespaces/default/pods/${pod}`
    const open = (path: string, protocols: string[]) => new WebSocket(`${url}/${path}`, protocols, { ca, cert, key })

    const log = open('log?container=shell&follow=true&tailLines=1', ['binary.k8s.io'])
    let seen = ''
    log.on('message', (data: Buffer) => {
      seen += data
    })
    try {
      await until(() => seen !== '')
      const before = seen
      cluster.kubectl('exec', pod, '-c', 'shell', '--', 'sh', '-c', 'echo by socket > /proc/1/fd/1')
      await until(() => seen !== before)
      t.is(seen, `${before}by socket\n`)
      t.is(log.readyState, WebSocket.OPEN, 'it goes on looking')
    } finally {
      log.close()
    }

    const forward = open('portforward?ports=8080', ['v4.channel.k8s.io'])
    const channels: Buffer[] = [Buffer.alloc(0), Buffer.alloc(0)]
    const closed = once(forward, 'close')
    forward.on('message', (data: Buffer) => {
      const number = data.readUInt8(0)
      channels[number] = Buffer.concat([channels[number] ?? Buffer.alloc(0), data.subarray(1)])
    })
    forward.on('open', () => forward.send('\0GET /by-channels HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'))
    await closed
    const [data = Buffer.alloc(0), error] = channels
    t.is(data.readUInt16LE(0), 8080)
    t.regex(data.toString('utf8', 2), /^HTTP\/1\.1 200[\s\S]*\/by-channels/)
    t.deepEqual(error, Buffer.from([8080 & 0xff, 8080 >> 8]))
  },
)

test.serial('auth can-i answers from RBAC', async (t) => {
  cluster.kubectl('create', 'serviceaccount', 'reader')
  cluster.kubectl('create', 'role', 'reads', '--verb=get,list', '--resource=pods')
  cluster.kubectl('create', 'rolebinding', 'reads', '--role=reads', '--serviceaccount=default:reader')
  const request = cluster.try(
    ['create', '--raw', '/api/v1/namespaces/default/serviceaccounts/reader/token', '-f', '-'],
    {
      input: '{"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest","spec":{}}',
    },
  )
  const { token } = (JSON.parse(request.stdout) as { status: { token: string } }).status
  const kubeconfig = join(scratch, 'reader.kubeconfig')
  writeFileSync(kubeconfig, cluster.kubeconfigWithToken(token), { mode: 0o600 })
  const asReader = (...args: string[]) => cluster.try(args, { env: { KUBECONFIG: kubeconfig } }).stdout.trim()
  t.is(asReader('auth', 'can-i', 'list', 'pods'), 'yes')
  t.is(asReader('auth', 'can-i', 'delete', 'pods'), 'no')
  t.is(cluster.kubectl('auth', 'can-i', '*', '*'), 'yes')

  // The same rights for a browser, which shows its token among the protocols: `get` of a log is none of a pod.
  const { server, ca } = await parseKubeconfig(readFileSync(cluster.layout.server.adminKubeconfig, 'utf8'))
  const bearer = `base64url.bearer.authorization.k8s.io.${Buffer.from(token).toString('base64url')}`
  const url = `${server.replace('https', 'wss')}/api/v1/namespaces/default/pods/${firstPod()}/log?container=shell`
  const open = () => new WebSocket(url, ['binary.k8s.io', bearer], { ca })
  const [refused] = (await once(open(), 'error')) as [Error]
  t.regex(refused.message, /403/)
  cluster.kubectl('create', 'role', 'reads-logs', '--verb=get', '--resource=pods/log')
  cluster.kubectl('create', 'rolebinding', 'reads-logs', '--role=reads-logs', '--serviceaccount=default:reader')
  const log = open()
  const closed = once(log, 'close')
  const [text] = (await once(log, 'message')) as [Buffer]
  t.regex(text.toString(), /^started /)
  t.deepEqual((await closed)[0], 1000)
})

test.serial('a misspelt field is refused with the words of kubectl and the server', (t) => {
  const { code, stderr } = cluster.try(['apply', '-f', '-'], {
    input: web('typo', 'one').replace('replicas:', 'replica:'),
  })
  t.is(code, 1)
  t.regex(stderr, /unknown field "replica" in io\.k8s\.api\.apps\.v1\.DeploymentSpec/)
})

test.serial('delete waits until the pods are gone', (t) => {
  cluster.apply(web('short', 'one', 1))
  cluster.kubectl('rollout', 'status', 'deployment/short', '--timeout=30s')
  cluster.kubectl('delete', 'deployment', 'short')
  cluster.kubectl('wait', '--for=delete', 'pod', '-l', 'app=short', '--timeout=30s')
  t.is(cluster.kubectl('get', 'pods', '-l', 'app=short', '-o', 'name'), '')
})
