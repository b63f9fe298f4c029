import test from 'ava'
import { daemonSetScenarios } from '#controllers/daemon-set/scenarios.ts'
import { deploymentScenarios } from '#controllers/deployment/scenarios.ts'
import { endpointScenarios } from '#controllers/endpoint-slice/scenarios.ts'
import { endpointSliceMirrorScenarios } from '#controllers/endpoint-slice-mirror/scenarios.ts'
import { garbageCollectorScenarios } from '#controllers/garbage-collector/scenarios.ts'
import { gatewayScenarios } from '#controllers/gateway/scenarios.ts'
import { loadBalancerScenarios } from '#controllers/load-balancer/scenarios.ts'
import { namespaceScenarios } from '#controllers/namespace/scenarios.ts'
import { nodeIpamScenarios } from '#controllers/node-ipam/scenarios.ts'
import { nodeLifecycleScenarios } from '#controllers/node-lifecycle/scenarios.ts'
import { podGcScenarios } from '#controllers/pod-gc/scenarios.ts'
import { replicaSetScenarios } from '#controllers/replica-set/scenarios.ts'
import { rootCaScenarios } from '#controllers/root-ca/scenarios.ts'
import { serviceAccountScenarios } from '#controllers/service-account/scenarios.ts'
import { startApi } from './server.ts'

/** What the controllers do, told once in process and once over HTTP, each way on an API server of its own. */
const scenarios = [
  ...serviceAccountScenarios,
  ...rootCaScenarios,
  ...nodeIpamScenarios,
  ...nodeLifecycleScenarios,
  ...namespaceScenarios,
  ...podGcScenarios,
  ...garbageCollectorScenarios,
  ...replicaSetScenarios,
  ...deploymentScenarios,
  ...daemonSetScenarios,
  ...endpointScenarios,
  ...endpointSliceMirrorScenarios,
  ...loadBalancerScenarios,
  ...gatewayScenarios,
]

const apis = { direct: await startApi(), http: await startApi() }
test.after.always(async () => {
  for (const api of Object.values(apis)) await api[Symbol.asyncDispose]()
})

// One after the other: each has the cluster to itself, as its controllers look at all of it.
for (const way of ['direct', 'http'] as const)
  for (const { name, run } of scenarios)
    test.serial(`${way}: ${name}`, async (t) => {
      await t.notThrowsAsync(run(async (user) => apis[way][way](user)))
    })
