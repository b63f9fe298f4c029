/** IP protocol numbers of what a policy can name. */
export const protocolNumbers: ReadonlyMap<string, number> = new Map([
  ['TCP', 6],
  ['UDP', 17],
  ['SCTP', 132],
])

/** Ports that share their first `bits` bits; no bits: every port of the protocol. */
export interface PortPrefix {
  readonly protocol: number
  readonly port: number
  readonly bits: number
}

const portBits = 16

/** The fewest prefixes that are exactly the ports from `first` to `last`: 30 at most. Pure. */
export function rangePrefixes(protocol: number, first: number, last: number): PortPrefix[] {
  const prefixes: PortPrefix[] = []
  let port = first
  while (port <= last) {
    // The largest aligned block that starts here and does not go past the end.
    let size = port === 0 ? 1 << portBits : port & -port
    while (port + size - 1 > last) size >>= 1
    prefixes.push({ protocol, port, bits: portBits - Math.log2(size) })
    port += size
  }
  return prefixes
}
