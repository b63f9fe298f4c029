/** Applies examples/ with kubectl and checks the demo from inside (pods) and outside (the machine). `npm start` ends with it. */
import { execFileSync, spawn } from 'node:child_process'
import { join } from 'node:path'
import { addressOf, layoutCluster } from '#cli/cluster/layout.ts'
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
for (const deployment of ['web', 'web-next'])
  await check(
    `Deployment ${deployment} is rolled out`,
    () =>
      kubectl('-n', 'demo', 'rollout', 'status', `deployment/${deployment}`, '--timeout=45s').split('\n').at(-1) ?? '',
  )
await check(
  'the DaemonSet is rolled out',
  () => kubectl('-n', 'demo', 'rollout', 'status', 'daemonset/client', '--timeout=45s').split('\n').at(-1) ?? '',
)

await check('the stranger is Ready', () =>
  kubectl('-n', 'demo', 'wait', '--for=condition=Ready', 'pod/stranger', '--timeout=45s'),
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
      // Backends are drawn by chance: that forty draws are all the same one happens once in 10^12.
      const seen = new Set<string>()
      for (const line of inPod(client, `for i in $(seq 40); do get '${url(ip, 80)}' || exit 1; done`).split('\n'))
        seen.add((JSON.parse(line) as { pod: string }).pod)
      if (seen.size !== 2) throw new Error(`40 requests reached ${[...seen].join(', ')}: both replicas should answer`)
      return 'both replicas answered'
    })
    await check(`ClusterIP over UDP, ${family}`, () => {
      const echoed = inPod(client, `get 'udp://${ip.includes(':') ? `[${ip}]` : ip}:9000/hello'`)
      if (echoed !== 'hello') throw new Error(`sent hello, got ${JSON.stringify(echoed)}`)
      return 'echoed'
    })
  }
  await check('by name: a Service, from its own namespace', () =>
    answered(inPod(client, 'get http://web/'), (a) => web.some((pod) => pod.metadata.name === a.pod)),
  )
  await check('by name: absolutely', () => {
    const found = inPod(client, 'nslookup web.demo.svc.cluster.local').match(/Address: (10\.96\.\S+)/)?.[1]
    if (found === undefined || found !== clusterIPs[0])
      throw new Error(`web.demo.svc.cluster.local is ${found}, should be ${clusterIPs[0]}`)
    return found
  })
  await checkDenied(clusterIPs)
  await checkGateway()
  await check('metrics, scraped from the nodes, count the denial', scrapedDenials)
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

/** Whom no policy knows is refused, at once; what was seen of it, and why. */
async function checkDenied(clusterIPs: readonly string[]): Promise<void> {
  for (const ip of clusterIPs) {
    await check(`a denied connection is refused, ${ip.includes(':') ? 'IPv6' : 'IPv4'}`, () => {
      const start = performance.now()
      try {
        kubectl('-n', 'demo', 'exec', 'stranger', '--', 'get', '-t', '10', url(ip, 80))
      } catch (error) {
        const { stderr } = error as { stderr: string }
        const seconds = (performance.now() - start) / 1000
        if (!/refused/i.test(stderr) || seconds > 5) throw new Error(`after ${seconds.toFixed(1)} s: ${stderr.trim()}`)
        return 'refused, not timed out'
      }
      throw new Error('the stranger was answered')
    })
  }
  await check('weft flows shows the drop', () => {
    const [flow] = weft('flows', '--from-pod', 'demo/stranger', '--verdict', 'dropped', '--last', '1').split('\n')
    if (!flow?.includes('Policy denied')) throw new Error(`it shows ${JSON.stringify(flow)}`)
    return flow.replace(/^.*?: /, '')
  })
  await check('weft why names the policies', () => {
    try {
      weft('why', 'demo/stranger', 'svc/demo/web', '80')
    } catch (error) {
      const { status, stdout } = error as { status: number; stdout: string }
      const line = stdout.split('\n').find((l) => l.includes('demo/default-deny'))
      if (status !== 1 || line === undefined) throw new Error(`it ended with ${status} and said ${stdout}`)
      return line.trim()
    }
    throw new Error('it says that the stranger may')
  })
}

