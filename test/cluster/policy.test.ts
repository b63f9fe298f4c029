import test from 'ava'
import type { NetworkPolicySpec } from '#api/gen/networking-v1.ts'
import { events, namespaces, networkPolicies, pods, services } from '#api/gen/resources.ts'
import { eventually } from '#base/async/eventually.ts'
import { addressOf } from '#cli/cluster/layout.ts'
import { casesOf } from './policy-cases.ts'
import { asks, everyone, nameOf, PolicyWorld, table } from './policy-world.ts'

/**
 * NetworkPolicy on real pods: nine of them ask each other on every port of every protocol in both families. A denial must
 * be said: refused or prohibited, never silence.
 */
let world: PolicyWorld
/** A datagram that is lost is never answered; one whose receiver waits for a busy machine's processor is. */
const lostAfterMs = 3_000

test.before(async () => {
  world = await PolicyWorld.up('t-policy')
})
test.after.always(() => world?.down())
test.afterEach.always(() => world?.clear())

const deny = { podSelector: {}, policyTypes: ['Ingress' as const] }

test.serial('the matrix: at least 100 cases of policies, 9 pods, 3 ports, 3 protocols, both families', async (t) => {
  t.timeout(280_000)
  const cases = casesOf((name, family) => world.addressOf(name, family))
  t.true(cases.length >= 100, `${cases.length} cases`)
  const failures: string[] = []
  const start = performance.now()
  for (const each of cases) {
    for (const [i, { namespace, spec }] of each.policies.entries()) await world.policy(namespace, `case-${i}`, spec)
    const wrong = await world.settle(each, failures.length > 3 ? 500 : 15_000)
    if (wrong.length > 0) {
      const policies = JSON.stringify(each.policies)
      failures.push(`${each.title}: ${wrong.length} of ${asks.length} answers differ\n${policies}\n${table(wrong)}`)
    }
    await world.clear()
  }
  const seconds = Math.round((performance.now() - start) / 1000)
  t.log(`${cases.length} cases, ${cases.length * asks.length} answers, ${seconds} s`)
  t.is(failures.length, 0, `${failures.length} of ${cases.length} cases:\n${failures.slice(0, 5).join('\n\n')}`)
})

test.serial('P3: a pod’s own node always reaches it, another node does not', async (t) => {
  await world.policy('x', 'deny', deny)
  const made = (await world.client.list(pods, { namespace: 'x' })).items
  for (const host of world.hosts) {
    for (const pod of made) {
      for (const { ip } of pod.status.podIPs ?? []) {
        const wanted = pod.spec.nodeName === host.name ? 'open' : 'refused'
        const said = await eventually(async () => {
          const [answer] = await host.ask([{ protocol: 'tcp', address: ip, port: 80 }])
          if (answer !== wanted) throw new Error(`${host.name} to ${nameOf(pod)} at ${ip}: ${answer}, not ${wanted}`)
          return answer
        })
        t.is(said, wanted)
      }
    }
  }
})

test.serial(
  'P4: a pod on the host’s network is its node: no policy selects it, and none means it by its labels',
  async (t) => {
    const [node] = world.cluster.layout.nodes
    const [host] = world.hosts
    if (node === undefined || host === undefined) throw new Error('no node')
    await world.client.create(pods, {
      metadata: { namespace: 'x', name: 'onhost', labels: { pod: 'b' } },
      spec: {
        hostNetwork: true,
        nodeSelector: { 'kubernetes.io/hostname': node.name },
        terminationGracePeriodSeconds: 0,
        containers: [{ name: 'c', image: 'weft.local/busybox:1', command: ['sleep', '100000'] }],
      },
    })
    world.cluster.kubectl('-n', 'x', 'wait', '--for=condition=Ready', 'pod/onhost', '--timeout=30s')
    const made = await world.client.get(pods, { namespace: 'x', name: 'onhost' })
    t.is(made.metadata.annotations?.['weft.dev/identity'], undefined)
    // Out of every pod labelled pod=b nothing: the host still talks. Into x/c only from pod=b: the other node's host is none.
    await world.policy('x', 'out', { podSelector: { matchLabels: { pod: 'b' } }, policyTypes: ['Egress'] })
    await world.policy('x', 'in', {
      podSelector: {},
      policyTypes: ['Ingress'],
      ingress: [{ from: [{ podSelector: { matchLabels: { pod: 'b' } } }] }],
    })
    const far = (await world.client.list(pods, { namespace: 'x' })).items.find(
      (pod) => pod.spec.nodeName !== node.name && !pod.spec.hostNetwork,
    )
    const free = world.addressOf('y/a', 4)
    await eventually(async () => {
      const [toFar, toFree] = await host.ask([
        { protocol: 'tcp', address: far?.status.podIPs?.[0]?.ip ?? '', port: 80 },
        { protocol: 'tcp', address: free, port: 80 },
      ])
      if (toFar !== 'refused' || toFree !== 'open') throw new Error(`isolated ${toFar}, not isolated ${toFree}`)
    })
    await world.client.delete(pods, { namespace: 'x', name: 'onhost' }, { gracePeriodSeconds: 0 })
    t.pass()
  },
)

