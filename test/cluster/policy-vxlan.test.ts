import test from 'ava'
import { pods } from '#api/gen/resources.ts'
import { eventually } from '#base/async/eventually.ts'
import { casesOf } from './policy-cases.ts'
import { asks, PolicyWorld, table } from './policy-world.ts'

/** Policies where packets between nodes are wrapped, and the sender's identity comes with them. A sample of the matrix. */
const every = 6
/** A datagram that is lost is never answered; one whose receiver waits for a busy machine's processor is. */
const lostAfterMs = 3_000
let world: PolicyWorld

test.before(async () => {
  world = await PolicyWorld.up('t-polvx', ['--tunnel', 'vxlan'])
})
test.after.always(() => world?.down())
test.afterEach.always(() => world?.clear())

test.serial('every sixth case of the matrix, through the tunnel', async (t) => {
  t.timeout(120_000)
  const cases = casesOf((name, family) => world.addressOf(name, family)).filter((_, i) => i % every === 0)
  const failures: string[] = []
  for (const each of cases) {
    for (const [i, { namespace, spec }] of each.policies.entries()) await world.policy(namespace, `case-${i}`, spec)
    const wrong = await world.settle(each, failures.length > 3 ? 500 : 15_000)
    if (wrong.length > 0)
      failures.push(`${each.title}: ${wrong.length} of ${asks.length} answers differ\n${table(wrong)}`)
    await world.clear()
  }
  t.is(failures.length, 0, `${failures.length} of ${cases.length} cases:\n${failures.slice(0, 5).join('\n\n')}`)
})

test.serial('P13: a label change loses no packet, though its number is in the packets of the other node', async (t) => {
  await world.policy('x', 'in', {
    podSelector: { matchLabels: { pod: 'a' } },
    policyTypes: ['Ingress'],
    ingress: [{ from: [{ podSelector: { matchExpressions: [{ key: 'pod', operator: 'In', values: ['b', 'c'] }] } }] }],
  })
  await world.settle({ allowed: ({ from, to }) => to !== 'x/a' || from === 'x/b' || from === 'x/c' })
  const lost: string[] = []
  let asked = 0
  let going = true
  const asking = (async () => {
    const question = { protocol: 'tcp', address: world.addressOf('x/a', 4), port: 80 } as const
    while (going) {
      const answers = await world
        .prober('x/b')
        .ask([question, { ...question, address: world.addressOf('x/a', 6) }], lostAfterMs)
      asked += answers.length
      for (const answer of answers) if (answer !== 'open') lost.push(answer)
    }
  })()
  for (let i = 0; i < 20; i++) {
    const labels = { pod: i % 2 === 0 ? 'c' : 'b' }
    await world.client.patch(pods, { namespace: 'x', name: 'b' }, 'merge', { metadata: { labels } })
  }
  // Until the last number is on the wire.
  const end = performance.now() + 1_000
  while (performance.now() < end)
    await world.prober('x/c').ask([{ protocol: 'tcp', address: world.addressOf('x/a', 4), port: 80 }])
  await eventually(() => asked > 100)
  going = false
  await asking
  t.deepEqual(lost, [], `${lost.length} of ${asked}`)
  t.true(asked > 100, `${asked} connections`)
})

test.serial('a node hears that the other node’s pod does not take it', async (t) => {
  await world.policy('x', 'none', { podSelector: {}, policyTypes: ['Ingress'] })
  await world.settle({ allowed: ({ to }) => !to.startsWith('x/') })
  const [host] = world.hosts
  const question = (family: 4 | 6) => ({ protocol: 'tcp', address: world.addressOf('x/b', family), port: 80 }) as const
  t.deepEqual(await host?.ask([question(4), question(6)]), ['refused', 'refused'])
})
