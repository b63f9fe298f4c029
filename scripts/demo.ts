/** Applies examples/ with kubectl and checks the demo from inside (pods) and outside (the machine). `npm start` ends with it. */
import { execFileSync, spawn } from 'node:child_process'
import { join } from 'node:path'
import { distributionKubectl } from './kubectl.js'

const root = join(import.meta.dirname, '..')
const weft = (...args: string[]): string =>
  execFileSync(process.execPath, [join(root, 'src/cli/main.ts'), ...args], { encoding: 'utf8' }).trim()
const env = { ...process.env, KUBECONFIG: weft('kubeconfig') }
const kubectlPath = distributionKubectl()

function kubectl(...args: string[]): string {
  return execFileSync(kubectlPath, args, {
    env,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: 60_000,
  }).trim()
}

interface Pod {
  readonly metadata: { readonly name: string }
  readonly spec: { readonly nodeName: string }
  readonly status: { readonly podIPs: readonly { readonly ip: string }[] }
}

const pods = (selector: string): Pod[] =>
  (JSON.parse(kubectl('-n', 'demo', 'get', 'pods', '-l', selector, '-o', 'json')) as { items: Pod[] }).items
const inPod = (pod: Pod, script: string): string =>
  kubectl('-n', 'demo', 'exec', pod.metadata.name, '--', 'sh', '-c', script)
const url = (address: string, port: number): string =>
  `http://${address.includes(':') ? `[${address}]` : address}:${port}/`

const rows: { name: string; ok: boolean; seconds: number; detail: string }[] = []

async function check(name: string, run: () => string | Promise<string>): Promise<void> {
  const start = performance.now()
  const done = (ok: boolean, detail: string) =>
    rows.push({ name, ok, seconds: (performance.now() - start) / 1000, detail })
  try {
    done(true, await run())
  } catch (error) {
    const { stderr, message } = error as { stderr?: string; message: string }
    done(false, (stderr?.trim() || message).split('\n').slice(-2).join(' '))
  }
}

/** The name of the pod that answered. */
function answered(text: string, expected: (answer: { pod: string; node: string }) => boolean): string {
  const answer = JSON.parse(text) as { pod: string; node: string }
  if (!expected(answer)) throw new Error(`unexpected answer ${text}`)
  return `answered by ${answer.pod} on ${answer.node}`
}

await check('two nodes are Ready', () => {
  kubectl('wait', '--for=condition=Ready', 'node', '--all', '--timeout=30s')
  return kubectl('get', 'nodes', '-o', 'jsonpath={.items[*].metadata.name}')
})
await check('kubectl apply -f examples/', () => kubectl('apply', '-f', join(root, 'examples')).replaceAll('\n', ', '))
await check(
  'the Deployment is rolled out',
  () => kubectl('-n', 'demo', 'rollout', 'status', 'deployment/web', '--timeout=45s').split('\n').at(-1) ?? '',
)
await check(
  'the DaemonSet is rolled out',
  () => kubectl('-n', 'demo', 'rollout', 'status', 'daemonset/client', '--timeout=45s').split('\n').at(-1) ?? '',
)

