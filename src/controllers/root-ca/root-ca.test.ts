import test from 'ava'
import type { ConfigMap, Namespace } from '#api/gen/core-v1.ts'
import { fakeFactory } from '../workload/scenario.ts'
import { planRootCa } from './plan.ts'
import { rootCaScenarios } from './scenarios.ts'

const namespace = { metadata: { name: 'a' } } as Namespace
const map = (data: Record<string, string>) => ({ data }) as unknown as ConfigMap

test('planRootCa() repairs a map with another authority or with more than the authority', (t) => {
  const data = { 'ca.crt': 'CA' }
  t.deepEqual(planRootCa(namespace, undefined, 'CA'), { do: 'create', namespace: 'a', data })
  t.deepEqual(planRootCa(namespace, map({ 'ca.crt': 'old' }), 'CA'), { do: 'repair', namespace: 'a', data })
  t.deepEqual(planRootCa(namespace, map({ ...data, x: '' }), 'CA'), { do: 'repair', namespace: 'a', data })
  t.deepEqual(planRootCa(namespace, map(data), 'CA'), { do: 'nothing' })
  t.deepEqual(planRootCa(undefined, map({}), 'CA'), { do: 'nothing' })
})

for (const { name, run } of rootCaScenarios)
  test(name, async (t) => {
    await t.notThrowsAsync(run(fakeFactory()))
  })
