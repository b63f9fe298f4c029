import { strict as assert } from 'node:assert'
import type { DaemonSet } from '#api/gen/apps-v1.ts'
import type { Node } from '#api/gen/core-v1.ts'
import { controllerRevisions, daemonSets, events, nodes, pods } from '#api/gen/resources.ts'
import type { Draft } from '#client/client.ts'
import { readyPods, type Scenario, scenario, template, type World } from '../workload/scenario.ts'
import { daemonSetController } from './daemon-set.ts'
import { targetOf } from './nodes.ts'

const daemonSetLoop = { account: 'daemon-set-controller', create: daemonSetController }

const daemon = (extra: Partial<DaemonSet['spec']> = {}): Draft<DaemonSet> => ({
  metadata: { name: 'agent' },
  spec: {
    selector: { matchLabels: { app: 'agent' } },
    template: template('agent'),
    updateStrategy: { type: 'RollingUpdate', rollingUpdate: { maxUnavailable: 1, maxSurge: 0 } },
    revisionHistoryLimit: 10,
    ...extra,
  },
})

/** Nodes outlive namespaces, so each scenario has its own, told by a label. */
async function addNodes(world: World, names: readonly string[]): Promise<string[]> {
  const made = names.map((name) => `${name}.${world.namespace}`)
  for (const name of made) {
    await world.client.create(nodes, { metadata: { name, labels: { of: world.namespace } } })
    // A server marks new nodes as not ready; nobody is there to take it back.
    await world.client.patch(nodes, { name }, 'merge', { spec: { taints: null } })
  }
  return made
}

const here = (world: World, version?: string) => {
  const base = template('agent', version)
  return { ...base, spec: { ...base.spec, nodeSelector: { of: world.namespace } } }
}

/** Every node by name, with the image that runs there. */
const placed = async ({ list }: World): Promise<Record<string, string>> =>
  Object.fromEntries(
    (await list(pods))
      .filter((p) => p.metadata.deletionTimestamp === undefined && p.status.phase !== 'Failed')
      .map((p) => [targetOf(p) ?? '', p.spec.containers[0]?.image?.split(':')[1] ?? '']),
  )

const settled = (world: World, wanted: Readonly<Record<string, string>>): Promise<DaemonSet> =>
  world.until(async () => {
    assert.deepEqual(await placed(world), wanted)
    const set = await world.get(daemonSets, 'agent')
    const count = Object.keys(wanted).length
    assert.equal(set.status.observedGeneration, set.metadata.generation)
    assert.equal(set.status.desiredNumberScheduled, count)
    assert.equal(set.status.numberAvailable ?? 0, count)
    assert.equal(set.status.updatedNumberScheduled ?? 0, count)
    assert.equal(set.status.numberUnavailable ?? 0, 0)
    return set
  })

const all = (names: readonly string[], version: string): Record<string, string> =>
  Object.fromEntries(names.map((name) => [name, version]))

function daemonScenario(
  name: string,
  body: (world: World, names: string[]) => Promise<void>,
  nodeNames: readonly string[] = ['n1', 'n2', 'n3'],
): Scenario {
  return scenario(name, [daemonSetLoop, readyPods()], async (world) => {
    const names = await addNodes(world, nodeNames)
    try {
      await body(world, names)
    } finally {
      for (const { metadata } of (await world.client.list(nodes, { labelSelector: `of=${world.namespace}` })).items)
        await world.client.delete(nodes, { name: metadata.name })
    }
  })
}