/** The route from the outside client, by both families, and the split of its traffic. */
async function checkGateway(): Promise<void> {
  await check('the Gateway is programmed on every node', () =>
    kubectl('-n', 'demo', 'wait', '--for=condition=Programmed', 'gateway/demo', '--timeout=30s'),
  )
  const addresses = kubectl('-n', 'demo', 'get', 'gateway', 'demo', '-o', 'jsonpath={.status.addresses[*].value}')
  for (const address of addresses.split(' ').filter(Boolean)) {
    await check(`the route from outside, ${address.includes(':') ? 'IPv6' : 'IPv4'}`, () => {
      const [version] = fromOutside(address, 1)
      return `${url(address, 80)} answered by version ${version}`
    })
  }
  await check('the route splits 90 to 10', () => {
    const requests = 600
    const versions = fromOutside(addresses.split(' ')[0] ?? '', requests)
    const share = versions.filter((version) => version === 'two').length / requests
    // Five standard deviations of so many draws.
    if (Math.abs(share - 0.1) > 5 * Math.sqrt((0.1 * 0.9) / requests))
      throw new Error(`${share * 100} % went to the newer one`)
    return `${(share * 100).toFixed(1)} % of ${requests} requests`
  })
}

/** Versions that answered so many requests of a client in the fabric, who is outside of the cluster. */
function fromOutside(address: string, requests: number): string[] {
  const { netns } = layoutCluster('weft', 2).fabric
  const script = `const answers = []
    for (let i = 0; i < ${requests}; i++) answers.push((await (await fetch('${url(address, 80)}')).json()).version)
    process.stdout.write(JSON.stringify(answers))`
  const command = [`--net=/run/netns/${netns}`, process.execPath, '--input-type=module', '-e', script]
  return JSON.parse(execFileSync('nsenter', command, { encoding: 'utf8', timeout: 30_000 })) as string[]
}

/** What a scraper with the rights of examples/prometheus/rbac.yaml reads of the denials, on the nodes. */
function scrapedDenials(): string {
  kubectl('apply', '-f', join(root, 'examples/prometheus/rbac.yaml'))
  const path = '/api/v1/namespaces/monitoring/serviceaccounts/prometheus/token'
  const input = JSON.stringify({ apiVersion: 'authentication.k8s.io/v1', kind: 'TokenRequest', spec: {} })
  const { status } = JSON.parse(
    execFileSync(kubectlPath, ['create', '--raw', path, '-f', '-'], { env, input, encoding: 'utf8' }),
  ) as { status: { token: string } }
  const { fabric, nodes, server } = layoutCluster('weft', 2)
  const denied = nodes.map((node) => {
    const at = `https://${addressOf(node.addresses[0] ?? '')}:10250/metrics`
    const script = `const answer = await fetch('${at}', { headers: { authorization: 'Bearer ' + process.env.TOKEN } })
      if (!answer.ok) throw new Error(answer.status + ' ' + (await answer.text()))
      process.stdout.write(await answer.text())`
    const text = execFileSync(
      'nsenter',
      [`--net=/run/netns/${fabric.netns}`, process.execPath, '--input-type=module', '-e', script],
      {
        encoding: 'utf8',
        timeout: 20_000,
        env: { ...process.env, TOKEN: status.token, NODE_EXTRA_CA_CERTS: join(server.dataDir, 'pki/ca.crt') },
      },
    )
    return Number(/^cilium_drop_count_total\{[^}]*reason="Policy denied"[^}]*\} (\d+)/m.exec(text)?.[1] ?? 0)
  })
  const sum = denied.reduce((a, b) => a + b, 0)
  if (sum === 0) throw new Error('cilium_drop_count_total{reason="Policy denied"} is 0 on every node')
  return `cilium_drop_count_total{reason="Policy denied"}: ${sum}`
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
