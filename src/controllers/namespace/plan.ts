import type { NamespaceCondition } from '#api/gen/core-v1.ts'
import { withCondition } from '#api/meta/conditions.ts'
import type { Resource } from '#api/meta/resource.ts'
import type { Discovered, ServedResource } from '#client/discovery.ts'
import { qualifiedName } from '#client/key.ts'

/** The finalizer that holds a namespace until its content is gone. */

/** What is deleted in a namespace: pods first, because what they use must outlive them; then all the rest. Pure. */
export function planDeletion(discovered: Discovered): {
  readonly pods: ServedResource[]
  readonly rest: ServedResource[]
} {
  const deletable = discovered.resources.filter(
    ({ namespaced, verbs }) =>
      namespaced && verbs.has('list') && (verbs.has('deletecollection') || verbs.has('delete')),
  )
  const isPods = (r: Resource) => r.group === '' && r.resource === 'pods'
  return { pods: deletable.filter(isPods), rest: deletable.filter((r) => !isPods(r)) }
}

/** What one pass over a namespace found. */
export interface Findings {
  /** Objects still there, by resource. */
  readonly remaining: ReadonlyMap<string, number>
  /** Finalizers that hold some of them, with how many each holds. */
  readonly finalizers: ReadonlyMap<string, number>
  readonly failures: readonly { readonly resource: Resource; readonly error: unknown }[]
  readonly discoveryFailures: ReadonlyMap<string, unknown>
  /** The longest time that a pod has been given to end. */
  readonly graceSeconds: number
}

export const isEmpty = ({ remaining, failures, discoveryFailures }: Findings): boolean =>
  remaining.size === 0 && failures.length === 0 && discoveryFailures.size === 0

type Words = {
  readonly type: string
  readonly status: 'True' | 'False'
  readonly reason: string
  readonly message: string
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))

/** The five conditions that tell a user what a namespace waits for; the very same list when nothing changed. Pure. */
export function planConditions(
  present: readonly NamespaceCondition[] | undefined,
  findings: Findings,
  now: string,
): readonly NamespaceCondition[] {
  const { remaining, finalizers, failures, discoveryFailures } = findings
  const counted = (counts: ReadonlyMap<string, number>, words: (name: string, count: number) => string) =>
    [...counts]
      .toSorted(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, count]) => words(name, count))
      .join(', ')
  const firstDiscovery = [...discoveryFailures][0]
  const all: readonly Words[] = [
    firstDiscovery === undefined
      ? {
          type: 'NamespaceDeletionDiscoveryFailure',
          status: 'False',
          reason: 'ResourcesDiscovered',
          message: 'All resources successfully discovered',
        }
      : {
          type: 'NamespaceDeletionDiscoveryFailure',
          status: 'True',
          reason: 'DiscoveryFailed',
          message: `Discovery failed for some groups, ${discoveryFailures.size} failing: unable to retrieve the complete list of server APIs: ${firstDiscovery[0]}: ${messageOf(firstDiscovery[1])}`,
        },
    {
      type: 'NamespaceDeletionGroupVersionParsingFailure',
      status: 'False',
      reason: 'ParsedGroupVersions',
      message: 'All legacy kube types successfully parsed',
    },
    failures.length === 0
      ? {
          type: 'NamespaceDeletionContentFailure',
          status: 'False',
          reason: 'ContentDeleted',
          message: 'All content successfully deleted, may be waiting on finalization',
        }
      : {
          type: 'NamespaceDeletionContentFailure',
          status: 'True',
          reason: 'ContentDeletionFailed',
          message: `Failed to delete all resource types, ${failures.length} remaining: ${failures.map((f) => messageOf(f.error)).join(', ')}`,
        },
    remaining.size === 0
      ? {
          type: 'NamespaceContentRemaining',
          status: 'False',
          reason: 'ContentRemoved',
          message: 'All content successfully removed',
        }
      : {
          type: 'NamespaceContentRemaining',
          status: 'True',
          reason: 'SomeResourcesRemain',
          message: `Some resources are remaining: ${counted(remaining, (name, n) => `${name} has ${n} resource instances`)}`,
        },
    finalizers.size === 0
      ? {
          type: 'NamespaceFinalizersRemaining',
          status: 'False',
          reason: 'ContentHasNoFinalizers',
          message: 'All content-preserving finalizers finished',
        }
      : {
          type: 'NamespaceFinalizersRemaining',
          status: 'True',
          reason: 'SomeFinalizersRemain',
          message: `Some content in the namespace has finalizers remaining: ${counted(finalizers, (name, n) => `${name} in ${n} resource instances`)}`,
        },
  ]
  let conditions = present
  for (const words of all) conditions = withCondition(conditions, words, now)
  return conditions ?? []
}

/** The name of a resource in the conditions: `pods.`, `deployments.apps` (upstream writes the dot also without a group). */
export const countName = (resource: Resource): string =>
  resource.group === '' ? `${resource.resource}.` : qualifiedName(resource)

/** How long whoever holds an object by a finalizer is given (upstream's guess). */
const finalizerSeconds = 15

/** When to look again at what has been given time to end: half of it, and a second. */
export const nextLookMs = ({ graceSeconds, finalizers }: Findings): number =>
  (Math.floor(Math.max(graceSeconds, finalizers.size > 0 ? finalizerSeconds : 0) / 2) + 1) * 1000
