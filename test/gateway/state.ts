import type { Backend, EngineState, Listener, Match, Route, Rule, Target } from '#gateway/engine.ts'
import { gatewayAddresses } from './place.ts'

let revision = 0

export const listener = (more: Partial<Listener> = {}): Listener => ({
  id: 'test/gw/http',
  addresses: gatewayAddresses,
  port: 80,
  protocol: 'HTTP',
  ...more,
})

export const backend = (id: string, endpoints: readonly string[], more: Partial<Backend> = {}): Backend => ({
  id,
  protocol: 'h1',
  endpoints: endpoints.map((text) => {
    const at = text.lastIndexOf(':')
    return { address: text.slice(0, at), port: Number(text.slice(at + 1)) }
  }),
  ...more,
})

export const target = (id: string | undefined, more: Partial<Target> = {}): Target => ({
  weight: 1,
  filters: [],
  ...(id === undefined ? {} : { backend: id }),
  ...more,
})

export const prefix = (value: string): Match => ({ path: { type: 'prefix', value }, headers: [], query: [] })

type RuleText = Omit<Partial<Rule>, 'id'>

export function route(
  name: string,
  hostnames: readonly string[],
  rules: readonly RuleText[],
  more: Partial<Route> = {},
): Route {
  const id = `HTTP/test/${name}`
  return {
    id,
    kind: 'HTTP',
    age: `2026-01-01T00:00:00Z test/${name}`,
    attachments: [{ listener: 'test/gw/http', hostnames }],
    rules: rules.map((rule, i) => ({ id: `${id}/${i}`, matches: [], filters: [], targets: [], ...rule })),
    ...more,
  }
}

export function state(
  listeners: readonly Listener[],
  routes: readonly Route[],
  backends: readonly Backend[],
): EngineState {
  return {
    revision: ++revision,
    listeners: new Map(listeners.map((l) => [l.id, l])),
    routes: new Map(routes.map((r) => [r.id, r])),
    backends: new Map(backends.map((b) => [b.id, b])),
  }
}
