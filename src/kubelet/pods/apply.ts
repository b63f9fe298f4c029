import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Container, Service } from '#api/gen/core-v1.ts'
import { pods } from '#api/gen/resources.ts'
import { isStatus } from '#api/meta/status.ts'
import type { Log } from '#base/log/log.ts'
import { ensureCgroup, isPopulated, killCgroup, removeCgroup } from '#kernel/cgroup.ts'
import { containerConfig } from '../containers/container-config.ts'
import { ConfigError, environmentOf, envReferences } from '../containers/env.ts'
import { fieldPathOf } from '../containers/field-path.ts'
import { runHook } from '../containers/hooks.ts'
import { ensureImage, ImageError } from '../containers/images.ts'
import { formatHosts } from '../containers/names.ts'
import { podLimitsOf } from '../containers/resources.ts'
import { podLogDir, sandboxConfig } from '../containers/sandbox-config.ts'
import { createMessageFile, messageFile } from '../containers/termination-message.ts'
import { detailOf, type ImageRecord, type Mount } from '../runtime/runtime.ts'
import { type PodFacts, viewsOf } from './facts.ts'
import type { Memory } from './memory.ts'
import type { NodeContext } from './node-context.ts'
import { type Action, graceSecondsDefault } from './plan.ts'
import { raise } from './restart.ts'

/** One pod's share of the node, for carrying out one action. */
export interface PodWork {
  readonly context: NodeContext
  readonly facts: PodFacts
  readonly memory: Memory
  readonly log: Log
  /** Aborts when the pod is to end: a pull is not worth waiting for then. */
  readonly ending: AbortSignal
  /** Called when the pod has left the API, or this node. */
  readonly vanished: (what: 'object' | 'everything') => void
}

/** Upstream tries a sandbox again each time it looks at the pod; we back off to what it is at rest. */
const retryFirstMs = 1_000
const retryMaxMs = 30_000
const retryAfter = (failures: number): number => Math.min(retryMaxMs, retryFirstMs * 2 ** Math.min(10, failures))
const hinderedMs = 10_000
/** Hooks that outlive this have been forgotten by whoever wrote them. */
const postStartMs = 600_000

/** Carries out one action. What fails is written into the memory and told as an event; only a bug throws. */
export async function applyAction(action: Action, work: PodWork, signal: AbortSignal): Promise<void> {
  const { context, memory, facts } = work
  const { runtime, volumes } = context
  const { uid } = facts.pod.metadata
  switch (action.do) {
    case 'mount-volumes':
      return mountVolumes(work, signal)
    case 'unmount-volumes':
      volumes.unmount(uid)
      memory.volumes = 'none'
      return
    case 'create-sandbox':
      return createSandbox(action, work, signal)
    case 'stop-sandbox':
      await runtime.stopSandbox(action.id, signal)
      memory.stopped.add(action.id)
      return
    case 'remove-sandbox':
      await runtime.stopSandbox(action.id, signal)
      await runtime.removeSandbox(action.id, signal)
      memory.stopped.delete(action.id)
      return
    case 'start-container':
      return startContainer(action, work, signal)
    case 'stop-container':
      return stopContainer(action, work, signal)
    case 'remove-container':
      return runtime.removeContainer(action.id, signal)
    case 'end-pod':
      memory.end = action.end
      note(work, 'Normal', action.end.reason, action.end.message)
      return
    case 'clean-up':
      return cleanUp(work)
    case 'delete-object':
      return deleteObject(work, signal)
    default:
      throw new Error(`Cannot apply ${JSON.stringify(action satisfies never)}`)
  }
}

function note(
  { context, facts }: PodWork,
  type: 'Normal' | 'Warning',
  reason: string,
  message: string,
  container?: Container,
) {
  const fieldPath = container === undefined ? {} : { fieldPath: fieldPathOf(facts.pod, container) }
  context.events.record(facts.pod, { type, reason, message, ...fieldPath })
}

