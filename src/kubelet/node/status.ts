import type { NodeCondition, NodeStatus } from '#api/gen/core-v1.ts'
import { withCondition } from '#api/meta/conditions.ts'
import { formatTime } from '#api/meta/time.ts'
import type { ImageRecord, RuntimeCondition } from '../runtime/runtime.ts'
import type { Machine, Pressure } from './machine.ts'

/** From what a Node's status is made. */
export interface NodeInput {
  readonly name: string
  readonly addresses: readonly string[]
  readonly port: number
  readonly podsMax: number
  readonly machine: Machine
  readonly pressure: Pressure
  /** `containerd://1.6.20` */
  readonly runtimeVersion: string
  readonly kubeletVersion: string
  /** What the runtime says, or why it says nothing. */
  readonly runtime: readonly RuntimeCondition[] | Error
  readonly images: readonly ImageRecord[]
  readonly now: number
}

/** Upstream's hard eviction thresholds: below these a node says so. */
const memoryAvailableMin = 100 * 1024 * 1024
const diskShareMin = 0.1
const inodesShareMin = 0.05
const pidsFreeMin = 1_000
/** Upstream's limit: a node's status is written often. */
const imagesMax = 50

/** What the node has, in the API's words. Pure. */
function capacityOf({
  machine,
  pressure,
  podsMax,
}: Pick<NodeInput, 'machine' | 'pressure' | 'podsMax'>): Record<string, string> {
  return {
    cpu: String(machine.cpus),
    'ephemeral-storage': `${Math.trunc(pressure.diskTotalBytes / 1024)}Ki`,
    'hugepages-1Gi': '0',
    'hugepages-2Mi': '0',
    memory: `${Math.trunc(machine.memoryBytes / 1024)}Ki`,
    pods: String(podsMax),
  }
}

/** Capacity less what is kept for the hard eviction thresholds. */
export function allocatableOf(input: Pick<NodeInput, 'machine' | 'pressure' | 'podsMax'>): Record<string, string> {
  const { machine, pressure } = input
  return {
    ...capacityOf(input),
    'ephemeral-storage': String(Math.trunc(pressure.diskTotalBytes * (1 - diskShareMin))),
    memory: `${Math.trunc((machine.memoryBytes - memoryAvailableMin) / 1024)}Ki`,
  }
}

/** The status, with the conditions of others kept. Pure. */
export function nodeStatus(input: NodeInput, old: NodeStatus | undefined): NodeStatus {
  const { machine, addresses, name, port, now } = input
  let conditions: readonly NodeCondition[] = old?.conditions ?? []
  for (const condition of conditionsOf(input)) {
    // The heart beats in lastHeartbeatTime; lastTransitionTime moves with the status alone.
    conditions = withCondition(
      conditions,
      { ...condition, lastHeartbeatTime: formatTime(now) } as NodeCondition,
      formatTime(now),
    )
  }
  return {
    ...old,
    capacity: capacityOf(input),
    allocatable: allocatableOf(input),
    conditions: [...conditions],
    addresses: [
      ...addresses.map((address) => ({ type: 'InternalIP', address })),
      { type: 'Hostname', address: name },
    ] as NonNullable<NodeStatus['addresses']>,
    daemonEndpoints: { kubeletEndpoint: { Port: port } },
    nodeInfo: {
      ...old?.nodeInfo,
      machineID: machine.machineId,
      systemUUID: machine.systemUuid,
      bootID: machine.bootId,
      kernelVersion: machine.kernelVersion,
      osImage: machine.osImage,
      containerRuntimeVersion: input.runtimeVersion,
      kubeletVersion: input.kubeletVersion,
      kubeProxyVersion: '',
      operatingSystem: 'linux',
      architecture: machine.architecture,
    },
    images: input.images
      .toSorted((a, b) => b.sizeBytes - a.sizeBytes)
      .slice(0, imagesMax)
      .map((image) => ({ names: [...image.digests, ...image.tags], sizeBytes: image.sizeBytes })),
  }
}

function conditionsOf({ runtime, pressure }: NodeInput): NodeCondition[] {
  const condition = (type: string, bad: boolean, reason: string, message: string): NodeCondition =>
    ({ type, status: bad ? 'True' : 'False', reason, message }) as NodeCondition
  const memory = pressure.memoryAvailableBytes < memoryAvailableMin
  const disk =
    pressure.diskAvailableBytes < pressure.diskTotalBytes * diskShareMin ||
    (pressure.inodesTotal > 0 && pressure.inodesFree < pressure.inodesTotal * inodesShareMin)
  const pids = pressure.pidsMax - pressure.pidsUsed < pidsFreeMin
  const trouble =
    runtime instanceof Error
      ? `container runtime is down: ${runtime.message}`
      : runtime
          .filter((c) => !c.status)
          .map(
            (c) =>
              `container runtime ${c.type === 'NetworkReady' ? 'network' : ''} not ready: ${c.type}=false reason:${c.reason} message:${c.message}`,
          )
          .join(', ')
  return [
    condition(
      'MemoryPressure',
      memory,
      memory ? 'KubeletHasInsufficientMemory' : 'KubeletHasSufficientMemory',
      memory ? 'kubelet has insufficient memory available' : 'kubelet has sufficient memory available',
    ),
    condition(
      'DiskPressure',
      disk,
      disk ? 'KubeletHasDiskPressure' : 'KubeletHasNoDiskPressure',
      disk ? 'kubelet has disk pressure' : 'kubelet has no disk pressure',
    ),
    condition(
      'PIDPressure',
      pids,
      pids ? 'KubeletHasInsufficientPID' : 'KubeletHasSufficientPID',
      pids ? 'kubelet has insufficient PID available' : 'kubelet has sufficient PID available',
    ),
    condition(
      'Ready',
      trouble === '',
      trouble === '' ? 'KubeletReady' : 'KubeletNotReady',
      trouble === '' ? 'kubelet is posting ready status' : trouble,
    ),
  ]
}
