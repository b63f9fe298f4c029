import type { Service } from '#datapath/datapath.ts'
import { frontendName } from '#datapath/frontend.ts'
import { isLoopback } from './host-ports.ts'

/** What came of one claimant's rows. */
export interface Settled {
  readonly rows: readonly Service[]
  /** Claimants whose rows are others now: they have gained or lost a frontend by this. */
  readonly others: readonly string[]
  /** Frontends that somebody has who was there before: name, and who it is. */
  readonly lost: readonly { readonly frontend: string; readonly owner: string }[]
}

/** An address of the cluster's own range is one Service's by allocation; every other may be named by several. */
const isContested = ({ frontend, outside, toStack, isOutsideOnly }: Service): boolean =>
  outside !== undefined || toStack === true || isOutsideOnly === true || isLoopback(frontend.address)

/**
 * Who has an address and port that several Services (external IPs, foreign load balancers) or host ports name: the oldest,
 * by `seniority`, which is the same on every node. Whoever comes later gets it when that one goes.
 */
export class Claims {
  /** By frontend: claimants with their seniority. */
  readonly #claims = new Map<string, Map<string, string>>()
  readonly #names = new Map<string, readonly string[]>()

  settle(key: string, seniority: string, rows: readonly Service[]): Settled {
    const before = this.#names.get(key) ?? []
    const contested = rows.filter(isContested)
    if (before.length === 0 && contested.length === 0) return { rows, others: [], lost: [] }
    const names = contested.map((row) => frontendName(row.frontend))
    const others = new Set<string>()
    const change = (name: string, act: (claimants: Map<string, string>) => void): void => {
      const claimants = this.#claims.get(name) ?? new Map<string, string>()
      const old = winner(claimants)
      act(claimants)
      const now = winner(claimants)
      for (const other of old === now ? [] : [old, now]) if (other !== undefined && other !== key) others.add(other)
      if (claimants.size === 0) this.#claims.delete(name)
      else this.#claims.set(name, claimants)
    }
    const stays = new Set(names)
    for (const name of before) if (!stays.has(name)) change(name, (claimants) => claimants.delete(key))
    for (const name of names) change(name, (claimants) => claimants.set(key, seniority))
    if (names.length === 0) this.#names.delete(key)
    else this.#names.set(key, names)
    const lost = names.flatMap((name) => {
      const owner = winner(this.#claims.get(name) ?? new Map<string, string>())
      return owner === undefined || owner === key ? [] : [{ frontend: name, owner }]
    })
    const gone = new Set(lost.map(({ frontend }) => frontend))
    const mine = gone.size === 0 ? rows : rows.filter((r) => !isContested(r) || !gone.has(frontendName(r.frontend)))
    return { rows: mine, others: [...others], lost }
  }
}

function winner(claimants: ReadonlyMap<string, string>): string | undefined {
  let best: readonly [string, string] | undefined
  for (const claim of claimants) {
    const [key, seniority] = claim
    if (best === undefined || seniority < best[1] || (seniority === best[1] && key < best[0])) best = claim
  }
  return best?.[0]
}