/** What a DaemonSet does, seen through the API. */
export const daemonSetScenarios = [
  daemonScenario('a DaemonSet has a pod on every node that it is for, and follows the nodes', async (world, names) => {
    await world.create(daemonSets, daemon({ template: here(world) }))
    await settled(world, all(names, '1'))
    const [pod] = await world.list(pods)
    assert.ok(pod?.metadata.labels?.['controller-revision-hash'])
    assert.ok(pod.spec.tolerations?.some((t) => t.key === 'node.kubernetes.io/not-ready' && t.effect === 'NoExecute'))
    const [added = ''] = await addNodes(world, ['n4'])
    await settled(world, all([...names, added], '1'))
    const [first = ''] = names
    const patch: { spec: Partial<Node['spec']> } = { spec: { taints: [{ key: 'k', effect: 'NoExecute' }] } }
    await world.client.patch(nodes, { name: first }, 'merge', patch)
    await settled(world, all([...names.slice(1), added], '1'))
  }),
  daemonScenario('a new template is rolled out one node at a time, and can be undone', async (world, names) => {
    await world.create(daemonSets, daemon({ template: here(world) }))
    await settled(world, all(names, '1'))
    await world.patch(daemonSets, 'agent', { spec: { template: here(world, '2') } })
    await settled(world, all(names, '2'))
    const [old, current] = (await world.list(controllerRevisions)).toSorted((a, b) => a.revision - b.revision)
    assert.deepEqual([old?.revision, current?.revision], [1, 2])
    const data = old?.data as { spec: { template: { $patch: string; spec: DaemonSet['spec']['template']['spec'] } } }
    assert.equal(data.spec.template.$patch, 'replace')
    const { $patch: _, ...template } = data.spec.template
    const kept = (await world.list(pods)).map((p) => p.metadata.uid)
    await world.client.patch(daemonSets, { namespace: world.namespace, name: 'agent' }, 'json', [
      { op: 'replace', path: '/spec/template', value: template },
    ])
    await settled(world, all(names, '1'))
    assert.ok((await world.list(pods)).every((p) => !kept.includes(p.metadata.uid)))
    await world.until(async () => {
      const revisions = (await world.list(controllerRevisions)).map((r) => r.revision)
      assert.deepEqual(revisions.toSorted(), [2, 3])
    })
  }),
  daemonScenario('with OnDelete the new template waits for each pod to go', async (world, names) => {
    await world.create(daemonSets, daemon({ template: here(world), updateStrategy: { type: 'OnDelete' } }))
    await settled(world, all(names, '1'))
    await world.patch(daemonSets, 'agent', { spec: { template: here(world, '2') } })
    await world.until(async () => {
      const { status, metadata } = await world.get(daemonSets, 'agent')
      assert.equal(status.observedGeneration, metadata.generation)
      assert.equal(status.updatedNumberScheduled ?? 0, 0)
    })
    assert.deepEqual(await placed(world), all(names, '1'))
    const [pod] = await world.list(pods)
    assert.ok(pod)
    await world.client.delete(pods, pod.metadata)
    await world.until(async () => assert.equal((await placed(world))[targetOf(pod) ?? ''], '2'))
  }),
  daemonScenario('with maxSurge the new pod is there before the old one goes', async (world, names) => {
    const updateStrategy = { type: 'RollingUpdate', rollingUpdate: { maxSurge: 1, maxUnavailable: 0 } } as const
    await world.create(daemonSets, daemon({ template: here(world), updateStrategy }))
    await settled(world, all(names, '1'))
    await world.patch(daemonSets, 'agent', { spec: { template: here(world, '2') } })
    await settled(world, all(names, '2'))
  }),
  daemonScenario(
    'a daemon that failed is replaced, at once and then after a pause',
    async (world, names) => {
      await world.create(daemonSets, daemon({ template: here(world) }))
      await settled(world, all(names, '1'))
      const fail = async (): Promise<string> => {
        const pod = await world.until(async () => {
          const [running] = (await world.list(pods)).filter((p) => p.status.phase === 'Running')
          assert.ok(running)
          return running
        })
        await world.patch(pods, pod.metadata.name, { status: { phase: 'Failed' } }, 'status')
        return pod.metadata.uid
      }
      await fail()
      await settled(world, all(names, '1'))
      const held = await fail()
      await world.until(async () => assert.equal((await world.get(daemonSets, 'agent')).status.observedGeneration, 1))
      assert.equal((await world.list(pods))[0]?.metadata.uid, held)
      await world.until(async () => {
        world.clock.advance(200)
        assert.notEqual((await world.list(pods))[0]?.metadata.uid, held)
      })
      await world.until(async () => {
        const note = (await world.list(events)).find((e) => e.reason === 'FailedDaemonPod')
        assert.match(note?.message ?? '', /^Found failed daemon pod .* on node n1\..*, will try to kill it$/)
      })
    },
    ['n1'],
  ),
]