test.serial('P13: a label change on a running pod loses no packet, whichever policies look at it', async (t) => {
  await world.policy('x', 'in', {
    podSelector: { matchLabels: { pod: 'a' } },
    policyTypes: ['Ingress'],
    ingress: [{ from: [{ podSelector: { matchExpressions: [{ key: 'pod', operator: 'In', values: ['b', 'c'] }] } }] }],
  })
  await world.settle({ allowed: ({ from, to }) => to !== 'x/a' || from === 'x/b' || from === 'x/c' })
  const lost: string[] = []
  let asked = 0
  let going = true
  const asking = ['x/b', 'x/c'].map(async (name) => {
    const question = { protocol: 'udp', address: world.addressOf('x/a', 4), port: 80 } as const
    while (going) {
      const answers = await world
        .prober(name)
        .ask([question, { ...question, address: world.addressOf('x/a', 6) }], lostAfterMs)
      asked += answers.length
      for (const answer of answers) if (answer !== 'open') lost.push(`${name}: ${answer}`)
    }
  })
  const label = (name: string, labels: object) =>
    world.client.patch(pods, { namespace: 'x', name }, 'merge', { metadata: { labels } })
  const numbers = new Set<string | undefined>()
  for (let i = 0; i < 20; i++) {
    const changed = await label('b', { pod: i % 2 === 0 ? 'c' : 'b', tier: String(i) })
    numbers.add(changed.metadata.annotations?.['weft.dev/identity'])
    // A policy that looks at one more label splits the number that the pods had in common.
    if (i === 10) {
      await world.policy('x', 'tier', {
        podSelector: { matchLabels: { pod: 'a' } },
        policyTypes: ['Ingress'],
        ingress: [{ from: [{ podSelector: { matchLabels: { tier: '3' } } }] }],
      })
    }
  }
  await label('b', { pod: 'b', tier: null })
  await eventually(() => asked > 200)
  going = false
  await Promise.all(asking)
  t.deepEqual(lost, [], `${lost.length} of ${asked}`)
  t.true(asked > 200, `${asked} packets`)
  t.true(numbers.size > 3, `the pod had ${numbers.size} numbers`)
})

test.serial('P8: what goes out to a Service is judged as what goes to its pods, at their port', async (t) => {
  const service = await world.client.create(services, {
    metadata: { namespace: 'y', name: 'web' },
    spec: {
      ipFamilyPolicy: 'RequireDualStack',
      selector: { pod: 'b' },
      // A name that each pod has its own number for.
      ports: [{ port: 443, targetPort: 'p-8080-tcp' }],
    },
  })
  const addresses = service.spec.clusterIPs ?? []
  const asked = async () =>
    (await world.prober('x/a').ask(addresses.map((address) => ({ protocol: 'tcp', address, port: 443 })))).join()
  const becomes = (wanted: string) =>
    t.notThrowsAsync(
      eventually(async () => {
        const answers = await asked()
        if (answers !== wanted) throw new Error(`${answers}, not ${wanted}`)
      }),
    )
  await becomes('open,open')
  const toPods = [{ namespaceSelector: { matchLabels: { ns: 'y' } }, podSelector: { matchLabels: { pod: 'b' } } }]
  const out = (egress: NonNullable<NetworkPolicySpec['egress']>) => ({
    podSelector: { matchLabels: { pod: 'a' } },
    policyTypes: ['Egress' as const],
    egress,
  })
  await world.policy('x', 'p', out([{ to: toPods, ports: [{ protocol: 'TCP', port: 443 }] }]))
  await becomes('refused,refused')
  await world.clear()
  await world.policy('x', 'p', out([{ to: toPods, ports: [{ protocol: 'TCP', port: 8080 }] }]))
  await becomes('open,open')
  await world.clear()
  const blocks = addresses.map((address) => ({ ipBlock: { cidr: `${address}/${address.includes(':') ? 128 : 32}` } }))
  await world.policy('x', 'p', out([{ to: blocks }]))
  await becomes('refused,refused')
  await world.client.delete(services, { namespace: 'y', name: 'web' })
})

