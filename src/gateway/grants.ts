import type { ReferenceGrant } from './objects.ts'

/** One end of a reference: what refers, or what is referred to. */
export interface Referent {
  readonly group: string
  readonly kind: string
  readonly namespace: string
  /** Of what is referred to. */
  readonly name?: string
}

/** Grants as a function: an object of the same namespace needs none, any other one that names both ends. */
export interface Grants {
  permits(from: Referent, to: Referent & { readonly name: string }): boolean
}

export function grantsOf(grants: Iterable<ReferenceGrant>): Grants {
  const byNamespace = new Map<string, ReferenceGrant[]>()
  for (const grant of grants) {
    const { namespace } = grant.metadata
    const present = byNamespace.get(namespace)
    if (present === undefined) byNamespace.set(namespace, [grant])
    else present.push(grant)
  }
  return {
    permits(from, to) {
      if (from.namespace === to.namespace) return true
      return (byNamespace.get(to.namespace) ?? []).some(
        ({ spec }) =>
          spec.from.some((f) => f.group === from.group && f.kind === from.kind && f.namespace === from.namespace) &&
          spec.to.some(
            (t) =>
              t.group === to.group &&
              t.kind === to.kind &&
              (t.name === undefined || t.name === '' || t.name === to.name),
          ),
      )
    },
  }
}
