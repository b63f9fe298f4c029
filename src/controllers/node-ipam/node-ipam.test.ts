import test from 'ava'
import fc from 'fast-check'
import type { Node } from '#api/gen/core-v1.ts'
import { fakeFactory } from '../workload/scenario.ts'
import { parseNodeRange, planPodCidrs } from './plan.ts'
import { nodeIpamScenarios } from './scenarios.ts'

const ranges = [parseNodeRange('10.244.0.0/16', 24), parseNodeRange('fd00:10:244::/56', 64)]
const node = (name: string, ...podCIDRs: string[]) =>
  ({ metadata: { name }, spec: podCIDRs.length > 0 ? { podCIDRs, podCIDR: podCIDRs[0] } : {} }) as Node

test('planPodCidrs() gives the lowest networks that are free', (t) => {
  t.deepEqual(planPodCidrs(node('a'), [], ranges), {
    do: 'assign',
    podCidrs: ['10.244.0.0/24', 'fd00:10:244::/64'],
  })
  const others = [node('b', '10.244.0.0/24', 'fd00:10:244::/64'), node('c', '10.244.2.0/24', 'fd00:10:244:2::/64')]
  t.deepEqual(planPodCidrs(node('a'), others, ranges), {
    do: 'assign',
    podCidrs: ['10.244.1.0/24', 'fd00:10:244:1::/64'],
  })
})

test('planPodCidrs() steps around a network of another size, and leaves nodes alone that have theirs', (t) => {
  const big = node('b', '10.244.0.0/22')
  t.like(planPodCidrs(node('a'), [big], ranges), { podCidrs: ['10.244.4.0/24', 'fd00:10:244::/64'] })
  t.deepEqual(planPodCidrs(node('a', '192.0.2.0/24'), [], ranges), { do: 'nothing' })
})

test('planPodCidrs() says which range is full', (t) => {
  const small = [parseNodeRange('10.0.0.0/24', 25)]
  const others = [node('b', '10.0.0.0/25'), node('c', '10.0.0.128/25')]
  t.deepEqual(planPodCidrs(node('a'), others, small), { do: 'exhausted', range: '10.0.0.0/24' })
})

test('planPodCidrs() never gives two nodes the same, whoever comes and goes', (t) => {
  const range = [parseNodeRange('10.0.0.0/24', 28)]
  fc.assert(
    fc.property(fc.array(fc.nat(20), { maxLength: 60 }), (steps) => {
      const present = new Map<number, Node>()
      for (const id of steps) {
        if (present.delete(id)) continue
        const action = planPodCidrs(node(`n${id}`), [...present.values()], range)
        if (action.do === 'assign') present.set(id, node(`n${id}`, ...action.podCidrs))
        else if (present.size < 16) return false
      }
      const all = [...present.values()].flatMap((n) => n.spec.podCIDRs ?? [])
      return new Set(all).size === all.length
    }),
  )
  t.pass()
})

test('parseNodeRange() refuses what cannot be cut', (t) => {
  t.throws(() => parseNodeRange('10.0.0.0', 24), { message: /not a CIDR/ })
  t.throws(() => parseNodeRange('10.0.0.0/16', 8), { message: /Cannot cut/ })
  t.throws(() => parseNodeRange('fd00::/32', 64), { message: /Cannot cut/ })
})

for (const { name, run } of nodeIpamScenarios)
  test(name, async (t) => {
    await t.notThrowsAsync(run(fakeFactory()))
  })