/** Without a part of the demo, the checks that need it are not made: what keeps it away is said instead. */
const rolledOut = rows.every((row) => row.ok)
const [client] = rolledOut ? pods('app=client').filter((pod) => pod.spec.nodeName === 'node-1') : []
const web = rolledOut ? pods('app=web') : []
const near = web.find((pod) => pod.spec.nodeName === 'node-1')
const far = web.find((pod) => pod.spec.nodeName !== 'node-1')
if (client === undefined || near === undefined || far === undefined) {
  rows.push({
    name: 'one replica on each node, a client beside it',
    ok: false,
    seconds: 0,
    detail: `not so; the other checks need it. What the cluster says:\n${whatIsWrong()}`,
  })
} else {
  for (const [where, pod] of [
    ['same node', near],
    ['other node', far],
  ] as const) {
    for (const { ip } of pod.status.podIPs) {
      await check(`pod to pod, ${where}, ${ip.includes(':') ? 'IPv6' : 'IPv4'}`, () =>
        answered(inPod(client, `get '${url(ip, 8080)}'`), (a) => a.pod === pod.metadata.name),
      )
    }
  }
  const { clusterIPs } = (
    JSON.parse(kubectl('-n', 'demo', 'get', 'service', 'web', '-o', 'json')) as { spec: { clusterIPs: string[] } }
  ).spec
  for (const ip of clusterIPs) {
    const family = ip.includes(':') ? 'IPv6' : 'IPv4'
    await check(`ClusterIP over TCP, ${family}`, () => {
      const seen = new Set<string>()
      for (const line of inPod(
        client,
        `for i in 1 2 3 4 5 6 7 8 9 10 11 12; do get '${url(ip, 80)}' || exit 1; done`,
      ).split('\n'))
        seen.add((JSON.parse(line) as { pod: string }).pod)
      if (seen.size !== 2) throw new Error(`12 requests reached ${[...seen].join(', ')}: both replicas should answer`)
      return 'both replicas answered'
    })
    await check(`ClusterIP over UDP, ${family}`, () => {
      const echoed = inPod(client, `get 'udp://${ip.includes(':') ? `[${ip}]` : ip}:9000/hello'`)
      if (echoed !== 'hello') throw new Error(`sent hello, got ${JSON.stringify(echoed)}`)
      return 'echoed'
    })
  }
  await check('from outside: kubectl port-forward', () => portForward(far))
  await check('kubectl logs', () => {
    kubectl('-n', 'demo', 'logs', near.metadata.name)
    return 'read'
  })
  await check('exec: standard input, output and exit code', () => {
    try {
      execFileSync(kubectlPath, ['-n', 'demo', 'exec', '-i', client.metadata.name, '--', 'sh', '-c', 'cat; exit 5'], {
        env,
        input: 'x',
        encoding: 'utf8',
        stdio: ['pipe', 'pipe', 'pipe'],
        timeout: 20_000,
      })
    } catch (error) {
      const { status, stdout } = error as { status: number; stdout: string }
      if (status === 5 && stdout === 'x') return 'x and 5 came back'
      throw new Error(`ended with ${status} and ${JSON.stringify(stdout)}`)
    }
    throw new Error('ended with 0, should be 5')
  })
}

/** Pods, and the last warnings about them. */
function whatIsWrong(): string {
  try {
    const warnings = kubectl(
      '-n',
      'demo',
      'get',
      'events',
      '--field-selector',
      'type=Warning',
      '--sort-by=.lastTimestamp',
    )
    return `${kubectl('-n', 'demo', 'get', 'pods', '-o', 'wide')}\n${warnings.split('\n').slice(-5).join('\n')}`
  } catch (error) {
    return (error as Error).message
  }
}

const width = Math.max(...rows.map((r) => r.name.length))
process.stdout.write(`\nCHECK${' '.repeat(width - 1)}TIME\n`)
for (const { name, ok, seconds, detail } of rows)
  process.stdout.write(`${ok ? 'ok  ' : 'FAIL'} ${name.padEnd(width)}  ${seconds.toFixed(2)} s  ${detail}\n`)
process.stdout.write(`\n${weft('status')}\n`)
const failed = rows.filter((r) => !r.ok).length
process.stdout.write(`\n${rows.length - failed} of ${rows.length} checks passed\n`)
process.exitCode = failed === 0 ? 0 : 1

/** Asks a pod through `kubectl port-forward` on a port of 127.0.0.1 that kubectl picks. */
async function portForward(pod: Pod): Promise<string> {
  const child = spawn(kubectlPath, ['-n', 'demo', 'port-forward', pod.metadata.name, ':8080'], {
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  try {
    const port = await new Promise<string>((resolve, reject) => {
      let output = ''
      const read = (chunk: Buffer) => {
        output += chunk
        const match = /127\.0\.0\.1:(\d+)/.exec(output)
        if (match?.[1]) resolve(match[1])
      }
      child.stdout.on('data', read)
      child.stderr.on('data', read)
      child.on('exit', () => reject(new Error(`kubectl port-forward ended: ${output}`)))
    })
    const response = await fetch(`http://127.0.0.1:${port}/`, { signal: AbortSignal.timeout(10_000) })
    return answered(await response.text(), (a) => a.pod === pod.metadata.name)
  } finally {
    child.kill()
  }
}
