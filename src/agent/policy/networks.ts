import type { Cidr } from '#base/net/address.ts'
import { firstClass } from '#datapath/maps/identities.ts'

/** `ipBlock`: a network without some parts of it. */
export interface Block {
  readonly cidr: Cidr
  readonly key: string
  readonly except: readonly Cidr[]
  /** In order, and none of them inside of another (`outermost`). */
  readonly exceptKeys: readonly string[]
}

/** Keys in order, without those inside of another: behind one of these come its parts, and none else. */
export function outermost(keys: readonly string[]): string[] {
  const found: string[] = []
  for (const key of keys.toSorted((a, b) => (a < b ? -1 : 1))) {
    const last = found.at(-1)
    if (last === undefined || !key.startsWith(last)) found.push(key)
  }
  return found
}

/** The bits of a network's prefix as text: a network is inside of another exactly if its key begins with the other's. */
export const networkKey = ({ family, base, prefix }: Cidr): string => {
  const bits = family === 4 ? 32 : 128
  return `${family}/${base.toString(2).padStart(bits, '0').slice(0, prefix)}`
}

/** A block that some rule names. */
export interface Network {
  readonly key: string
  readonly cidr: Cidr
  /** The number under which sets know addresses whose most specific network this is. */
  readonly class: number
}

interface Entry extends Network {
  users: number
}

/** Numbers that the node itself gives to pods: above all networks. */
export const localIdentityFirst = 2 ** 30

/**
 * The networks that live policies name, in order, each with a class. An address has the class of the most specific one;
 * a block allows the classes of all networks that are inside of it and inside of none of its exceptions.
 */
export class Networks {
  readonly #byKey = new Map<string, Entry>()
  /** Keys in order: those of a network's parts follow it immediately. */
  readonly #sorted: string[] = []
  #next = firstClass
  readonly #adopted = new Map<string, number>()

  /** Classes that the kernel has from an earlier agent: a network keeps its own while it lives. */
  adopt(present: Iterable<readonly [Cidr, number]>): void {
    for (const [cidr, number] of present) {
      this.#adopted.set(networkKey(cidr), number)
      this.#next = Math.max(this.#next, number + 1)
    }
  }

  list(): readonly Network[] {
    return [...this.#byKey.values()]
  }

  /** One more user of the networks of this block. Returns those that are new. */
  acquire(block: Block): Network[] {
    const added: Network[] = []
    for (const cidr of namedBy(block)) {
      const key = networkKey(cidr)
      const known = this.#byKey.get(key)
      if (known !== undefined) {
        known.users++
        continue
      }
      const number = this.#adopted.get(key) ?? this.#next++
      const entry: Entry = { key, cidr, class: number, users: 1 }
      this.#byKey.set(key, entry)
      this.#sorted.splice(this.#position(key), 0, key)
      added.push(entry)
    }
    return added
  }

  /** One user less. Returns the networks that nobody names any more. */
  release(block: Block): Network[] {
    const gone: Network[] = []
    for (const cidr of namedBy(block)) {
      const entry = this.#byKey.get(networkKey(cidr))
      if (entry === undefined || --entry.users > 0) continue
      this.#byKey.delete(entry.key)
      this.#sorted.splice(this.#position(entry.key), 1)
      gone.push(entry)
    }
    return gone
  }

  /** Classes of addresses that the block means, as far as networks are named. */
  *inside(block: Block): Generator<number> {
    for (let i = this.#position(block.key); i < this.#sorted.length; i++) {
      const key = this.#sorted[i] ?? ''
      if (!key.startsWith(block.key)) return
      const entry = this.#byKey.get(key)
      if (entry !== undefined && means(block, key)) yield entry.class
    }
  }

  #position(key: string): number {
    return positionIn(this.#sorted, key)
  }
}

/** Where `key` is in order, or would be. */
function positionIn(sorted: readonly string[], key: string): number {
  let low = 0
  let high = sorted.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if ((sorted[middle] ?? '') < key) low = middle + 1
    else high = middle
  }
  return low
}

/** Whether addresses whose most specific network has this key are in the block: all of them are, or none. */
export function means({ key: own, exceptKeys }: Block, key: string): boolean {
  if (!key.startsWith(own)) return false
  // Looked for and not gone through: thousands of exceptions times thousands of networks would hold up the node.
  const at = positionIn(exceptKeys, key)
  const before = exceptKeys[at - 1]
  return exceptKeys[at] !== key && (before === undefined || !key.startsWith(before))
}

/** IPv4 as the kernel's map has it: at the end of the IPv6 prefix ::ffff:0:0/96. */
const mappedKey = `6/${'0'.repeat(80)}${'1'.repeat(16)}`

/**
 * The networks that a block names. Where one of them would have all of IPv4 in it (::/0), IPv4 gets a class of its own, which
 * no block of IPv6 means: otherwise such a rule would open it.
 */
const namedBy = ({ cidr, except }: Block): Cidr[] => {
  const named = [cidr, ...except]
  const hasAll4 = named.some((one) => mappedKey.startsWith(networkKey(one)))
  return hasAll4 ? [...named, { family: 4, base: 0n, prefix: 0 }] : named
}
