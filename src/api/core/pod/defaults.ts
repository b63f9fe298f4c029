import type {
  Container,
  EphemeralContainer,
  HTTPGetAction,
  Lifecycle,
  PodSpec,
  PodTemplateSpec,
  Probe,
  ResourceRequirements,
  Volume,
} from '../../gen/core-v1.ts'

/** Upstream's defaults of a pod (kk:pkg/apis/core/v1/defaults.go), in place. */

const fileMode = 0o644

/** A template gets what a pod gets, but for what depends on the pod being a pod. */
export function defaultTemplate(template: PodTemplateSpec | undefined): void {
  if (template === undefined) return
  template.metadata ??= {}
  template.spec ??= { containers: [] }
  defaultPodSpec(template.spec)
}

export function defaultPodSpec(spec: PodSpec): void {
  spec.restartPolicy ||= 'Always'
  spec.dnsPolicy ||= 'ClusterFirst'
  spec.schedulerName ||= 'default-scheduler'
  spec.securityContext ??= {}
  spec.terminationGracePeriodSeconds ??= 30
  // Two names of one field: the old one is still written, for old readers.
  if (spec.serviceAccountName === undefined && spec.serviceAccount) spec.serviceAccountName = spec.serviceAccount
  if (spec.serviceAccountName) spec.serviceAccount = spec.serviceAccountName
  for (const container of spec.containers ?? []) defaultContainer(container)
  for (const container of spec.initContainers ?? []) defaultContainer(container)
  for (const container of spec.ephemeralContainers ?? []) defaultContainer(container)
  for (const volume of spec.volumes ?? []) defaultVolume(volume)
  for (const constraint of spec.topologySpreadConstraints ?? []) {
    constraint.nodeAffinityPolicy ??= 'Honor'
    constraint.nodeTaintsPolicy ??= 'Ignore'
  }
}

/** Only for pods themselves: a template stays as its author wrote it. */
export function defaultPodOnly(spec: PodSpec): void {
  spec.enableServiceLinks ??= true
  for (const container of spec.containers ?? []) defaultInPod(container, spec)
  for (const container of spec.initContainers ?? []) defaultInPod(container, spec)
  defaultRequests(spec.resources)
}

function defaultInPod(container: Container, spec: PodSpec): void {
  defaultRequests(container.resources)
  // On the node's own network the two can only be the same.
  if (spec.hostNetwork) for (const port of container.ports ?? []) port.hostPort ||= port.containerPort
}

function defaultContainer(container: Container | EphemeralContainer): void {
  container.resources ??= {}
  container.terminationMessagePath ||= '/dev/termination-log'
  container.terminationMessagePolicy ||= 'File'
  container.imagePullPolicy ||= pullPolicyOf(container.image ?? '')
  for (const port of container.ports ?? []) port.protocol ||= 'TCP'
  for (const variable of container.env ?? []) {
    const reference = variable.valueFrom?.fieldRef
    if (reference) reference.apiVersion ||= 'v1'
    const resource = variable.valueFrom?.resourceFieldRef
    if (resource) resource.divisor ??= '0'
  }
  defaultProbe(container.livenessProbe)
  defaultProbe(container.readinessProbe)
  defaultProbe(container.startupProbe)
  defaultLifecycle(container.lifecycle)
}

/** Whoever limits a resource and asks for nothing asks for the limit. */
function defaultRequests(resources: ResourceRequirements | undefined): void {
  if (resources?.limits === undefined) return
  for (const name in resources.limits) {
    const limit = resources.limits[name]
    if (limit === undefined || resources.requests?.[name] !== undefined) continue
    resources.requests ??= {}
    resources.requests[name] = limit
  }
}

/** Without a tag, or with `latest`, what is on the node may be old. */
export function pullPolicyOf(image: string): 'Always' | 'IfNotPresent' {
  if (image === '' || image.includes('@')) return 'IfNotPresent'
  const tag = image.slice(image.lastIndexOf('/') + 1).split(':')[1]
  return tag === undefined || tag === '' || tag === 'latest' ? 'Always' : 'IfNotPresent'
}

function defaultProbe(probe: Probe | undefined): void {
  if (probe === undefined) return
  probe.timeoutSeconds ||= 1
  probe.periodSeconds ||= 10
  probe.successThreshold ||= 1
  probe.failureThreshold ||= 3
  defaultHttpGet(probe.httpGet)
  if (probe.grpc) probe.grpc.service ??= ''
}

function defaultLifecycle(lifecycle: Lifecycle | undefined): void {
  defaultHttpGet(lifecycle?.postStart?.httpGet)
  defaultHttpGet(lifecycle?.preStop?.httpGet)
}

function defaultHttpGet(action: HTTPGetAction | undefined): void {
  if (action === undefined) return
  action.path ||= '/'
  action.scheme ||= 'HTTP'
}

function defaultVolume(volume: Volume): void {
  if (volume.configMap) volume.configMap.defaultMode ??= fileMode
  else if (volume.secret) volume.secret.defaultMode ??= fileMode
  else if (volume.projected) {
    volume.projected.defaultMode ??= fileMode
    for (const { serviceAccountToken, downwardAPI } of volume.projected.sources ?? []) {
      if (serviceAccountToken) serviceAccountToken.expirationSeconds ??= 3600
      for (const item of downwardAPI?.items ?? []) if (item.fieldRef) item.fieldRef.apiVersion ||= 'v1'
    }
  } else if (volume.downwardAPI) {
    volume.downwardAPI.defaultMode ??= fileMode
    for (const item of volume.downwardAPI.items ?? []) {
      if (item.fieldRef) item.fieldRef.apiVersion ||= 'v1'
      if (item.resourceFieldRef) item.resourceFieldRef.divisor ??= '0'
    }
  } else if (volume.hostPath) volume.hostPath.type ??= ''
  else if (volume.ephemeral?.volumeClaimTemplate) volume.ephemeral.volumeClaimTemplate.spec.volumeMode ??= 'Filesystem'
  else if (volume.image) volume.image.pullPolicy ||= pullPolicyOf(volume.image.reference ?? '')
  else if (hasNoSource(volume)) volume.emptyDir = {}
}

/** A volume that is only a name is an empty directory. */
function hasNoSource(volume: Volume): boolean {
  for (const key in volume) if (key !== 'name') return false
  return true
}
