import type {
  CustomResourceDefinitionCondition as Condition,
  CustomResourceDefinition,
  CustomResourceDefinitionNames as Names,
} from '#api/gen/apiextensions-v1.ts'
import type { KindDefinition } from '#api/kind.ts'
import type { JsonSchema } from '#api/schema/json-schema.ts'
import { structuralErrors } from '#api/schema/structural.ts'

/** Names that are taken in a group, by built-in kinds and by other definitions. */
export interface TakenNames {
  /** Plural, singular and short names share one space: all of them can stand after `kubectl get`. */
  readonly resources: ReadonlySet<string>
  readonly kinds: ReadonlySet<string>
}

export function takenNames(
  group: string,
  builtIn: readonly KindDefinition[],
  others: readonly CustomResourceDefinition[],
): TakenNames {
  const resources = new Set<string>()
  const kinds = new Set<string>()
  for (const { resource, singular, shortNames } of builtIn) {
    if (resource.group !== group) continue
    for (const name of [resource.resource, singular, ...shortNames]) resources.add(name)
    kinds.add(resource.kind).add(`${resource.kind}List`)
  }
  for (const { spec, status } of others) {
    if (spec.group !== group) continue
    const { plural, singular = '', shortNames = [], kind, listKind = '' } = status.acceptedNames ?? {}
    for (const name of [plural, singular, ...shortNames]) if (name) resources.add(name)
    for (const name of [kind, listKind]) if (name) kinds.add(name)
  }
  return { resources, kinds }
}

/** The names asked for, with those filled in that have a default. */
function wantedNames({ names }: CustomResourceDefinition['spec']): Names {
  return {
    ...names,
    singular: names.singular || names.kind.toLowerCase(),
    listKind: names.listKind || `${names.kind}List`,
  }
}

export interface NamesDecision {
  readonly accepted: Names
  readonly conditions: readonly Condition[]
  /** Whether it may be served: all names accepted, now or at an earlier time. */
  readonly established: boolean
}

/** Which names are accepted and what the conditions say. Pure; upstream's reasons and words. */
export function decideNames(definition: CustomResourceDefinition, taken: TakenNames): NamesDecision {
  const wanted = wantedNames(definition.spec)
  const before: Partial<Names> = definition.status?.acceptedNames ?? {}
  const problems: { reason: string; message: string }[] = []
  const free = (name: string | undefined, set: ReadonlySet<string>, reason: string): boolean => {
    if (!name || !set.has(name)) return true
    problems.push({ reason, message: `${JSON.stringify(name)} is already in use` })
    return false
  }
  const accepted: Names = {
    plural: free(wanted.plural, taken.resources, 'PluralConflict') ? wanted.plural : (before.plural ?? ''),
    kind: free(wanted.kind, taken.kinds, 'KindConflict') ? wanted.kind : (before.kind ?? ''),
  }
  const singular = free(wanted.singular, taken.resources, 'SingularConflict') ? wanted.singular : before.singular
  if (singular) accepted.singular = singular
  const shortTaken = (wanted.shortNames ?? []).filter((name) => taken.resources.has(name))
  if (shortTaken.length > 0)
    problems.push({
      reason: 'ShortNamesConflict',
      message: shortTaken.map((name) => `${JSON.stringify(name)} is already in use`).join(', '),
    })
  const shortNames = shortTaken.length > 0 ? before.shortNames : wanted.shortNames
  if (shortNames && shortNames.length > 0) accepted.shortNames = shortNames
  const listKind = free(wanted.listKind, taken.kinds, 'ListKindConflict') ? wanted.listKind : before.listKind
  if (listKind) accepted.listKind = listKind
  if (wanted.categories && wanted.categories.length > 0) accepted.categories = wanted.categories

  const wasEstablished = conditionOf(definition, 'Established')?.status === 'True'
  const isAccepted = problems.length === 0
  const established = isAccepted || wasEstablished
  const conditions: Condition[] = [
    isAccepted
      ? { type: 'NamesAccepted', status: 'True', reason: 'NoConflicts', message: 'no conflicts found' }
      : {
          type: 'NamesAccepted',
          status: 'False',
          reason: problems[0]?.reason ?? '',
          message: problems.map((p) => p.message).join(', '),
        },
  ]
  if (established)
    conditions.push({
      type: 'Established',
      status: 'True',
      reason: 'InitialNamesAccepted',
      message: 'the initial names have been accepted',
    })
  else
    conditions.push({
      type: 'Established',
      status: 'False',
      reason: 'NotAccepted',
      message: 'not all names are accepted',
    })
  const approval = approvalOf(definition)
  if (approval !== undefined) conditions.push(approval)
  const structure = structureOf(definition)
  if (structure !== undefined) conditions.push(structure)
  return { accepted, conditions, established }
}

const approvalKey = 'api-approved.kubernetes.io'

/** Kubernetes' own groups say where their API was reviewed, or that it was not. */
function approvalOf({ metadata, spec }: CustomResourceDefinition): Condition | undefined {
  if (!/(^|\.)(k8s|kubernetes)\.io$/.test(spec.group)) return undefined
  const value = metadata.annotations?.[approvalKey]
  const type = 'KubernetesAPIApprovalPolicyConformant'
  if (!value) {
    const message = `protected groups must have approval annotation "${approvalKey}", see https://github.com/kubernetes/enhancements/pull/1111`
    return { type, status: 'False', reason: 'MissingAnnotation', message }
  }
  if (value.startsWith('unapproved'))
    return { type, status: 'False', reason: 'UnapprovedAnnotation', message: `not approved: ${JSON.stringify(value)}` }
  return { type, status: 'True', reason: 'ApprovedAnnotation', message: `approved in ${value}` }
}

/** NonStructuralSchema, for definitions that were stored before their schema was judged. */
function structureOf({ spec }: CustomResourceDefinition): Condition | undefined {
  const errors = spec.versions.flatMap((version, i) => {
    const schema = version.schema?.openAPIV3Schema as JsonSchema | undefined
    return schema === undefined ? [] : structuralErrors(schema, `spec.versions[${i}].schema.openAPIV3Schema`)
  })
  if (errors.length === 0) return undefined
  const texts = errors.slice(0, 10).map((e) => `${e.path}: ${e.message}`)
  return {
    type: 'NonStructuralSchema',
    status: 'True',
    reason: 'Violations',
    message: texts.length === 1 ? (texts[0] ?? '') : `[${texts.join(', ')}]`,
  }
}

export const conditionOf = (definition: CustomResourceDefinition, type: string): Condition | undefined =>
  definition.status?.conditions?.find((c) => c.type === type)
