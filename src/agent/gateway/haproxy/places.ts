import type { Listener } from '#gateway/engine.ts'
import { hashOf } from './program.ts'

/**
 * Short names for where listeners are, which rows begin with: addresses of one Gateway on one port share a name, so that
 * two families do not double the table. By `address:port`, as HAProxy says `%[dst]:%[dst_port]`; ends in a bar.
 */
export function placesOf(listeners: Iterable<Listener>): Map<string, string> {
  /** Which sets of addresses an address and port is in; more than one where Gateways share some of theirs. */
  const sets = new Map<string, Set<string>>()
  for (const { addresses, port } of listeners) {
    const all = `${addresses.toSorted().join(' ')} ${port}`
    for (const address of addresses) {
      const at = atOf(address, port)
      const known = sets.get(at)
      if (known === undefined) sets.set(at, new Set([all]))
      else known.add(all)
    }
  }
  const shared = (set: string): boolean => {
    const port = Number(set.slice(set.lastIndexOf(' ') + 1))
    const addresses = set.split(' ').slice(0, -1)
    return addresses.every((address) => sets.get(atOf(address, port))?.size === 1)
  }
  return new Map(
    [...sets].map(([at, of]) => {
      const [only = ''] = of
      return [at, `${hashOf(of.size === 1 && shared(only) ? only : at).slice(0, 8)}|`]
    }),
  )
}

export const atOf = (address: string, port: number): string => `${address}:${port}`
