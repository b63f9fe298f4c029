import type { Container, PodSpec } from '../../gen/core-v1.ts'
import { compareQuantity, parseQuantity } from '../../meta/quantity.ts'

export type QosClass = 'Guaranteed' | 'Burstable' | 'BestEffort'

const counted = ['cpu', 'memory'] as const

/** By cpu and memory only: all limited to what they ask for, some asking, or none. */
export function qosClassOf(spec: PodSpec): QosClass {
  if (spec.resources && hasAny(spec.resources)) return isGuaranteed(spec.resources) ? 'Guaranteed' : 'Burstable'
  const containers: Container[] = [...(spec.containers ?? []), ...(spec.initContainers ?? [])]
  if (!containers.some(({ resources }) => hasAny(resources ?? {}))) return 'BestEffort'
  return containers.every(({ resources }) => isGuaranteed(resources ?? {})) ? 'Guaranteed' : 'Burstable'
}

type Requirements = NonNullable<Container['resources']>

function hasAny({ requests, limits }: Requirements): boolean {
  return counted.some((name) => isPositive(requests?.[name]) || isPositive(limits?.[name]))
}

function isGuaranteed({ requests, limits }: Requirements): boolean {
  return counted.every((name) => {
    const limit = limits?.[name]
    const request = requests?.[name] ?? limit
    if (limit === undefined || request === undefined || !isPositive(limit)) return false
    return compareQuantity(parseQuantity(limit), parseQuantity(request)) === 0
  })
}

const isPositive = (text: string | undefined): boolean => text !== undefined && parseQuantity(text).nano > 0n
