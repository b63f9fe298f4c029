import type { CustomResourceDefinition } from '#api/gen/apiextensions-v1.ts'
import { customResourceDefinitions } from '#api/gen/resources.ts'
import { isStatus } from '#api/meta/status.ts'
import type { Registry, User } from '../step.ts'

/** Definitions that a server brings along. */
export interface BundledDefinitions {
  /** Called once, at start-up. */
  definitions(): readonly CustomResourceDefinition[]
  /** Whether one of them should take the place of what is there under its name. */
  supersedes(ours: CustomResourceDefinition, present: CustomResourceDefinition): boolean
}

/** Creates what is missing and brings up to date what is ours and older; what somebody else chose is left. */
export async function installDefinitions(
  registry: Registry,
  { definitions, supersedes }: BundledDefinitions,
  user: User,
): Promise<void> {
  const install = async (ours: CustomResourceDefinition): Promise<void> => {
    const { name } = ours.metadata
    const present = registry.get(customResourceDefinitions, '', name)
    if (present === undefined) {
      try {
        await registry.create(customResourceDefinitions, ours, user)
      } catch (error) {
        if (!isStatus(error, 'AlreadyExists')) throw error
      }
      return
    }
    if (present.metadata.deletionTimestamp !== undefined || !supersedes(ours, present)) return
    await registry.change(customResourceDefinitions, '', name, user, (copy) => {
      if (!supersedes(ours, copy)) return undefined
      // Versions that objects may still be stored in stay.
      const names = new Set(ours.spec.versions.map((v) => v.name))
      const stored = copy.spec.versions.filter(
        (v) => !names.has(v.name) && copy.status.storedVersions?.includes(v.name),
      )
      const kept = stored.map((version) => ({ ...structuredClone(version), storage: false }))
      copy.spec = structuredClone({ ...ours.spec, conversion: { strategy: 'None' }, versions: ours.spec.versions })
      copy.spec.versions.push(...kept)
      copy.metadata.annotations = { ...copy.metadata.annotations, ...ours.metadata.annotations }
      copy.metadata.labels = { ...copy.metadata.labels, ...ours.metadata.labels }
      if (copy.metadata.generation !== undefined) copy.metadata.generation++
      return copy
    })
  }
  // Together, so that they share the store's flushes to disk.
  await Promise.all(definitions().map(install))
}
