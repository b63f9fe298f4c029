import { createHash } from 'node:crypto'
import type { Container, Pod } from '#api/gen/core-v1.ts'
import { type ContainerConfig, type ImageRecord, type Mount, podLabels } from '../runtime/runtime.ts'
import { ConfigError } from './env.ts'
import { expand } from './expand.ts'
import { linuxResourcesOf } from './resources.ts'
import { groupsOf, namespacesOf, runAs, seccompOf } from './sandbox-config.ts'

export interface ContainerInput {
  readonly pod: Pod
  readonly container: Container
  readonly attempt: number
  readonly env: ReadonlyMap<string, string>
  readonly mounts: readonly Mount[]
  readonly image: ImageRecord
  readonly seccompDir: string
  /** Of the node: the OOM score is measured by it. */
  readonly memoryBytes: number
}

/** Annotations by which a restarted agent knows what it needs to end a container properly. */
export const annotations = {
  hash: 'io.kubernetes.container.hash',
  messagePath: 'io.kubernetes.container.terminationMessagePath',
  messagePolicy: 'io.kubernetes.container.terminationMessagePolicy',
} as const

/** What runc hides and protects in /proc unless told otherwise (runtime-spec's usual lists, as in CRI's defaults). */
const masked = [
  '/proc/asound',
  '/proc/acpi',
  '/proc/interrupts',
  '/proc/kcore',
  '/proc/keys',
  '/proc/latency_stats',
  '/proc/timer_list',
  '/proc/timer_stats',
  '/proc/sched_debug',
  '/proc/scsi',
  '/sys/firmware',
  '/sys/devices/virtual/powercap',
]
const readOnly = ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger']

/** Changes when the container in the spec does: then it is another one. */
export const containerHash = (container: Container): string =>
  createHash('sha256')
    .update(JSON.stringify({ name: container.name, image: container.image }))
    .digest('hex')
    .slice(0, 8)

/** A container in CRI's terms. Pure. Throws `ConfigError` where it may not run as its image wants. */
export function containerConfig(input: ContainerInput): ContainerConfig {
  const { pod, container, attempt, env, mounts, image, seccompDir, memoryBytes } = input
  const security = container.securityContext
  const podSecurity = pod.spec.securityContext
  const privileged = security?.privileged === true
  const unmasked = privileged || security?.procMount === 'Unmasked'
  const lookup = (name: string) => env.get(name)
  const { metadata } = pod
  checkNonRoot(input)
  return {
    metadata: { name: container.name, attempt },
    image: { image: image.id, userSpecifiedImage: container.image ?? '' },
    command: (container.command ?? []).map((word) => expand(word, lookup)),
    args: (container.args ?? []).map((word) => expand(word, lookup)),
    workingDir: container.workingDir ?? '',
    envs: [...env].map(([key, value]) => ({ key, value })),
    mounts,
    devices: [],
    labels: {
      [podLabels.name]: metadata.name,
      [podLabels.namespace]: metadata.namespace,
      [podLabels.uid]: metadata.uid,
      [podLabels.container]: container.name,
    },
    annotations: {
      [annotations.hash]: containerHash(container),
      [annotations.messagePath]: container.terminationMessagePath ?? '/dev/termination-log',
      [annotations.messagePolicy]: container.terminationMessagePolicy ?? 'File',
    },
    logPath: `${container.name}/${attempt}.log`,
    stdin: container.stdin === true,
    stdinOnce: container.stdinOnce === true,
    tty: container.tty === true,
    linux: {
      resources: linuxResourcesOf(container, pod.spec, memoryBytes),
      securityContext: {
        ...(security?.capabilities === undefined
          ? {}
          : {
              capabilities: {
                addCapabilities: security.capabilities.add ?? [],
                dropCapabilities: security.capabilities.drop ?? [],
              },
            }),
        privileged,
        namespaceOptions: namespacesOf(pod),
        ...runAs(podSecurity, security),
        ...imageUser(input),
        readonlyRootfs: security?.readOnlyRootFilesystem === true,
        supplementalGroups: groupsOf(podSecurity),
        noNewPrivs: security?.allowPrivilegeEscalation === false,
        maskedPaths: unmasked ? [] : masked,
        readonlyPaths: unmasked ? [] : readOnly,
        seccomp: seccompOf(podSecurity, security, seccompDir),
      },
    },
  }
}

/** A group needs a user: then the image's own is named. */
function imageUser({ pod, container, image }: ContainerInput): {
  runAsUser?: { value: number }
  runAsUsername?: string
} {
  const set = runAs(pod.spec.securityContext, container.securityContext)
  if (set.runAsUser !== undefined || set.runAsGroup === undefined) return {}
  return image.username === '' ? { runAsUser: { value: image.uid ?? 0 } } : { runAsUsername: image.username }
}

function checkNonRoot({ pod, container, image }: ContainerInput): void {
  const required = container.securityContext?.runAsNonRoot ?? pod.spec.securityContext?.runAsNonRoot
  if (required !== true) return
  const where = `(pod: "${pod.metadata.name}_${pod.metadata.namespace}(${pod.metadata.uid})", container: ${container.name})`
  const user = container.securityContext?.runAsUser ?? pod.spec.securityContext?.runAsUser
  if (user === 0) throw new ConfigError(`container's runAsUser breaks non-root policy ${where}`)
  if (user !== undefined) return
  if (image.username !== '')
    throw new ConfigError(
      `container has runAsNonRoot and image has non-numeric user (${image.username}), cannot verify user is non-root ${where}`,
    )
  if ((image.uid ?? 0) === 0) throw new ConfigError(`container has runAsNonRoot and image will run as root ${where}`)
}
