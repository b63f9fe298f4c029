import type { Backend, EngineState, Fraction, Retry, Route, Rule, Timeouts } from '#gateway/engine.ts'

/** What the side engine does for one rule and one of its backends; all other filters are HAProxy's. */
export interface Order {
  readonly backend: string
  readonly timeouts: Timeouts
  readonly retry?: Retry
  readonly mirrors: readonly { readonly backend: string; readonly fraction: Fraction }[]
}

/** Changes since the last message; null: gone. */
export interface Delta {
  readonly orders: Readonly<Record<string, Order | null>>
  readonly backends: Readonly<Record<string, Backend | null>>
}

/** HAProxy of the distribution knows inactivity, not deadlines; its retries know some codes and small bodies; no mirrors. */
export function isAside({ timeouts, retry, filters, targets }: Rule): boolean {
  if ((timeouts?.requestMs ?? 0) > 0 || (timeouts?.backendRequestMs ?? 0) > 0 || retry !== undefined) return true
  return [filters, ...targets.map((t) => t.filters)].some((list) => list.some((f) => f.type === 'mirror'))
}

const asideOf = new WeakMap<Route, readonly Rule[]>()

/** Asked of thousands of routes with every change: looked at once. */
function asideRules(route: Route): readonly Rule[] {
  const known = asideOf.get(route)
  if (known !== undefined) return known
  const rules = route.rules.filter(isAside)
  asideOf.set(route, rules)
  return rules
}

/** Orders by the key that HAProxy sends, and the backends that they name. Pure. */
export function ordersOf(
  state: EngineState,
  key: (rule: string, backend: string) => string,
): { readonly orders: Map<string, Order>; readonly backends: Map<string, Backend> } {
  const orders = new Map<string, Order>()
  const backends = new Map<string, Backend>()
  const need = (id: string): void => {
    const backend = state.backends.get(id)
    if (backend !== undefined) backends.set(id, backend)
  }
  for (const route of state.routes.values())
    for (const rule of asideRules(route)) {
      for (const { backend, filters } of rule.targets) {
        if (backend === undefined) continue
        const mirrors = [...rule.filters, ...filters].flatMap((f) =>
          f.type === 'mirror' ? [{ backend: f.backend, fraction: f.fraction }] : [],
        )
        const { timeouts = {}, retry } = rule
        orders.set(key(rule.id, backend), { backend, timeouts, mirrors, ...(retry === undefined ? {} : { retry }) })
        need(backend)
        for (const mirror of mirrors) need(mirror.backend)
      }
    }
  return { orders, backends }
}
