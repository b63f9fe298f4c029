import { join } from 'node:path'
import type { Pod, PodSecurityContext, SecurityContext } from '#api/gen/core-v1.ts'
import { type NamespaceOptions, podLabels, type SandboxConfig, type SecurityProfile } from '../runtime/runtime.ts'
import { type DnsOptions, dnsOf, hostnameOf } from './names.ts'

/** What of the node goes into a pod's sandbox. */
export interface SandboxOptions {
  /** `/weft/c/node-1/pods`: each pod has a cgroup below it. */
  readonly podsCgroup: string
  readonly logsDir: string
  /** Seccomp profiles of type Localhost are below it. */
  readonly seccompDir: string
  readonly dns: DnsOptions
}

/** Where containerd writes the logs of a pod's containers. */
export const podLogDir = (logsDir: string, { namespace, name, uid }: Pod['metadata']): string =>
  join(logsDir, `${namespace}_${name}_${uid}`)

/** The sandbox of a pod in CRI's terms. Pure. */
export function sandboxConfig(pod: Pod, attempt: number, options: SandboxOptions): SandboxConfig {
  const { spec, metadata } = pod
  const security = spec.securityContext
  const privileged = [...(spec.initContainers ?? []), ...spec.containers].some(
    (c) => c.securityContext?.privileged === true,
  )
  return {
    metadata: { name: metadata.name, namespace: metadata.namespace, uid: metadata.uid, attempt },
    // A sandbox on the node's network may not have a host name of its own: it would change the node's.
    hostname: spec.hostNetwork === true ? '' : hostnameOf(pod, options.dns.domain).hostname,
    logDirectory: podLogDir(options.logsDir, metadata),
    dnsConfig: dnsOf(pod, options.dns),
    labels: {
      ...metadata.labels,
      [podLabels.name]: metadata.name,
      [podLabels.namespace]: metadata.namespace,
      [podLabels.uid]: metadata.uid,
    },
    annotations: { ...metadata.annotations },
    linux: {
      cgroupParent: `${options.podsCgroup}/${metadata.uid}`,
      sysctls: Object.fromEntries((security?.sysctls ?? []).map(({ name, value }) => [name, value])),
      securityContext: {
        namespaceOptions: namespacesOf(pod),
        privileged,
        readonlyRootfs: false,
        ...runAs(security),
        supplementalGroups: groupsOf(security),
        // The pause program does nothing: the runtime's own profile is always enough.
        seccomp: { profileType: 'RuntimeDefault' },
      },
    },
  }
}

export function namespacesOf({ spec }: Pod): NamespaceOptions {
  return {
    network: spec.hostNetwork === true ? 'NODE' : 'POD',
    pid: spec.hostPID === true ? 'NODE' : spec.shareProcessNamespace === true ? 'POD' : 'CONTAINER',
    ipc: spec.hostIPC === true ? 'NODE' : 'POD',
  }
}

/** fsGroup is a supplemental group of every process. */
export function groupsOf(security: PodSecurityContext | undefined): number[] {
  const { supplementalGroups = [], fsGroup } = security ?? {}
  return [...new Set([...supplementalGroups, ...(fsGroup === undefined ? [] : [fsGroup])])]
}

/** The container's word counts before the pod's. CRI wants no group without a user. */
export function runAs(
  pod: PodSecurityContext | undefined,
  container?: SecurityContext,
): { runAsUser?: { value: number }; runAsGroup?: { value: number } } {
  const user = container?.runAsUser ?? pod?.runAsUser
  const group = container?.runAsGroup ?? pod?.runAsGroup
  return {
    ...(user === undefined ? {} : { runAsUser: { value: user } }),
    ...(group === undefined ? {} : { runAsGroup: { value: group } }),
  }
}

/** Upstream's default is Unconfined; a pod asks for RuntimeDefault. */
export function seccompOf(
  pod: PodSecurityContext | undefined,
  container: SecurityContext | undefined,
  seccompDir: string,
): SecurityProfile {
  const profile = container?.seccompProfile ?? pod?.seccompProfile
  if (profile === undefined || container?.privileged === true) return { profileType: 'Unconfined' }
  if (profile.type === 'Localhost')
    return { profileType: 'Localhost', localhostRef: join(seccompDir, profile.localhostProfile ?? '') }
  return { profileType: profile.type === 'RuntimeDefault' ? 'RuntimeDefault' : 'Unconfined' }
}
