import { qosClassOf } from '#api/core/pod/qos.ts'
import type { Container, PodSpec } from '#api/gen/core-v1.ts'
import { parseQuantity, quantityMilli, quantityValue } from '#api/meta/quantity.ts'
import type { LinuxResources } from '../runtime/runtime.ts'

const quotaPeriod = 100_000
const quotaMin = 1_000
const sharesMin = 2
const nodeCriticalPriority = 2_000_001_000

/** Milli-CPUs as v1 shares. */
const sharesOf = (milli: number): number => Math.max(sharesMin, Math.trunc((milli * 1024) / 1000))

/** The kernel's limits of one container. `memoryBytes` is the node's, which the OOM score is measured by. */
export function linuxResourcesOf(container: Container, spec: PodSpec, memoryBytes: number): LinuxResources {
  const { requests = {}, limits = {} } = container.resources ?? {}
  const cpuLimit = limits.cpu === undefined ? 0 : Number(quantityMilli(parseQuantity(limits.cpu)))
  const cpuRequest = requests.cpu ?? limits.cpu
  const memoryLimit = limits.memory === undefined ? 0 : Number(quantityValue(parseQuantity(limits.memory)))
  return {
    cpuPeriod: cpuLimit > 0 ? quotaPeriod : 0,
    cpuQuota: cpuLimit > 0 ? Math.max(quotaMin, (cpuLimit * quotaPeriod) / 1000) : 0,
    cpuShares: cpuRequest === undefined ? sharesMin : sharesOf(Number(quantityMilli(parseQuantity(cpuRequest)))),
    memoryLimitInBytes: memoryLimit,
    oomScoreAdj: oomScoreOf(container, spec, memoryBytes),
  }
}

/**
 * Who is killed first when memory runs out: the less a container asked for, the sooner. Upstream's scores: -997 is just
 * above the runtime's own, and what is in between stays off both ends (3 to 999).
 */
export function oomScoreOf(container: Container, spec: PodSpec, memoryBytes: number): number {
  if ((spec.priority ?? 0) >= nodeCriticalPriority) return -997
  const qos = qosClassOf(spec)
  if (qos === 'Guaranteed') return -997
  if (qos === 'BestEffort') return 1000
  const request = container.resources?.requests?.memory
  const bytes = request === undefined ? 0 : Number(quantityValue(parseQuantity(request)))
  const score = Math.trunc(1000 - (1000 * bytes) / memoryBytes)
  return Math.min(999, Math.max(3, score))
}

/** Limits of the pod's own cgroup: a sum of limits only where every container has one. */
export function podLimitsOf(spec: PodSpec): {
  cpuShares: number
  cpuQuotaMicroseconds?: number
  memoryLimitBytes?: number
} {
  const milli = (q: string | undefined) => (q === undefined ? 0 : Number(quantityMilli(parseQuantity(q))))
  const { containers } = spec
  const shares = containers.reduce((sum, c) => sum + milli(c.resources?.requests?.cpu ?? c.resources?.limits?.cpu), 0)
  const all = [...containers, ...(spec.initContainers ?? [])]
  const cpu = all.every((c) => c.resources?.limits?.cpu !== undefined)
  const memory = all.every((c) => c.resources?.limits?.memory !== undefined)
  // Init containers run before the others: the largest of them counts, not their sum.
  const total = (name: 'cpu' | 'memory', value: (q: string) => number) => {
    const of = (c: Container) => value(c.resources?.limits?.[name] ?? '0')
    const init = spec.initContainers ?? []
    const sidecars = init.filter((c) => c.restartPolicy === 'Always').reduce((sum, c) => sum + of(c), 0)
    return Math.max(sidecars + containers.reduce((sum, c) => sum + of(c), 0), ...init.map((c) => sidecars + of(c)))
  }
  return {
    cpuShares: sharesOf(shares),
    ...(cpu ? { cpuQuotaMicroseconds: Math.max(quotaMin, total('cpu', milli) * 100) } : {}),
    ...(memory ? { memoryLimitBytes: total('memory', (q) => Number(quantityValue(parseQuantity(q)))) } : {}),
  }
}
