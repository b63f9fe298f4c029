import type { KubeObject, Resource } from '#api/meta/resource.ts'
import { forbidden, type StatusError } from '#api/meta/status.ts'
import type { AdmissionRequest } from '../step.ts'

/** One admission plug-in. What it does not have it has no say in. */
export interface AdmissionStep {
  /** Upstream's name of the plug-in, where it is one of upstream's. */
  readonly name: string
  /** Waits, where something this request needs may be about to appear; undefined when there is nothing to wait for. */
  prepare?(request: AdmissionRequest): Promise<void> | undefined
  mutate?(request: AdmissionRequest): void
  validate?(request: AdmissionRequest): void
  /** Once for each request that `mutate` saw, also when another step or the write refused it. */
  settled?(request: AdmissionRequest, outcome: 'written' | 'failed'): void
}

/** Whether the request is about this resource, or this subresource of it. */
export function isAbout({ attributes }: AdmissionRequest, resource: Resource, subresource = ''): boolean {
  return (
    attributes.resource === resource.resource &&
    attributes.group === resource.group &&
    attributes.subresource === subresource
  )
}

/** The object of a request that is about its resource; the type is what the decoder made. */
export const objectOf = <K extends KubeObject>({ object }: AdmissionRequest, _resource: Resource<K>): K | undefined =>
  object as K | undefined
export const oldOf = <K extends KubeObject>({ old }: AdmissionRequest, _resource: Resource<K>): K | undefined =>
  old as K | undefined

export function nameOf({ attributes, object }: AdmissionRequest): string {
  if (attributes.name !== '') return attributes.name
  return object?.metadata?.name || object?.metadata?.generateName || 'Unknown'
}

/** `pods "x" is forbidden: why` */
export const refusal = (request: AdmissionRequest, why: string): StatusError =>
  forbidden(request.attributes, nameOf(request), why)