async function mountVolumes(work: PodWork, signal: AbortSignal): Promise<void> {
  const { context, memory, facts } = work
  try {
    await context.volumes.mount(facts.pod, signal)
    memory.volumes = 'mounted'
    memory.volumesFailures = 0
  } catch (error) {
    if (signal.aborted) return
    memory.volumesRetryAt = context.clock.now() + retryAfter(memory.volumesFailures++)
    note(work, 'Warning', 'FailedMount', error instanceof Error ? error.message : String(error))
  }
}

async function createSandbox(
  action: Action & { do: 'create-sandbox' },
  work: PodWork,
  signal: AbortSignal,
): Promise<void> {
  const { context, memory, facts, log } = work
  const { pod } = facts
  const { runtime, cgroups } = context
  for (const id of action.stopFirst) {
    await runtime.stopSandbox(id, signal)
    memory.stopped.add(id)
  }
  const config = sandboxConfig(pod, action.attempt, context)
  try {
    mkdirSync(config.logDirectory, { recursive: true, mode: 0o755 })
    if (cgroups !== undefined) ensureCgroup(cgroups, config.linux.cgroupParent, podLimitsOf(pod.spec))
    await runtime.runSandbox(config, pod.spec.runtimeClassName ?? '', signal)
    memory.sandboxFailures = 0
  } catch (error) {
    if (signal.aborted) return
    memory.sandboxRetryAt = context.clock.now() + retryAfter(memory.sandboxFailures++)
    log.warn({ err: error }, 'cannot create a pod sandbox')
    note(work, 'Warning', 'FailedCreatePodSandBox', `Failed to create pod sandbox: ${detailOf(error)}`)
  }
}

async function startContainer(
  action: Action & { do: 'start-container' },
  work: PodWork,
  signal: AbortSignal,
): Promise<void> {
  const { context, memory, facts, log } = work
  const { runtime, clock } = context
  const { pod } = facts
  const views = viewsOf(facts)
  const view = [...views.init, ...views.apps].find((v) => v.spec.name === action.name)
  const sandbox = facts.sandboxes.find((s) => s.id === action.sandboxId)
  if (view === undefined || sandbox === undefined) return
  const container = view.spec
  const hinder = (reason: string, error: unknown, retryMs = hinderedMs) => {
    const message = detailOf(error)
    memory.hindrances.set(container.name, { reason, message, retryAt: clock.now() + retryMs })
    note(work, 'Warning', 'Failed', `Error: ${message}`, container)
    log.warn({ err: error, container: container.name }, 'cannot start a container')
  }

  let image: ImageRecord
  try {
    const bound = AbortSignal.any([signal, work.ending])
    image = await ensureImage(context, pod, container, memory.pullFailures.get(container.image ?? '') ?? 0, bound)
    memory.pullFailures.delete(container.image ?? '')
    if (work.ending.aborted) return
  } catch (error) {
    if (signal.aborted || work.ending.aborted) return
    if (!(error instanceof ImageError)) return hinder('ImageInspectError', error)
    if (error.hindrance.reason === 'ErrImagePull')
      memory.pullFailures.set(container.image ?? '', (memory.pullFailures.get(container.image ?? '') ?? 0) + 1)
    memory.hindrances.set(container.name, error.hindrance)
    return
  }

  let id: string
  try {
    const env = await environment(work, container, sandbox.ips, signal)
    const mounts = [
      ...context.volumes.mountsOf(pod, container, env),
      ...ownMounts(work, container, action.attempt, sandbox.ips),
    ]
    const { seccompDir, memoryBytes } = context
    const config = containerConfig({
      pod,
      container,
      attempt: action.attempt,
      env,
      mounts,
      image,
      seccompDir,
      memoryBytes,
    })
    const sandboxOf = sandboxConfig(pod, sandbox.attempt, context)
    mkdirSync(join(sandboxOf.logDirectory, container.name), { recursive: true, mode: 0o755 })
    id = await runtime.createContainer(sandbox.id, config, sandboxOf, signal)
  } catch (error) {
    if (signal.aborted) return
    return hinder(error instanceof ConfigError ? 'CreateContainerConfigError' : 'CreateContainerError', error)
  }
  note(work, 'Normal', 'Created', 'Container created', container)
  if (view.record?.state === 'exited')
    memory.backoffs.set(container.name, raise(view.record, memory.backoffs.get(container.name)))
  if (container.lifecycle?.postStart) memory.hooking.add(id)
  memory.hindrances.delete(container.name)
  try {
    await runtime.startContainer(id, signal)
  } catch (error) {
    memory.hooking.delete(id)
    if (signal.aborted) return
    // The runtime keeps the container as ended, with its reason: that is what the status shows and the back-off counts.
    note(work, 'Warning', 'Failed', `Error: ${detailOf(error)}`, container)
    return
  }
  note(work, 'Normal', 'Started', 'Container started', container)
  await postStart(work, container, id, sandbox.ips[0] ?? context.node().ips[0] ?? '', signal)
}

