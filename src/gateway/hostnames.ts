/** A hostname as Gateway API writes it: exact, `*.suffix`, or `''` for any. Compared in lower case. */

const isWildcard = (host: string): boolean => host.startsWith('*.')

/** Whether every name that `narrow` stands for is one of `wide`: a wildcard covers any number of labels, but not none. */
export function covers(wide: string, narrow: string): boolean {
  if (wide === '' || wide === narrow) return true
  if (narrow === '' || !isWildcard(wide)) return false
  const rest = isWildcard(narrow) ? narrow.slice(1) : narrow
  return rest.endsWith(wide.slice(1)) && rest.length > wide.length - 1
}

/** The names that both stand for, as a hostname again; undefined where they have none in common. */
export function intersect(a: string, b: string): string | undefined {
  if (covers(a, b)) return b
  if (covers(b, a)) return a
  return undefined
}

/**
 * Where a route of these hostnames is served on a listener; empty when nowhere. A route without hostnames has the
 * listener's, a listener without one has the route's.
 */
export function servedHostnames(listener: string | undefined, route: readonly string[] | undefined): string[] {
  const own = (listener ?? '').toLowerCase()
  if (route === undefined || route.length === 0) return [own]
  const found = new Set<string>()
  for (const host of route) {
    const common = intersect(own, host.toLowerCase())
    if (common !== undefined) found.add(common)
  }
  return [...found]
}
