import test from 'ava'
import type { Endpoints, Service } from '#api/gen/core-v1.ts'
import { fakeFactory } from '../workload/scenario.ts'
import { isMirrored, planMirror } from './plan.ts'
import { endpointSliceMirrorScenarios } from './scenarios.ts'

const endpoints = (labels: Record<string, string> = {}, addresses = 1): Endpoints => ({
  apiVersion: 'v1',
  kind: 'Endpoints',
  metadata: { name: 'web', namespace: 'a', uid: 'e', resourceVersion: '1', creationTimestamp: '', labels },
  subsets: [
    {
      addresses: Array.from({ length: addresses }, (_, i) => ({ ip: `192.0.${i >> 8}.${i & 255}` })),
      ports: [{ port: 80 }],
    },
  ],
})

const service = (selector?: Record<string, string>): Service =>
  ({ spec: selector === undefined ? {} : { selector } }) as unknown as Service

test('isMirrored() leaves alone what has a selector, no Service, or asks for it', (t) => {
  t.true(isMirrored(endpoints(), service()))
  t.false(isMirrored(endpoints(), service({ app: 'web' })))
  t.false(isMirrored(endpoints(), undefined))
  t.false(isMirrored(endpoints({ 'endpointslice.kubernetes.io/skip-mirror': 'true' }), service()))
})

test('planMirror() packs as any slices are packed, 1000 addresses of a subset at most', (t) => {
  const made = planMirror(endpoints({}, 1234), [])
  t.deepEqual(
    made.map((action) => (action.do === 'create' ? action.slice.endpoints?.length : action.do)),
    Array<number>(10).fill(100),
  )
})

for (const { name, run } of endpointSliceMirrorScenarios) {
  test(name, async (t) => {
    await t.notThrowsAsync(run(fakeFactory()))
  })
}