async function postStart(
  work: PodWork,
  container: Container,
  id: string,
  ip: string,
  signal: AbortSignal,
): Promise<void> {
  const { context, memory, facts } = work
  const hook = container.lifecycle?.postStart
  if (hook === undefined) return
  try {
    await runHook(context.runtime, context.clock, hook, { containerId: id, container, ip }, postStartMs, signal)
    memory.hooking.delete(id)
  } catch (error) {
    if (signal.aborted) return
    const why = error instanceof Error ? error.message : String(error)
    note(work, 'Warning', 'FailedPostStartHook', `PostStartHook failed: ${why}`, container)
    const graceSeconds = facts.pod.spec.terminationGracePeriodSeconds ?? graceSecondsDefault
    await stopContainer(
      { do: 'stop-container', id, name: container.name, graceSeconds, why: 'FailedPostStartHook' },
      work,
      signal,
    )
    memory.hooking.delete(id)
  }
}

async function environment(
  { context, facts }: PodWork,
  container: Container,
  podIps: readonly string[],
  signal: AbortSignal,
): Promise<Map<string, string>> {
  const { objects, services, node } = context
  const { pod } = facts
  const { namespace, uid } = pod.metadata
  const { configMaps, secrets } = envReferences(container)
  const maps = new Map(
    await Promise.all(configMaps.map(async (name) => [name, await objects.configMap(uid, namespace, name)] as const)),
  )
  const hidden = new Map(
    await Promise.all(secrets.map(async (name) => [name, await objects.secret(uid, namespace, name)] as const)),
  )
  await context.servicesSynced(signal)
  const master = services.get('default/kubernetes')
  const seen: Service[] = [...services.list(namespace)]
  if (master !== undefined && namespace !== 'default') seen.unshift(master)
  return environmentOf(pod, container, {
    configMap: (name) => maps.get(name),
    secret: (name) => hidden.get(name),
    services: seen,
    node: node(),
    podIps: pod.spec.hostNetwork === true ? node().ips : podIps,
  })
}

/** What every container gets besides its volumes: /etc/hosts and a file for its last words. */
function ownMounts(
  { context, facts }: PodWork,
  container: Container,
  attempt: number,
  ips: readonly string[],
): Mount[] {
  const { pod } = facts
  const podDir = context.volumes.podDir(pod.metadata.uid)
  mkdirSync(podDir, { recursive: true, mode: 0o750 })
  const at = (hostPath: string, containerPath: string): Mount => ({
    containerPath,
    hostPath,
    readonly: false,
    propagation: 'PROPAGATION_PRIVATE',
  })
  const mounts: Mount[] = []
  if (!container.volumeMounts?.some((m) => m.mountPath === '/etc/hosts')) {
    const hosts = join(podDir, 'etc-hosts')
    const own = pod.spec.hostNetwork === true ? readFileSync('/etc/hosts', 'utf8') : ''
    writeFileSync(hosts, formatHosts(pod, ips, context.dns.domain, own), { mode: 0o644 })
    mounts.push(at(hosts, '/etc/hosts'))
  }
  const message = messageFile(podDir, container.name, attempt)
  createMessageFile(message)
  mounts.push(at(message, container.terminationMessagePath ?? '/dev/termination-log'))
  return mounts
}

