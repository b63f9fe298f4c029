import { BlockList } from 'node:net'

/** Whether two texts name the same address: IPv6 has many spellings of one. */
export function sameAddress(a: string, b: string): boolean {
  const family = (text: string) => (text.includes(':') ? 'ipv6' : 'ipv4')
  if (family(a) !== family(b)) return false
  const list = new BlockList()
  try {
    list.addAddress(a, family(a))
  } catch {
    return a === b
  }
  return list.check(b, family(b))
}
