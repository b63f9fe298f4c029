import { strict as assert } from 'node:assert'
import test from 'ava'
import { events, nodes, pods, replicaSets } from '#api/gen/resources.ts'
import { replicaSetController } from '#controllers/replica-set/replica-set.ts'
import { type Loop, scenario, template } from '#controllers/workload/scenario.ts'
import { scheduler } from '#scheduler/scheduler.ts'
import { startApi } from './server.ts'

/** The scheduler against the real API server, under its own identity: binding, addresses, the words of a refusal. */
const api = await startApi()
test.after.always(() => api[Symbol.asyncDispose]())

const ways = {
  direct: async (user?: string) => api.direct(user),
  http: async (user?: string) => api.http(user),
}
const placing: readonly Loop[] = [
  { account: 'replicaset-controller', create: replicaSetController },
  { account: 'system:kube-scheduler', create: (context) => scheduler(context) },
]
const schedulerScenarios = [
  scenario(
    'pods are spread over the nodes that take them, and have their addresses when they are bound',
    placing,
    async (world) => {
      const names = ['n1', 'n2', 'n3'].map((name) => `${name}.${world.namespace}`)
      for (const [i, name] of names.entries()) {
        const podCIDR = `10.244.${100 + i}.0/24`
        await world.client.create(nodes, {
          metadata: { name, labels: { of: world.namespace } },
          spec: { podCIDR, podCIDRs: [podCIDR] },
        })
        await world.client.patch(
          nodes,
          { name },
          'merge',
          { status: { allocatable: { cpu: '4', memory: '4Gi', pods: '3' } } },
          { subresource: 'status' },
        )
      }
      const [first = '', second = ''] = names
      for (const name of [first, second]) await world.client.patch(nodes, { name }, 'merge', { spec: { taints: null } })
      try {
        const base = template('web')
        await world.create(replicaSets, {
          metadata: { name: 'web' },
          spec: {
            replicas: 7,
            selector: { matchLabels: { app: 'web' } },
            template: { ...base, spec: { ...base.spec, nodeSelector: { of: world.namespace } } },
          },
        })
        const placed = await world.until(async () => {
          const all = await world.list(pods)
          const bound = all.filter((p) => p.spec.nodeName)
          assert.equal(bound.length, 6)
          const [waiting] = all.filter((p) => !p.spec.nodeName)
          const why = waiting?.status.conditions?.find((c) => c.type === 'PodScheduled')
          assert.equal(why?.reason, 'Unschedulable')
          // Other scenarios' nodes may be there, tainted as new ones are.
          assert.match(why.message ?? '', /^0\/\d nodes are available: /)
          assert.ok(
            why.message?.includes('2 Too many pods') && why.message.includes('node(s) had untolerated taint(s)'),
          )
          return bound
        })
        for (const name of [first, second]) assert.equal(placed.filter((p) => p.spec.nodeName === name).length, 3)
        for (const pod of placed)
          assert.match(pod.metadata.annotations?.['weft.dev/pod-ips'] ?? '', /^10\.244\.10[01]\.\d+/)
        await world.until(async () => {
          const reasons = (await world.list(events))
            .filter((e) => e.source.component === 'default-scheduler')
            .map((e) => e.reason)
          assert.equal(reasons.filter((r) => r === 'Scheduled').length, 6)
          assert.ok(reasons.includes('FailedScheduling'))
        })
      } finally {
        for (const name of names) await world.client.delete(nodes, { name })
      }
    },
  ),
]
for (const [way, factory] of Object.entries(ways))
  for (const { name, run } of schedulerScenarios)
    test.serial(`${way}: ${name}`, async (t) => {
      await t.notThrowsAsync(run(factory))
    })