async function stopContainer(
  action: Action & { do: 'stop-container' },
  work: PodWork,
  signal: AbortSignal,
): Promise<void> {
  const { context, memory, facts } = work
  const { runtime, clock } = context
  const { pod, sandboxes } = facts
  const { initContainers = [], containers } = pod.spec
  const container = [...containers, ...initContainers].find((c) => c.name === action.name)
  const first = !memory.stopping.has(action.id)
  const deadline = clock.now() + action.graceSeconds * 1000
  memory.stopping.set(action.id, deadline)
  try {
    if (first) note(work, 'Normal', 'Killing', action.why, container)
    const hook = container?.lifecycle?.preStop
    if (container !== undefined && hook !== undefined && !memory.preStopped.has(action.id)) {
      memory.preStopped.add(action.id)
      await preStop(work, container, action.id, sandboxes[0]?.ips[0] ?? context.node().ips[0] ?? '', deadline, signal)
    }
    const left = Math.max(2, Math.ceil((deadline - clock.now()) / 1000))
    await runtime.stopContainer(action.id, Math.min(left, Math.max(1, action.graceSeconds)), signal)
  } finally {
    memory.stopping.delete(action.id)
  }
}

async function preStop(
  work: PodWork,
  container: Container,
  id: string,
  ip: string,
  deadline: number,
  signal: AbortSignal,
): Promise<void> {
  const { context } = work
  const hook = container.lifecycle?.preStop
  const timeoutMs = deadline - context.clock.now()
  if (hook === undefined || timeoutMs <= 0) return
  const bound = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)])
  try {
    await runHook(context.runtime, context.clock, hook, { containerId: id, container, ip }, timeoutMs, bound)
  } catch (error) {
    if (signal.aborted) throw error
    const why = error instanceof Error ? error.message : String(error)
    note(work, 'Warning', 'FailedPreStopHook', `PreStopHook failed: ${why}`, container)
  }
}

function cleanUp({ context, facts, vanished }: PodWork): void {
  const { uid } = facts.pod.metadata
  const cgroup = `${context.podsCgroup}/${uid}`
  // The runtime has nothing of the pod any more: what still lives is what it lost when it was killed itself.
  if (context.cgroups !== undefined && isPopulated(context.cgroups, cgroup) === true) {
    killCgroup(context.cgroups, cgroup)
    throw new Error(`Killed processes in ${cgroup} that the runtime does not know of`)
  }
  context.probes.forget(uid)
  context.objects.release(uid)
  if (context.cgroups !== undefined) removeCgroup(context.cgroups, cgroup)
  rmSync(podLogDir(context.logsDir, facts.pod.metadata), { recursive: true, force: true })
  // Last, because its directory is how an agent that has just come up knows that something of the pod is here.
  context.volumes.remove(uid)
  vanished('everything')
}

async function deleteObject({ context, facts, vanished }: PodWork, signal: AbortSignal): Promise<void> {
  const { namespace, name, uid } = facts.pod.metadata
  try {
    await context.client.delete(pods, { namespace, name }, { gracePeriodSeconds: 0, preconditions: { uid }, signal })
  } catch (error) {
    // Somebody else did it, and perhaps made another of the same name.
    if (!isStatus(error, 'NotFound') && !isStatus(error, 'Conflict')) throw error
  }
  vanished('object')
}
