import test from 'ava'
import { daemonSetScenarios } from '#controllers/daemon-set/scenarios.ts'
import { deploymentScenarios } from '#controllers/deployment/scenarios.ts'
import { endpointScenarios } from '#controllers/endpoint-slice/scenarios.ts'
import { replicaSetScenarios } from '#controllers/replica-set/scenarios.ts'
import { startApi } from './server.ts'

/** The workload controllers' scenarios, against the real API server, each loop under its own service account. */
const api = await startApi()
test.after.always(() => api[Symbol.asyncDispose]())

const ways = {
  direct: async (user?: string) => api.direct(user),
  http: async (user?: string) => api.http(user),
}
const scenarios = [...replicaSetScenarios, ...deploymentScenarios, ...daemonSetScenarios, ...endpointScenarios]
for (const [way, factory] of Object.entries(ways))
  for (const { name, run } of scenarios)
    test.serial(`${way}: ${name}`, async (t) => {
      await t.notThrowsAsync(run(factory))
    })
