import type { Pod, Taint, Toleration } from '#api/gen/core-v1.ts'
import { nodes, pods, priorityClasses } from '#api/gen/resources.ts'
import type { Registry } from '../step.ts'
import { type AdmissionStep, isAbout, objectOf, oldOf, refusal } from './step.ts'

const notReady = 'node.kubernetes.io/not-ready'
const unreachable = 'node.kubernetes.io/unreachable'
/** How long a pod stays on a node that is lost before it is moved. */
const tolerationSeconds = 300

/** A new node takes no pods until it says that it is ready. */
export const taintNodesByCondition: AdmissionStep = {
  name: 'TaintNodesByCondition',
  mutate(request) {
    if (request.operation !== 'CREATE' || !isAbout(request, nodes)) return
    const node = objectOf(request, nodes)
    if (node === undefined) return
    node.spec ??= {}
    const taint: Taint = { key: notReady, effect: 'NoSchedule' }
    if (node.spec.taints?.some((t) => t.key === taint.key && t.effect === taint.effect)) return
    node.spec.taints = [...(node.spec.taints ?? []), taint]
  },
}

/** Pods stay five minutes on a node that is not ready or cannot be reached, unless they say otherwise. */
export const defaultTolerationSeconds: AdmissionStep = {
  name: 'DefaultTolerationSeconds',
  mutate(request) {
    if (request.operation !== 'CREATE' || !isAbout(request, pods)) return
    const pod = objectOf(request, pods)
    if (pod === undefined) return
    for (const key of [notReady, unreachable]) {
      if (tolerates(pod, key)) continue
      const toleration: Toleration = { key, operator: 'Exists', effect: 'NoExecute', tolerationSeconds }
      pod.spec.tolerations = [...(pod.spec.tolerations ?? []), toleration]
    }
  },
}

const tolerates = ({ spec }: Pod, taint: string): boolean =>
  (spec.tolerations ?? []).some(
    ({ key = '', effect }) => (key === taint || key === '') && (effect === 'NoExecute' || !effect),
  )

/** Classes that every cluster has, whether or not the kind is served. */
const systemClasses: Readonly<Record<string, number>> = {
  'system-cluster-critical': 2_000_000_000,
  'system-node-critical': 2_000_001_000,
}

/** Turns the name of a priority class into its number. */
export function priority(registry: Registry): AdmissionStep {
  const classNamed = (
    name: string,
  ): { value: number; preemptionPolicy?: 'PreemptLowerPriority' | 'Never' } | undefined => {
    const found = registry.serves(priorityClasses) ? registry.get(priorityClasses, '', name) : undefined
    if (found)
      return {
        value: found.value ?? 0,
        ...(found.preemptionPolicy ? { preemptionPolicy: found.preemptionPolicy } : {}),
      }
    const system = systemClasses[name]
    return system === undefined ? undefined : { value: system }
  }
  const globalDefault = (): string => {
    if (!registry.serves(priorityClasses)) return ''
    const candidates = [...registry.list(priorityClasses)].filter((c) => c.globalDefault)
    return candidates.toSorted((a, b) => (a.value ?? 0) - (b.value ?? 0))[0]?.metadata.name ?? ''
  }
  return {
    name: 'Priority',
    mutate(request) {
      if (!isAbout(request, pods)) return
      const pod = objectOf(request, pods)
      if (pod === undefined) return
      const { spec } = pod
      const old = oldOf(request, pods)
      if (request.operation === 'UPDATE') {
        // Chosen once: a class that changes or goes later does not touch the pods that have it.
        if (spec.priority === undefined && old?.spec.priority !== undefined) spec.priority = old.spec.priority
        return
      }
      if (request.operation !== 'CREATE') return
      const name = spec.priorityClassName || globalDefault()
      if (name !== '') spec.priorityClassName = name
      const chosen = name === '' ? { value: 0 } : classNamed(name)
      if (chosen === undefined) throw refusal(request, `no PriorityClass with name ${name} was found`)
      if (spec.priority !== undefined && spec.priority !== chosen.value) {
        throw refusal(
          request,
          `the integer value of priority (${spec.priority}) must not be provided in pod spec; priority admission controller computed ${chosen.value} from the given PriorityClass name`,
        )
      }
      spec.priority = chosen.value
      spec.preemptionPolicy ??=
        ('preemptionPolicy' in chosen ? chosen.preemptionPolicy : undefined) ?? 'PreemptLowerPriority'
    },
  }
}
