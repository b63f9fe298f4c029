import type { Node, NodeCondition, Taint } from '#api/gen/core-v1.ts'
import { findCondition } from '#api/meta/conditions.ts'
import { formatTime, parseTime } from '#api/meta/time.ts'

/** Milliseconds of silence. Upstream: 50 s once a node has reported, 60 s for one that never has. */
export interface Graces {
  readonly graceMs: number
  readonly startupGraceMs: number
}
export const defaultGraces: Graces = { graceMs: 50_000, startupGraceMs: 60_000 }

/** The conditions that a node reports, and that nobody can vouch for when it is silent. */
const reported = ['Ready', 'MemoryPressure', 'DiskPressure', 'PIDPressure']

const taintKeys = {
  notReady: 'node.kubernetes.io/not-ready',
  unreachable: 'node.kubernetes.io/unreachable',
  unschedulable: 'node.kubernetes.io/unschedulable',
  memoryPressure: 'node.kubernetes.io/memory-pressure',
  diskPressure: 'node.kubernetes.io/disk-pressure',
  pidPressure: 'node.kubernetes.io/pid-pressure',
  networkUnavailable: 'node.kubernetes.io/network-unavailable',
} as const

/** What the condition's value says by a NoSchedule taint. */
const noScheduleOf: readonly { readonly type: string; readonly status: string; readonly key: string }[] = [
  { type: 'Ready', status: 'False', key: taintKeys.notReady },
  { type: 'Ready', status: 'Unknown', key: taintKeys.unreachable },
  { type: 'MemoryPressure', status: 'True', key: taintKeys.memoryPressure },
  { type: 'DiskPressure', status: 'True', key: taintKeys.diskPressure },
  { type: 'PIDPressure', status: 'True', key: taintKeys.pidPressure },
  { type: 'NetworkUnavailable', status: 'True', key: taintKeys.networkUnavailable },
]
const managedNoSchedule = new Set<string>([...noScheduleOf.map((m) => m.key), taintKeys.unschedulable])

export type Readiness = 'True' | 'False' | 'Unknown'

export const readinessOf = (node: Node): Readiness => {
  const status = findCondition(node.status.conditions, 'Ready')?.status
  return status === 'True' || status === 'False' ? status : 'Unknown'
}

/** When a silent node counts as lost. `heardAt`: when it last gave a sign of life; undefined: never. Milliseconds. */
export function lostAt(node: Node, heardAt: number | undefined, { graceMs, startupGraceMs }: Graces): number {
  if (heardAt !== undefined) return heardAt + graceMs
  return (parseTime(node.metadata.creationTimestamp) ?? 0) + startupGraceMs
}

/** The conditions of a node that is lost, or undefined where they already say so. Pure. */
export function planLost(node: Node, now: number): NodeCondition[] | undefined {
  const conditions = node.status.conditions ?? []
  let changed = false
  const next = conditions.map((condition) => {
    if (!reported.includes(condition.type) || condition.status === 'Unknown') return condition
    changed = true
    return {
      ...condition,
      status: 'Unknown',
      reason: 'NodeStatusUnknown',
      message: 'Kubelet stopped posting node status.',
      lastTransitionTime: formatTime(now),
    }
  })
  for (const type of reported) {
    if (findCondition(conditions, type) !== undefined) continue
    changed = true
    next.push({
      type,
      status: 'Unknown',
      reason: 'NodeStatusNeverUpdated',
      message: 'Kubelet never posted node status.',
      lastHeartbeatTime: node.metadata.creationTimestamp,
      lastTransitionTime: formatTime(now),
    })
  }
  return changed ? next : undefined
}

/** What may be done to the pods of a node that is not ready: `hold`: not yet; `lift`: not, and take back what was done. */
export type Eviction = 'evict' | 'hold' | 'lift'

/**
 * The taints a node should have, or undefined where it has them. NoSchedule follows the conditions at once; NoExecute
 * follows readiness, new ones only while `eviction` says so. Taints of others are left alone. Pure.
 */
