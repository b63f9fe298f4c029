import type { ContainerStatus, Pod, PodStatus } from '#api/gen/core-v1.ts'
import type { EventNote } from '#client/events.ts'

/** What the step from the status that the API has to the next one is worth telling of containers that now wait. Pure. */
export function backOffNotes({ metadata, spec, status }: Pod, next: PodStatus): EventNote[] {
  const { name, namespace, uid } = metadata
  const of = (s: PodStatus | undefined): readonly ContainerStatus[] => [
    ...(s?.initContainerStatuses ?? []),
    ...(s?.containerStatuses ?? []),
  ]
  const inits = new Set(spec.initContainers?.map((c) => c.name))
  return of(next).flatMap((now): EventNote[] => {
    const reason = now.state?.waiting?.reason
    const before = of(status).find((s) => s.name === now.name)
    if (before?.state?.waiting?.reason === reason && before?.containerID === now.containerID) return []
    const fieldPath = `spec.${inits.has(now.name) ? 'initContainers' : 'containers'}{${now.name}}`
    if (reason === 'CrashLoopBackOff') {
      const message = `Back-off restarting failed container ${now.name} in pod ${name}_${namespace}(${uid})`
      return [{ type: 'Warning', reason: 'BackOff', message, fieldPath }]
    }
    if (reason !== 'ImagePullBackOff') return []
    return [
      { type: 'Normal', reason: 'BackOff', message: `Back-off pulling image "${now.image}"`, fieldPath },
      { type: 'Warning', reason: 'Failed', message: 'Error: ImagePullBackOff', fieldPath },
    ]
  })
}
