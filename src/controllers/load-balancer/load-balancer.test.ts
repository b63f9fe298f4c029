import test from 'ava'
import type { Service } from '#api/gen/core-v1.ts'
import { fakeFactory } from '../workload/scenario.ts'
import { planAddresses } from './plan.ts'
import { parsePool } from './pool.ts'
import { loadBalancerScenarios } from './scenarios.ts'

const pools = [parsePool('192.0.2.10-192.0.2.11'), parsePool('2001:db8::/126')]
const balancer = (spec: Record<string, unknown>, ...ips: string[]) =>
  ({
    metadata: { name: 'web', namespace: 'shop' },
    spec: { type: 'LoadBalancer', ipFamilies: ['IPv4', 'IPv6'], ...spec },
    status: { loadBalancer: { ingress: ips.map((ip) => ({ ip })) } },
  }) as unknown as Service
const nobody = (): undefined => undefined

test('planAddresses() gives the lowest free address of each family', (t) => {
  const taken = (address: string): string | undefined => (address === '192.0.2.10' ? 'shop/other' : undefined)
  t.deepEqual(planAddresses(balancer({}), taken, pools), {
    do: 'assign',
    addresses: ['192.0.2.11', '2001:db8::'],
    missing: [],
  })
})

test('planAddresses() keeps what a Service has, and gives up what another had before it', (t) => {
  const has = balancer({}, '192.0.2.11', '2001:db8::2')
  t.deepEqual(
    planAddresses(has, () => 'shop/web', pools),
    { do: 'nothing' },
  )
  const elder = (address: string): string => (address === '192.0.2.11' ? 'shop/elder' : 'shop/web')
  t.like(planAddresses(has, elder, [...pools, parsePool('198.51.100.0/30')]), { do: 'assign', missing: ['IPv4'] })
})

test('planAddresses() honours a wanted address, and says why not', (t) => {
  const wants = (loadBalancerIP: string) => balancer({ loadBalancerIP, ipFamilies: ['IPv4'] })
  t.like(planAddresses(wants('192.0.2.11'), nobody, pools), { do: 'assign', addresses: ['192.0.2.11'] })
  t.like(planAddresses(wants('203.0.113.1'), nobody, pools), {
    message: 'spec.loadBalancerIP: the wanted address 203.0.113.1 is in no pool of this cluster',
  })
  t.like(
    planAddresses(wants('192.0.2.11'), () => 'shop/other', pools),
    { message: 'spec.loadBalancerIP: the wanted address 192.0.2.11 belongs to Service shop/other' },
  )
  t.like(planAddresses(wants('nonsense'), nobody, pools), {
    message: 'spec.loadBalancerIP: the wanted address "nonsense" is not an IP address',
  })
})

test('planAddresses() leaves other classes alone and clears what is no load balancer any more', (t) => {
  t.deepEqual(planAddresses(balancer({ loadBalancerClass: 'x/y' }, '192.0.2.10'), nobody, pools), { do: 'nothing' })
  t.like(planAddresses(balancer({ type: 'ClusterIP' }, '192.0.2.10'), nobody, pools), { addresses: [] })
})

test('parsePool() refuses what is no range', (t) => {
  for (const text of ['', '192.0.2.1', '192.0.2.9-192.0.2.1', '192.0.2.1-2001:db8::1'])
    t.throws(() => parsePool(text), { instanceOf: RangeError }, text)
})

for (const { name, run } of loadBalancerScenarios)
  test(name, async (t) => {
    await t.notThrowsAsync(run(fakeFactory()))
  })