export function planTaints(node: Node, eviction: Eviction, now: number): Taint[] | undefined {
  const present = node.spec.taints ?? []
  const conditions = node.status.conditions
  const wanted = new Set(
    noScheduleOf.filter((m) => findCondition(conditions, m.type)?.status === m.status).map((m) => m.key as string),
  )
  if (node.spec.unschedulable === true) wanted.add(taintKeys.unschedulable)
  const readiness = readinessOf(node)
  // A node without any Ready condition is new, not lost: nothing runs on it that could be evicted.
  const known = findCondition(conditions, 'Ready') !== undefined
  const execute =
    readiness === 'True' || !known || eviction === 'lift'
      ? undefined
      : readiness === 'False'
        ? taintKeys.notReady
        : taintKeys.unreachable
  const isExecute = (t: Taint) =>
    t.effect === 'NoExecute' && (t.key === taintKeys.notReady || t.key === taintKeys.unreachable)
  const hadExecute = present.some(isExecute)
  const next = present.filter((taint) => {
    if (taint.effect === 'NoSchedule' && managedNoSchedule.has(taint.key)) return wanted.has(taint.key)
    return !isExecute(taint) || taint.key === execute
  })
  const has = (key: string, effect: string) => next.some((t) => t.key === key && t.effect === effect)
  const added: Taint[] = []
  for (const key of wanted) if (!has(key, 'NoSchedule')) added.push({ key, effect: 'NoSchedule' })
  // From one of the two to the other is no new eviction: the pods' time goes on.
  if (execute !== undefined && !has(execute, 'NoExecute') && (hadExecute || eviction === 'evict')) {
    const since = present.find(isExecute)?.timeAdded ?? formatTime(now)
    added.push({ key: execute, effect: 'NoExecute', timeAdded: since })
  }
  if (added.length === 0 && next.length === present.length) return undefined
  return [...next, ...added]
}

/** The zone a node is in, as far as failures go together. */
export const zoneOf = ({ metadata: { labels = {} } }: Node): string =>
  `${labels['topology.kubernetes.io/region'] ?? ''}/${labels['topology.kubernetes.io/zone'] ?? ''}`

export type ZoneState = 'normal' | 'partial' | 'full'

/** Upstream's numbers: up to two failed nodes are no matter of their zone; from this share on they are. */
const fewMax = 2
const partialShare = 0.55

/** Upstream's judgement of a zone: more than half of it failing at once is more likely the network than the nodes. */
export function zoneState(readiness: readonly Readiness[]): ZoneState {
  const failed = readiness.filter((r) => r !== 'True').length
  if (failed > 0 && failed === readiness.length) return 'full'
  return failed > fewMax && failed / readiness.length >= partialShare ? 'partial' : 'normal'
}

/** Zones of more nodes than this still lose some of them slowly when most of the zone fails. */
const largeZoneNodes = 50
const nodesPerSecond = 0.1
const secondaryNodesPerSecond = 0.01

export interface EvictionRates {
  /** Where everything everywhere fails it is we who are cut off, and nothing is given up. */
  readonly cutOff: boolean
  /** Nodes a second that may be given up, by zone. */
  readonly byZone: ReadonlyMap<string, number>
}

/** How fast nodes may be given up, from the state of their zones. Pure. */
export function evictionRates(nodes: readonly Node[]): EvictionRates {
  const zones = new Map<string, Readiness[]>()
  for (const node of nodes) {
    // A node that never reported says nothing about its zone.
    if (findCondition(node.status.conditions, 'Ready') === undefined) continue
    const zone = zones.get(zoneOf(node))
    if (zone === undefined) zones.set(zoneOf(node), [readinessOf(node)])
    else zone.push(readinessOf(node))
  }
  const states = [...zones].map(([name, readiness]) => ({ name, size: readiness.length, state: zoneState(readiness) }))
  const rate = (state: ZoneState, size: number): number => {
    if (state !== 'partial') return nodesPerSecond
    return size > largeZoneNodes ? secondaryNodesPerSecond : 0
  }
  return {
    cutOff: states.length > 0 && states.every((zone) => zone.state === 'full'),
    byZone: new Map(states.map(({ name, size, state }) => [name, rate(state, size)])),
  }
}