test.serial(
  'P5: what comes by a node port is judged at the pod’s port, by the client’s address where that is kept',
  async (t) => {
    const made = await world.client.get(pods, { namespace: 'x', name: 'a' })
    const node = world.cluster.layout.nodes.find(({ name }) => name === made.spec.nodeName)
    const service = await world.client.create(services, {
      metadata: { namespace: 'x', name: 'np' },
      spec: {
        type: 'NodePort',
        externalTrafficPolicy: 'Local',
        selector: { pod: 'a' },
        ports: [{ port: 443, targetPort: 8080 }],
      },
    })
    const port = service.spec.ports?.[0]?.nodePort ?? 0
    const becomes = (wanted: string) =>
      t.notThrowsAsync(
        eventually(async () => {
          const [answer] = await world.outside.ask([
            { protocol: 'tcp', address: addressOf(node?.addresses[0] ?? ''), port },
          ])
          if (answer !== wanted) throw new Error(`${answer}, not ${wanted}`)
        }),
      )
    await becomes('open')
    const from = (cidr: string, at: number) => ({
      podSelector: { matchLabels: { pod: 'a' } },
      ingress: [{ from: [{ ipBlock: { cidr } }], ports: [{ protocol: 'TCP' as const, port: at }] }],
    })
    const client = addressOf(world.cluster.layout.fabric.addresses[0] ?? '')
    await world.policy('x', 'p', from(`${client}/32`, 443))
    await becomes('refused')
    await world.clear()
    await world.policy('x', 'p', from(`${client}/32`, 8080))
    await becomes('open')
    await world.clear()
    await world.policy('x', 'p', from('192.0.2.0/24', 8080))
    await becomes('refused')
    await world.client.delete(services, { namespace: 'x', name: 'np' })
  },
)

test.serial(
  'P26: what comes by another node than the pod’s has that node’s address, and is judged by it',
  async (t) => {
    const made = await world.client.get(pods, { namespace: 'x', name: 'a' })
    const node = world.cluster.layout.nodes.find(({ name }) => name !== made.spec.nodeName)
    const through = addressOf(node?.addresses[0] ?? '')
    const service = await world.client.create(services, {
      metadata: { namespace: 'x', name: 'np' },
      spec: { type: 'NodePort', selector: { pod: 'a' }, ports: [{ port: 443, targetPort: 8080 }] },
    })
    const port = service.spec.ports?.[0]?.nodePort ?? 0
    const becomes = (wanted: string) =>
      t.notThrowsAsync(
        eventually(async () => {
          const [answer] = await world.outside.ask([{ protocol: 'tcp', address: through, port }])
          if (answer !== wanted) throw new Error(`${answer}, not ${wanted}`)
        }),
      )
    const from = (cidr: string) => ({
      podSelector: { matchLabels: { pod: 'a' } },
      ingress: [{ from: [{ ipBlock: { cidr } }], ports: [{ protocol: 'TCP' as const, port: 8080 }] }],
    })
    await becomes('open')
    await world.policy('x', 'p', from(`${addressOf(world.cluster.layout.fabric.addresses[0] ?? '')}/32`))
    await becomes('refused')
    await world.clear()
    await world.policy('x', 'p', from(`${through}/32`))
    await becomes('open')
    await world.client.delete(services, { namespace: 'x', name: 'np' })
  },
)

