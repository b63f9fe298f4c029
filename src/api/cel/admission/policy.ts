import type { ValidatingAdmissionPolicySpec } from '#api/gen/admissionregistration-v1.ts'
import { compile, type Program, ProgramError } from '../compile.ts'
import type { Declarations } from '../compiler.ts'
import { CompileError } from '../issue.ts'
import { authorizerFunctions, resourceCheckType } from '../library/authorizer.ts'
import { functionsWith } from '../library/library.ts'
import { bool, dyn, listOf, mapOf, type ObjectField, type ObjectType, opaque, string, type Type } from '../types.ts'

/** The expressions of a ValidatingAdmissionPolicy, compiled. Undefined stands for one that cannot be. */
export interface CompiledPolicy {
  readonly matchConditions: readonly Expression[]
  readonly variables: readonly Expression[]
  readonly validations: readonly Expression[]
  /** One for each validation; undefined where it has none. */
  readonly messages: readonly (Expression | undefined)[]
  readonly auditAnnotations: readonly Expression[]
}
export interface Expression {
  readonly source: string
  readonly program: Program
}
/** An expression that does not compile. */
export interface PolicyProblem {
  /** Below the policy's spec: `validations[0].expression`. */
  readonly field: string
  readonly source: string
  readonly detail: string
}

const messageOf = (name: string, fields: Readonly<Record<string, Type>>): ObjectType => ({
  kind: 'object',
  name,
  fields: new Map(
    Object.entries(fields).map(([field, type]): [string, ObjectField] => [field, { type, property: field }]),
  ),
})
const groupVersionKind = messageOf('kubernetes.GroupVersionKind', { group: string, version: string, kind: string })
const groupVersionResource = messageOf('kubernetes.GroupVersionResource', {
  group: string,
  version: string,
  resource: string,
})
/** The variable `request` (admission.k8s.io/v1 AdmissionRequest). */
const request = messageOf('kubernetes.AdmissionRequest', {
  kind: groupVersionKind,
  resource: groupVersionResource,
  subResource: string,
  requestKind: groupVersionKind,
  requestResource: groupVersionResource,
  requestSubResource: string,
  name: string,
  namespace: string,
  operation: string,
  userInfo: messageOf('kubernetes.UserInfo', {
    username: string,
    uid: string,
    groups: listOf(string),
    extra: mapOf(string, listOf(string)),
  }),
  dryRun: bool,
  options: dyn,
})
const namespaceObject = messageOf('kubernetes.Namespace', {
  metadata: messageOf('kubernetes.NamespaceMetadata', {
    name: string,
    generateName: string,
    namespace: string,
    labels: mapOf(string, string),
    annotations: mapOf(string, string),
    UID: string,
    creationTimestamp: dyn,
    deletionGracePeriodSeconds: dyn,
    deletionTimestamp: dyn,
    generation: dyn,
    resourceVersion: string,
    finalizers: listOf(string),
  }),
  spec: messageOf('kubernetes.NamespaceSpec', { finalizers: listOf(string) }),
  status: messageOf('kubernetes.NamespaceStatus', { phase: string }),
})

const functions = functionsWith(authorizerFunctions)

interface Allowed {
  readonly params: boolean
  readonly authorizer: boolean
  readonly variables: ReadonlyMap<string, ObjectField> | undefined
}

function declarations({ params, authorizer, variables }: Allowed): Declarations {
  // What may not be spoken of keeps its place among the values, under a name that nobody can write.
  const named = (name: string, isThere: boolean): string => (isThere ? name : `(${name})`)
  return {
    functions,
    variables: new Map<string, Type>([
      ['object', dyn],
      ['oldObject', dyn],
      ['request', request],
      ['namespaceObject', namespaceObject],
      [named('params', params), dyn],
      [named('authorizer', authorizer), opaque('kubernetes.authorization.Authorizer')],
      [named('authorizer.requestResource', authorizer), opaque(resourceCheckType)],
      [
        named('variables', variables !== undefined),
        { kind: 'object', name: 'kubernetes.variables', fields: variables ?? new Map() },
      ],
    ]),
  }
}

/** Compiles all expressions of a policy; what cannot be compiled is said for each. */
export function compilePolicy(spec: ValidatingAdmissionPolicySpec): {
  readonly policy: CompiledPolicy
  readonly problems: readonly PolicyProblem[]
} {
  const problems: PolicyProblem[] = []
  const params = spec.paramKind !== undefined
  const one = (field: string, source: string, allowed: Allowed, kinds: readonly Type['kind'][]): Expression[] => {
    // An empty one is reported as missing.
    if (source.trim() === '') return []
    try {
      const program = compile(source, declarations(allowed))
      if (kinds.length === 0 || kinds.includes(program.type.kind)) return [{ source, program }]
      problems.push({ field, source, detail: `must evaluate to ${wordsFor(kinds)}` })
    } catch (error) {
      if (!(error instanceof CompileError || error instanceof ProgramError)) throw error
      const what = error instanceof CompileError ? 'compilation' : 'program instantiation'
      problems.push({ field, source, detail: `${what} failed: ${error.message}` })
    }
    return []
  }
  const plain = { params, authorizer: true, variables: undefined }
  const matchConditions = (spec.matchConditions ?? []).flatMap(({ expression }, i) =>
    one(`matchConditions[${i}].expression`, expression ?? '', plain, ['bool']),
  )
  const fields = new Map<string, ObjectField>()
  const variables: Expression[] = []
  for (const [i, { name, expression }] of (spec.variables ?? []).entries()) {
    const field = `variables[${i}].expression`
    const [compiled] = one(field, expression ?? '', { params, authorizer: true, variables: new Map(fields) }, [])
    fields.set(name, { type: compiled?.program.type ?? dyn, property: name })
    if (compiled !== undefined) variables.push(compiled)
  }
  const full = { params, authorizer: true, variables: fields }
  const validations: Expression[] = []
  const messages: (Expression | undefined)[] = []
  for (const [i, { expression, messageExpression }] of (spec.validations ?? []).entries()) {
    const [compiled] = one(`validations[${i}].expression`, expression ?? '', full, ['bool'])
    if (compiled !== undefined) validations.push(compiled)
    const said = { params, authorizer: false, variables: fields }
    const [message] = one(`validations[${i}].messageExpression`, messageExpression ?? '', said, ['string'])
    messages.push(message)
  }
  const auditAnnotations = (spec.auditAnnotations ?? []).flatMap(({ valueExpression }, i) =>
    one(`auditAnnotations[${i}].valueExpression`, valueExpression ?? '', full, ['string', 'null']),
  )
  return { policy: { matchConditions, variables, validations, messages, auditAnnotations }, problems }
}

const kindWords: Readonly<Partial<Record<Type['kind'], string>>> = { null: 'null_type' }
function wordsFor(kinds: readonly Type['kind'][]): string {
  const words = kinds.map((kind) => kindWords[kind] ?? kind)
  return words.length === 1 ? (words[0] ?? '') : `one of [${words.join(' ')}]`
}
