import { badRequest, fieldError, invalid } from '#api/meta/status.ts'

/** What to do with unknown and duplicate fields (`?fieldValidation=`). */
export type FieldValidation = 'Strict' | 'Warn' | 'Ignore'
const modes: readonly FieldValidation[] = ['Ignore', 'Strict', 'Warn']

/** The mode a request asks for; Warn when it says nothing. `options` names the kind in the error: `CreateOptions`. */
export function fieldValidationOf(query: string | null, options: string): FieldValidation {
  if (query === null || query === '') return 'Warn'
  const mode = modes.find((m) => m === query)
  if (mode === undefined)
    throw invalid('meta.k8s.io', options, '', [fieldError.notSupported('fieldValidation', query, ['', ...modes])])
  return mode
}

/**
 * The outcome for a decoded body: Strict refuses it (400), Warn returns one warning per problem, Ignore nothing.
 */
export function settleProblems(
  problems: readonly string[],
  mode: FieldValidation,
  { kind, apiVersion }: { readonly kind: string; readonly apiVersion: string },
): readonly string[] {
  if (problems.length === 0 || mode === 'Ignore') return []
  if (mode === 'Warn') return problems
  const version = apiVersion.slice(apiVersion.indexOf('/') + 1)
  throw badRequest(
    `${kind} in version ${JSON.stringify(version)} cannot be handled as a ${kind}: ${strictError(problems)}`,
  )
}

/** The words for both bodies and patches. */
export const strictError = (problems: readonly string[]): string => `strict decoding error: ${problems.join(', ')}`
