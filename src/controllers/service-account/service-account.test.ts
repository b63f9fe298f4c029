import test from 'ava'
import type { Namespace, ServiceAccount } from '#api/gen/core-v1.ts'
import { fakeFactory } from '../workload/scenario.ts'
import { planServiceAccount } from './plan.ts'
import { serviceAccountScenarios } from './scenarios.ts'

const namespace = (deletionTimestamp?: string) =>
  ({ metadata: { name: 'a', ...(deletionTimestamp ? { deletionTimestamp } : {}) } }) as Namespace

test('planServiceAccount() makes what is missing, and nothing in a namespace that is going', (t) => {
  t.deepEqual(planServiceAccount(namespace(), undefined), { do: 'create-account', namespace: 'a' })
  t.deepEqual(planServiceAccount(namespace(), {} as ServiceAccount), { do: 'nothing' })
  t.deepEqual(planServiceAccount(namespace('2026-01-01T00:00:00Z'), undefined), { do: 'nothing' })
  t.deepEqual(planServiceAccount(undefined, undefined), { do: 'nothing' })
})

for (const { name, run } of serviceAccountScenarios)
  test(name, async (t) => {
    await t.notThrowsAsync(run(fakeFactory()))
  })
