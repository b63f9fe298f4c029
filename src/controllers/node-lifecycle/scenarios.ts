import { strict as assert } from 'node:assert'
import { leases, nodes, pods } from '#api/gen/resources.ts'
import { findCondition, isConditionTrue } from '#api/meta/conditions.ts'
import { isStatus } from '#api/meta/status.ts'
import { formatMicroTime, formatTime } from '#api/meta/time.ts'
import { type Loop, scenario, template, type World } from '../workload/scenario.ts'
import { nodeLifecycleController } from './node-lifecycle.ts'
import { taintEvictionController } from './taint-eviction.ts'

const lifecycle: Loop = { account: 'node-controller', create: nodeLifecycleController() }
const eviction: Loop = { account: 'node-controller', create: taintEvictionController }

const beat = async ({ client, clock }: World, name: string): Promise<void> => {
  const at = formatTime(clock.now())
  const conditions = ['Ready', 'MemoryPressure', 'DiskPressure', 'PIDPressure'].map((type) => ({
    type,
    status: type === 'Ready' ? 'True' : 'False',
    reason: 'Reported',
    message: '',
    lastHeartbeatTime: at,
    lastTransitionTime: at,
  }))
  await client.patch(nodes, { name }, 'merge', { status: { conditions } }, { subresource: 'status' })
}

/** Nodes that report, in a zone of their own, and are taken away afterwards. */
async function withNodes(world: World, count: number, body: (names: string[]) => Promise<void>): Promise<void> {
  const { client, namespace } = world
  const names = Array.from({ length: count }, (_, i) => `${namespace}-${i}`)
  const labels = { 'topology.kubernetes.io/zone': namespace }
  try {
    for (const [i, name] of names.entries()) {
      const podCIDR = `10.251.${i}.0/24`
      await client.create(nodes, { metadata: { name, labels }, spec: { podCIDR, podCIDRs: [podCIDR] } })
      await beat(world, name)
    }
    await body(names)
  } finally {
    for (const name of names) await client.delete(nodes, { name })
  }
}

const taintsOf = async ({ client }: World, name: string): Promise<string[]> =>
  ((await client.get(nodes, { name })).spec.taints ?? []).map((t) => `${t.key}:${t.effect}`).toSorted()

/** What happens to nodes that fall silent, and to their pods, seen through the API. */
export const nodeLifecycleScenarios = [
  scenario(
    'a silent node becomes unknown, is tainted, and its pods are no longer ready; a sign of life mends it',
    [lifecycle],
    async (world) => {
      await withNodes(world, 3, async ([silent = '', ...others]) => {
        const { client, clock, until } = world
        await world.create(pods, { metadata: { name: 'p' }, spec: { ...template('p').spec, nodeName: silent } })
        const ready = { type: 'Ready', status: 'True', lastTransitionTime: formatTime(clock.now()) }
        await world.patch(pods, 'p', { status: { phase: 'Running', conditions: [ready] } }, 'status')
        // A renewed lease is a sign of life as good as a status.
        const key = { namespace: 'kube-node-lease', name: silent }
        const renewTime = formatMicroTime(clock.now())
        await client.create(leases, { metadata: key, spec: { holderIdentity: silent, renewTime } })
        await until(async () => {
          clock.advance(5_000)
          for (const other of others) await beat(world, other)
          const conditions = (await client.get(nodes, { name: silent })).status.conditions
          const lost = findCondition(conditions, 'Ready')
          assert.equal(lost?.status, 'Unknown')
          assert.equal(lost?.reason, 'NodeStatusUnknown')
          assert.equal(findCondition(conditions, 'DiskPressure')?.status, 'Unknown')
          assert.deepEqual(await taintsOf(world, silent), [
            'node.kubernetes.io/unreachable:NoExecute',
            'node.kubernetes.io/unreachable:NoSchedule',
          ])
          assert.ok(!isConditionTrue((await world.get(pods, 'p')).status.conditions, 'Ready'))
        })
        for (const other of others) assert.deepEqual(await taintsOf(world, other), [])
        await beat(world, silent)
        await until(async () => assert.deepEqual(await taintsOf(world, silent), []))
        await client.delete(leases, key)
      })
    },
  ),
  scenario('a node that is cordoned has the taint, and loses it again', [lifecycle], async (world) => {
    await withNodes(world, 1, async ([name = '']) => {
      await world.client.patch(nodes, { name }, 'merge', { spec: { unschedulable: true } })
      const taint = ['node.kubernetes.io/unschedulable:NoSchedule']
      await world.until(async () => assert.deepEqual(await taintsOf(world, name), taint))
      await world.client.patch(nodes, { name }, 'merge', { spec: { unschedulable: null } })
      await world.until(async () => assert.deepEqual(await taintsOf(world, name), []))
    })
  }),
  scenario(
    'a NoExecute taint takes pods away at once, after their tolerationSeconds, or never',
    [eviction],
    async (world) => {
      await withNodes(world, 1, async ([name = '']) => {
        const { client, clock, until } = world
        const { spec } = template('p')
        const bears = { key: 'k', operator: 'Exists' as const, effect: 'NoExecute' as const }
        await world.create(pods, { metadata: { name: 'at-once' }, spec: { ...spec, nodeName: name } })
        await world.create(pods, {
          metadata: { name: 'later' },
          spec: { ...spec, nodeName: name, tolerations: [{ ...bears, tolerationSeconds: 600 }] },
        })
        await world.create(pods, {
          metadata: { name: 'never' },
          spec: { ...spec, nodeName: name, tolerations: [bears] },
        })
        const taint = { key: 'k', effect: 'NoExecute', timeAdded: formatTime(clock.now()) }
        await client.patch(nodes, { name }, 'merge', { spec: { taints: [taint] } })
        /** Told to go, or gone. */
        const going = async (pod: string): Promise<boolean> => {
          try {
            const { metadata, status } = await world.get(pods, pod)
            return metadata.deletionTimestamp !== undefined && isConditionTrue(status.conditions, 'DisruptionTarget')
          } catch (error) {
            return isStatus(error, 'NotFound')
          }
        }
        await until(async () => assert.ok(await going('at-once')))
        assert.ok(!(await going('later')))
        await until(async () => {
          clock.advance(100_000)
          assert.ok(await going('later'))
        })
        assert.ok(!(await going('never')))
      })
    },
  ),
]