test.serial(
  'the resolver on each node is a pod of kube-dns to policies, by its own address and by the Service’s',
  async (t) => {
    const dns = await world.client.get(services, { namespace: 'kube-system', name: 'kube-dns' })
    const addresses = ['169.254.20.10', 'fd00:169:254:20::10', ...(dns.spec.clusterIPs ?? [])]
    const becomes = (wanted: string, other: string) =>
      t.notThrowsAsync(
        eventually(async () => {
          const answers = await world
            .prober('x/a')
            .ask([
              ...addresses.map((address) => ({ protocol: 'tcp' as const, address, port: 53 })),
              { protocol: 'tcp', address: world.addressOf('y/b', 4), port: 80 },
            ])
          const expected = [...addresses.map(() => wanted), other].join()
          if (answers.join() !== expected) throw new Error(`${answers}, not ${expected}`)
        }),
      )
    await becomes('open', 'open')
    const out = { podSelector: { matchLabels: { pod: 'a' } }, policyTypes: ['Egress' as const] }
    await world.policy('x', 'deny', out)
    await becomes('refused', 'refused')
    await world.policy('x', 'dns', {
      ...out,
      egress: [
        {
          to: [
            {
              namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'kube-system' } },
              podSelector: { matchLabels: { 'k8s-app': 'kube-dns' } },
            },
          ],
          ports: [{ protocol: 'TCP', port: 53 }],
        },
      ],
    })
    await becomes('open', 'refused')
  },
)

test.serial('P18: a rule for ports lets no echo in, a rule without ports does', async (t) => {
  /** Waits long where an answer has to come: silence is what the other case is about. */
  const ping = (family: 4 | 6, seconds: number): boolean => {
    const address = world.addressOf('x/a', family)
    const command = ['ping', '-c', '1', '-W', String(seconds), address]
    return world.cluster.try(['-n', 'y', 'exec', 'b', '--', ...command]).code === 0
  }
  const from = { podSelector: { matchLabels: { pod: 'a' } }, policyTypes: ['Ingress' as const] }
  const peers = [{ namespaceSelector: { matchLabels: { ns: 'y' } } }]
  await world.policy('x', 'p', { ...from, ingress: [{ from: peers, ports: [{ protocol: 'TCP' }] }] })
  await world.settle({
    allowed: ({ from, to, protocol }) => to !== 'x/a' || (from.startsWith('y/') && protocol === 'tcp'),
  })
  t.deepEqual([ping(4, 1), ping(6, 1)], [false, false])
  await world.clear()
  await world.policy('x', 'p', { ...from, ingress: [{ from: peers }] })
  await world.settle({ allowed: ({ from, to }) => to !== 'x/a' || from.startsWith('y/') })
  t.deepEqual([ping(4, 10), ping(6, 10)], [true, true])
})

test.serial('a namespace’s labels change what policies say of its pods', async (t) => {
  await world.policy('x', 'in', {
    podSelector: {},
    policyTypes: ['Ingress'],
    ingress: [{ from: [{ namespaceSelector: { matchLabels: { door: 'open' } } }] }],
  })
  t.deepEqual(await world.settle({ allowed: ({ to }) => !to.startsWith('x/') }), [])
  await world.client.patch(namespaces, { name: 'z' }, 'merge', { metadata: { labels: { door: 'open' } } })
  t.deepEqual(await world.settle({ allowed: ({ from, to }) => !to.startsWith('x/') || from.startsWith('z/') }), [])
  await world.client.patch(namespaces, { name: 'z' }, 'merge', { metadata: { labels: { door: null } } })
  t.deepEqual(await world.settle({ allowed: ({ to }) => !to.startsWith('x/') }), [])
})

test.serial('P2: a policy cuts the connections that it no longer allows, at both ends', async (t) => {
  t.deepEqual(await world.settle({ allowed: () => true }), [])
  for (const family of [4, 6] as const) {
    // One of the two is on the pod's node, the other is not.
    for (const from of ['y/a', 'y/b']) {
      const server = world.prober('x/a')
      const question = { protocol: 'hold', address: world.addressOf('x/a', family), port: 80 } as const
      const held = world.prober(from).ask([question], 1_000)
      t.deepEqual(await held, ['held'], `${from} over IPv${family}, undisturbed`)
      const cut = world.prober(from).ask([question], 5_000)
      const before = await server.heard()
      await eventually(async () => (await server.heard()).heard > before.heard)
      await world.policy('x', 'deny', deny)
      t.deepEqual(await cut, ['cut'], `${from} over IPv${family}`)
      await t.notThrowsAsync(
        eventually(async () => (await server.heard()).resets > before.resets),
        'the server is told',
      )
      await world.clear()
      t.deepEqual(await world.settle({ allowed: () => true }), [])
    }
  }
})

