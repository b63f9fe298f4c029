import type { Listener } from './engine.ts'
import type { GatewayResult } from './gateways.ts'
import type { Gateway } from './objects.ts'
import { listenerId } from './routes.ts'

/** `namespace/name`. */
export const keyOf = (gateway: Gateway | undefined): string =>
  gateway === undefined ? '' : `${gateway.metadata.namespace}/${gateway.metadata.name}`

/** The listeners of a Gateway as an engine is given them: those that can be served, once there is an address. */
export function engineListeners({ gateway, listeners, accepted, addresses }: GatewayResult): Map<string, Listener> {
  const found = new Map<string, Listener>()
  if (accepted.status !== 'True' || addresses.length === 0) return found
  for (const { listener, servable, certificates } of listeners) {
    if (!servable) continue
    const id = listenerId(keyOf(gateway), listener.name)
    const hostname = (listener.hostname ?? '').toLowerCase()
    found.set(id, {
      id,
      addresses,
      port: listener.port,
      protocol: listener.protocol === 'HTTPS' ? 'HTTPS' : 'HTTP',
      ...(hostname === '' ? {} : { hostname }),
      ...(listener.protocol === 'HTTPS' ? { tls: { mode: 'terminate', certificates } } : {}),
    })
  }
  return found
}
