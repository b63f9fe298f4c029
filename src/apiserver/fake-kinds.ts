import * as resources from '#api/gen/resources.ts'
import type { KindDefinition } from '#api/kind.ts'
import { formatApiVersion } from '#api/meta/gvk.ts'
import type { Resource } from '#api/meta/resource.ts'
import { messageOfKind } from '#api/schema/protobuf.ts'

const allVerbs = ['create', 'delete', 'deletecollection', 'get', 'list', 'patch', 'update', 'watch']
const rest = ['get', 'patch', 'update']

/** A kind without rules of its own, for tests of what is the same for all kinds. */
function plainKind(resource: Resource, more: Partial<KindDefinition> = {}): KindDefinition {
  return {
    resource,
    message: messageOfKind(formatApiVersion(resource), resource.kind),
    singular: resource.kind.toLowerCase(),
    shortNames: [],
    categories: [],
    verbs: allVerbs,
    subresources: [
      { name: 'status', verbs: rest },
      ...(resource.resource === 'namespaces' ? [{ name: 'finalize', verbs: ['update'] }] : []),
    ],
    description: `A ${resource.kind}.`,
    hasGeneration: resource.kind === 'Deployment',
    unconditionalUpdate: true,
    createOnUpdate: false,
    defaults() {},
    validate: () => [],
    validateUpdate: () => [],
    columns: [
      { name: 'Name', type: 'string', format: 'name', description: '', priority: 0, cell: (o) => o.metadata.name },
      { name: 'Uid', type: 'string', description: '', priority: 1, cell: (o) => o.metadata.uid },
    ],
    selectableFields: {},
    ...more,
  }
}

/** Every built-in resource, without rules. */
export function plainKinds(): KindDefinition[] {
  const { events, ...others } = resources
  return Object.values(others)
    .filter((resource: Resource) => resource.group !== 'events.k8s.io' && resource.version === 'v1')
    .map((resource: Resource) => plainKind(resource))
    .concat(plainKind(events))
}
