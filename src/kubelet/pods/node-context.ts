import type { Service } from '#api/gen/core-v1.ts'
import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log/log.ts'
import type { Client } from '#client/client.ts'
import type { EventRecorder } from '#client/events.ts'
import type { Store } from '#client/informer.ts'
import type { CgroupTree } from '#kernel/cgroup.ts'
import type { NodeFacts } from '../containers/downward.ts'
import type { SandboxOptions } from '../containers/sandbox-config.ts'
import type { Objects } from '../objects/objects.ts'
import type { Probes } from '../probes/probes.ts'
import type { Runtime } from '../runtime/runtime.ts'
import type { Volumes } from '../volumes/volumes.ts'

/** What every pod's loop of a node works with. */
export interface NodeContext extends SandboxOptions {
  readonly client: Client
  readonly runtime: Runtime
  readonly volumes: Volumes
  readonly objects: Objects
  readonly probes: Probes
  readonly events: Pick<EventRecorder, 'record'>
  readonly services: Pick<Store<Service>, 'list' | 'get'>
  /** Resolves when the services are known: an environment made earlier would lack them. */
  readonly servicesSynced: (signal: AbortSignal) => Promise<void>
  readonly clock: Clock
  readonly log: Log
  /** Undefined where there is no real kernel behind the runtime (the fake). */
  readonly cgroups: CgroupTree | undefined
  readonly node: () => NodeFacts
  readonly runtimeName: string
  readonly memoryBytes: number
}
