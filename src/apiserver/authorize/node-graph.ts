import type { Container, EphemeralContainer, Pod } from '#api/gen/core-v1.ts'
import { pods } from '#api/gen/resources.ts'
import type { Registry } from '../step.ts'

export type ReferenceKind = 'pod' | 'secret' | 'configmap' | 'serviceaccount'

/**
 * Which objects the pods of a node name. For each node a count per object: a pod adds one to everything it names when it
 * is bound and takes it away when it goes, so an object is reachable exactly while some pod there needs it.
 */
export class NodeGraph {
  readonly #nodes = new Map<string, Map<string, number>>()

  constructor(registry: Registry) {
    for (const pod of registry.list(pods)) this.#count(pod, 1)
    registry.onChange(pods, (next, old) => {
      // What a bound pod names can change too: ephemeral containers.
      if (next) this.#count(next, 1)
      if (old) this.#count(old, -1)
    })
  }

  reaches(node: string, kind: ReferenceKind, namespace: string, name: string): boolean {
    return this.#nodes.get(node)?.has(`${kind}/${namespace}/${name}`) ?? false
  }

  #count(pod: Pod, step: 1 | -1): void {
    const node = pod.spec.nodeName
    if (node === undefined || node === '') return
    const counts = this.#nodes.get(node) ?? new Map<string, number>()
    this.#nodes.set(node, counts)
    for (const key of references(pod)) {
      const count = (counts.get(key) ?? 0) + step
      if (count > 0) counts.set(key, count)
      else counts.delete(key)
    }
    if (counts.size === 0) this.#nodes.delete(node)
  }
}

/** `kind/namespace/name` of everything a pod names, itself included; each once. */
export function references({ metadata, spec }: Pod): ReadonlySet<string> {
  const found = new Set<string>()
  const add = (kind: ReferenceKind, name: string | undefined): void => {
    if (name !== undefined && name !== '') found.add(`${kind}/${metadata.namespace}/${name}`)
  }
  add('pod', metadata.name)
  add('serviceaccount', spec.serviceAccountName)
  for (const { name } of spec.imagePullSecrets ?? []) add('secret', name)
  for (const volume of spec.volumes ?? []) {
    add('secret', volume.secret?.secretName)
    add('configmap', volume.configMap?.name)
    for (const source of volume.projected?.sources ?? []) {
      add('secret', source.secret?.name)
      add('configmap', source.configMap?.name)
    }
  }
  const containers: (Container | EphemeralContainer)[] = [
    ...(spec.initContainers ?? []),
    ...spec.containers,
    ...(spec.ephemeralContainers ?? []),
  ]
  for (const { env = [], envFrom = [] } of containers) {
    for (const { valueFrom } of env) {
      add('secret', valueFrom?.secretKeyRef?.name)
      add('configmap', valueFrom?.configMapKeyRef?.name)
    }
    for (const source of envFrom) {
      add('secret', source.secretRef?.name)
      add('configmap', source.configMapRef?.name)
    }
  }
  return found
}
