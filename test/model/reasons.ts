/** Why a packet went no further: the names that the project agreed on, with their numbers on the wire between kernel and test. */
export const reasons = {
  forwarded: 0,
  'invalid packet': 1,
  'unsupported protocol': 2,
  'invalid source': 3,
  multicast: 4,
  'no service': 5,
  'write failed': 6,
  'policy denied': 7,
  'unknown sender': 8,
  'flows full': 9,
  'flows share': 10,
  'invalid flow': 11,
  'truncated header': 12,
  'unknown protocol': 13,
  'fragment without first': 14,
  'invalid extension header': 15,
  'no backend': 16,
  'source range': 17,
  'no nat port': 18,
  'no nat mapping': 19,
  'no tunnel': 20,
  'fib failed': 21,
  'fragmentation needed': 22,
  'ttl exceeded': 23,
  'rate limited': 24,
  'no local backend': 25,
  'invalid identity': 26,
  'unsupported nat protocol': 27,
  'forbidden icmp': 28,
  'host not ready': 29,
  'map write failed': 30,
} as const
export type Reason = keyof typeof reasons

const names = new Map<number, Reason>(Object.entries(reasons).map(([name, number]) => [number, name as Reason]))
export const reasonName = (number: number): Reason | undefined => names.get(number)
