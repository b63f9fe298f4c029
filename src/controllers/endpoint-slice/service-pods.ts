import type { Pod, Service, ServicePort } from '#api/gen/core-v1.ts'
import { findCondition } from '#api/meta/conditions.ts'
import type { Informer } from '#client/informer.ts'
import { keyOf } from '#client/key.ts'
import { isReady, isTerminal, readySince } from '../workload/pod-state.ts'

/** Which pods stand behind a Service, and with which ports: the same question for EndpointSlices and Endpoints. */

export type Family = 'IPv4' | 'IPv6'

/** A Service whose endpoints we keep. One without a selector, or for an outside name, is its owner's business. */
export const isOurs = ({ spec }: Service): boolean =>
  spec.type !== 'ExternalName' && spec.selector !== undefined && Object.keys(spec.selector).length > 0

export const isHeadless = ({ spec }: Service): boolean =>
  spec.clusterIP === undefined || spec.clusterIP === 'None' || spec.clusterIP === ''

/** Address families in the Service's order of preference. */
export function familiesOf({ spec }: Service): Family[] {
  const families = (spec.ipFamilies ?? []).filter((f): f is Family => f === 'IPv4' || f === 'IPv6')
  if (families.length > 0) return families
  return [spec.clusterIP?.includes(':') === true ? 'IPv6' : 'IPv4']
}

export const addressOf = ({ status }: Pod, family: Family): string | undefined => {
  const all = status.podIPs?.map(({ ip }) => ip) ?? (status.podIP === undefined ? [] : [status.podIP])
  return all.find((ip) => ip !== undefined && ip !== '' && ip.includes(':') === (family === 'IPv6'))
}

/** Has an address and has not ended. */
export const mayServe = (pod: Pod): boolean =>
  !isTerminal(pod) && Boolean(pod.status.podIP ?? pod.status.podIPs?.[0]?.ip)

export const selectedBy = ({ spec }: Service, labels: Readonly<Record<string, string>> | undefined): boolean =>
  Object.entries(spec.selector ?? {}).every(([key, value]) => labels?.[key] === value)

/** The keys of the Services that select the pod. */
export function servicesOf(services: Informer<Service>, { metadata }: Pod): string[] {
  const all = services.list(metadata.namespace)
  return all.filter((service) => isOurs(service) && selectedBy(service, metadata.labels)).map(keyOf)
}

/** Whether a change of a pod can change an endpoint: most status reports cannot. */
export function matters(next: Pod | undefined, old: Pod | undefined): boolean {
  if (next === undefined || old === undefined) return true
  return (
    isReady(next) !== isReady(old) ||
    isTerminal(next) !== isTerminal(old) ||
    next.metadata.deletionTimestamp !== old.metadata.deletionTimestamp ||
    next.spec.nodeName !== old.spec.nodeName ||
    next.status.podIP !== old.status.podIP ||
    JSON.stringify(next.status.podIPs) !== JSON.stringify(old.status.podIPs) ||
    JSON.stringify(next.metadata.labels) !== JSON.stringify(old.metadata.labels)
  )
}

/** The pod's own number for a port of the Service; undefined when it has none of that name. */
export function portOf({ spec }: Pod, { targetPort, port, protocol = 'TCP' }: ServicePort): number | undefined {
  if (typeof targetPort === 'number') return targetPort === 0 ? port : targetPort
  if (targetPort === undefined || targetPort === '') return port
  // Of the init containers only those that keep running can serve.
  const sidecars = (spec.initContainers ?? []).filter((c) => c.restartPolicy === 'Always')
  for (const { ports = [] } of [...spec.containers, ...sidecars])
    for (const { name, containerPort, protocol: own = 'TCP' } of ports)
      if (name === targetPort && own === protocol) return containerPort
  return undefined
}

/** A pod's own name below the Service's, where it asks for one. */
export const hostnameOf = ({ spec, metadata }: Pod, service: Service): string | undefined =>
  spec.hostname !== undefined &&
  spec.hostname !== '' &&
  spec.subdomain === service.metadata.name &&
  metadata.namespace === service.metadata.namespace
    ? spec.hostname
    : undefined

/** Of what an endpoints object says since when it is true, for measuring how long the news took. */
export const triggerAnnotation = 'endpoints.kubernetes.io/last-change-trigger-time'

/** Remembers per Service when its pods last changed. */
export class TriggerTimes {
  readonly #services = new Map<string, { readonly service: string; readonly pods: ReadonlyMap<string, string> }>()

  /** RFC 3339: the earliest change that was not seen before; a new Service's creation. Undefined when nothing changed. */
  changed(service: Service, pods: readonly Pod[]): string | undefined {
    const key = keyOf(service)
    const known = this.#services.get(key)
    const times = new Map<string, string>()
    let earliest: string | undefined
    for (const pod of pods) {
      const ready = findCondition(pod.status.conditions, 'Ready')
      const time =
        ready?.lastTransitionTime ?? (readySince(pod) === undefined ? undefined : pod.metadata.creationTimestamp)
      if (time === undefined) continue
      times.set(pod.metadata.name, time)
      // RFC 3339 in UTC with whole seconds: order of text is order of time.
      if (time > (known?.pods.get(pod.metadata.name) ?? '') && (earliest === undefined || time < earliest))
        earliest = time
    }
    const created = service.metadata.creationTimestamp
    this.#services.set(key, { service: created, pods: times })
    if (known === undefined) return created
    if (created > known.service && (earliest === undefined || created < earliest)) return created
    return earliest
  }

  forget(key: string): void {
    this.#services.delete(key)
  }
}
