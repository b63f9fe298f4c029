import type { Container, PodSpec } from '../gen/core-v1.ts'
import { parseQuantity, quantityMilli, quantityValue } from '../meta/quantity.ts'

/** Resources as numbers: cpu in thousandths of a core, everything else in its own unit (bytes, pieces). */
export type Resources = ReadonlyMap<string, number>

/** A resource list of the API, each value rounded up. */
export function resourcesOf(list: Readonly<Record<string, string>> | undefined): Map<string, number> {
  const result = new Map<string, number>()
  for (const name in list) result.set(name, amount(name, list[name] ?? '0'))
  return result
}

const amount = (name: string, text: string): number =>
  Number(name === 'cpu' ? quantityMilli(parseQuantity(text)) : quantityValue(parseQuantity(text)))

/**
 * What a pod asks of its node. Init containers run one after another before the rest, so the largest counts; one that
 * restarts (a sidecar) runs on beside all that follow. Pod-level requests, where given, stand for the sum.
 * `absent` is what counts for a container that asks for none.
 */
export function podRequests(spec: PodSpec, absent?: Resources): Map<string, number> {
  const total = new Map<string, number>()
  for (const container of spec.containers) add(total, containerRequests(container, absent))
  const sidecars = new Map<string, number>()
  const largest = new Map<string, number>()
  for (const container of spec.initContainers ?? []) {
    const own = containerRequests(container, absent)
    if (container.restartPolicy === 'Always') {
      add(total, own)
      add(sidecars, own)
      raise(largest, sidecars)
    } else {
      add(own, sidecars)
      raise(largest, own)
    }
  }
  raise(total, largest)
  for (const [name, value] of resourcesOf(spec.resources?.requests)) total.set(name, value)
  add(total, resourcesOf(spec.overhead))
  return total
}

function containerRequests({ resources }: Container, absent: Resources | undefined): Map<string, number> {
  const own = resourcesOf(resources?.requests)
  if (absent !== undefined) for (const [name, value] of absent) if (!own.has(name)) own.set(name, value)
  return own
}

function add(to: Map<string, number>, from: Resources): void {
  for (const [name, value] of from) to.set(name, (to.get(name) ?? 0) + value)
}

function raise(to: Map<string, number>, from: Resources): void {
  for (const [name, value] of from) if (value > (to.get(name) ?? 0)) to.set(name, value)
}