test.serial('a policy is in force within milliseconds of the call that makes it', async (t) => {
  t.deepEqual(await world.settle({ allowed: () => true }), [])
  const question = [{ protocol: 'tcp', address: world.addressOf('x/a', 4), port: 80 }] as const
  const took: number[] = []
  for (let i = 0; i < 20; i++) {
    const start = performance.now()
    const created = world.policy('x', 'deny', deny)
    // One that had just opened when the policy came is cut; one that was half open is refused at once, like those after it.
    let [answer] = await world.prober('y/b').ask(question, lostAfterMs)
    while (answer === 'open' || answer === 'cut') [answer] = await world.prober('y/b').ask(question, lostAfterMs)
    took.push(performance.now() - start)
    t.is(answer, 'refused')
    await created
    await world.client.delete(networkPolicies, { namespace: 'x', name: 'deny' })
    await eventually(async () => {
      const [again] = await world.prober('y/b').ask(question)
      if (again !== 'open') throw new Error(`still ${again}`)
    })
  }
  took.sort((a, b) => a - b)
  t.log(`from the call to the first refusal: median ${took[10]?.toFixed(1)} ms, worst ${took.at(-1)?.toFixed(1)} ms`)
  // The figure to reach is 30 ms at the 99th percentile on an idle machine (npm run bench); this is for what hangs.
  t.true((took[10] ?? Infinity) < 250, `median ${took[10]} ms`)
})

test.serial(
  'P21: a policy that cannot be compiled closes nothing that was open by its last good state, and says which field',
  async (t) => {
    await world.policy('x', 'grows', {
      podSelector: { matchLabels: { pod: 'a' } },
      ingress: [{ from: [{ podSelector: {} }] }],
    })
    const allowed = { allowed: ({ from, to }: { from: string; to: string }) => to !== 'x/a' || from.startsWith('x/') }
    t.deepEqual(await world.settle(allowed), [])
    const names = Array.from({ length: 600 }, (_, i) => ({
      protocol: 'TCP' as const,
      port: i * 100 + 1,
      endPort: i * 100 + 98,
    }))
    const from = Array.from({ length: 30 }, (_, i) => ({ podSelector: { matchLabels: { pod: `p${i}` } } }))
    await world.client.patch(networkPolicies, { namespace: 'x', name: 'grows' }, 'merge', {
      spec: { ingress: [{ from, ports: names }] },
    })
    const said = await eventually(async () => {
      const { items } = await world.client.list(events, { namespace: 'x' })
      const found = items.find((event) => event.reason === 'PolicyRefused')
      if (found === undefined) throw new Error('no event yet')
      return found
    })
    t.is(said.involvedObject.name, 'grows')
    t.regex(said.message ?? '', /spec\.ingress\[0\].*entries.*last good state/)
    t.deepEqual(await world.settle(allowed), [])
  },
)

test.serial(
  'identities are the same after a restart of everything, and nothing is open or closed meanwhile that was not',
  async (t) => {
    t.timeout(120_000)
    await world.policy('x', 'in', {
      podSelector: {},
      policyTypes: ['Ingress'],
      ingress: [{ from: [{ podSelector: {} }] }],
    })
    const wanted = {
      allowed: ({ from, to }: { from: string; to: string }) => !to.startsWith('x/') || from.startsWith('x/'),
    }
    t.deepEqual(await world.settle(wanted), [])
    const numbers = async () =>
      (await world.client.list(pods)).items
        .filter((pod) => everyone.includes(nameOf(pod)))
        .map((pod) => `${nameOf(pod)} ${pod.metadata.annotations?.['weft.dev/identity']}`)
        .toSorted()
    const before = await numbers()
    const wrong: string[] = []
    let going = true
    const asking = ['x/b', 'y/b', 'z/c'].map(async (name) => {
      const question = [{ protocol: 'udp', address: world.addressOf('x/a', 4), port: 80 }] as const
      while (going) {
        const [answer] = await world.prober(name).ask(question, lostAfterMs)
        if ((answer === 'open') !== name.startsWith('x/')) wrong.push(`${name}: ${answer}`)
      }
    })
    const killed = await Promise.all(['server', 'node-1/agent', 'node-2/agent'].map((name) => world.cluster.kill(name)))
    t.false(killed.includes(undefined), 'all of them ran')
    world.cluster.weftUp()
    t.deepEqual(await eventually(numbers), before)
    t.deepEqual(await world.settle(wanted, 20_000), [])
    going = false
    await Promise.all(asking)
    t.deepEqual(wrong, [])
  },
)
