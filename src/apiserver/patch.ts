import type { KindDefinition } from '#api/kind.ts'
import { applyJsonPatch } from '#api/meta/patch/json.ts'
import { applyMergePatch, isObject, type JsonObject } from '#api/meta/patch/merge.ts'
import { applyStrategicPatch } from '#api/meta/patch/strategic.ts'
import type { KubeObject } from '#api/meta/resource.ts'
import { badRequest, fieldError, invalid, unsupportedMediaType } from '#api/meta/status.ts'
import { conformExpected, type Expected, wordsOf } from '#api/schema/decode.ts'
import { parseJson, SyntaxProblem } from '#api/schema/json.ts'
import { type FieldValidation, strictError } from '#api/schema/strict.ts'

/** A patch that has been read, to be applied as often as a conflict asks for. */
export interface Patch {
  /** The patched object, from a copy of the present one that may be changed. Throws 400, 415, 422. */
  apply(present: KubeObject): KubeObject
}

/** Reads a patch of a kind (or of a subresource's kind). Throws 400, 415. */
export function parsePatch(
  body: Uint8Array,
  contentType: string | undefined,
  definition: Pick<KindDefinition, 'resource'>,
  expected: Expected,
  mode: FieldValidation,
  warn: (text: string) => void,
): Patch {
  const type = (contentType ?? '').split(';')[0]?.trim() ?? ''
  const change = readerOf(type, expected)
  const { value, duplicates } = parse(body)
  const words = duplicates.map((path) => `duplicate field ${JSON.stringify(path)}`)
  return {
    apply(present) {
      const next = change(present as unknown as JsonObject, value)
      if (!isObject(next)) throw badRequest('the patched document is not an object')
      next.apiVersion = present.apiVersion
      next.kind = present.kind
      const unknown = wordsOf(expected, () => conformExpected(next, expected))
      const problems = [...words, ...unknown.map((path) => `unknown field ${JSON.stringify(path)}`)]
      if (problems.length > 0 && mode === 'Strict') {
        const { group, kind } = definition.resource
        throw invalid(group, kind, present.metadata.name, [fieldError.invalid('patch', value, strictError(problems))])
      }
      if (mode === 'Warn') for (const problem of problems) warn(problem)
      return next as unknown as KubeObject
    },
  }
}

function readerOf(type: string, expected: Expected): (present: JsonObject, patch: unknown) => unknown {
  const { message } = expected
  switch (type) {
    case 'application/json-patch+json':
      return applyJsonPatch
    case 'application/merge-patch+json':
      return (present, patch) => {
        if (!isObject(patch)) throw badRequest('a merge patch must be a JSON object')
        return applyMergePatch(present, patch)
      }
    case 'application/strategic-merge-patch+json':
      if (message !== undefined) return (present, patch) => applyStrategicPatch(present, patch, message)
  }
  const accepted = ['application/json-patch+json', 'application/merge-patch+json']
  if (message !== undefined) accepted.push('application/strategic-merge-patch+json')
  throw unsupportedMediaType(
    `the body of the request was in an unknown format - accepted media types include: ${accepted.join(', ')}`,
  )
}

function parse(body: Uint8Array): { readonly value: unknown; readonly duplicates: readonly string[] } {
  try {
    return parseJson(Buffer.from(body).toString())
  } catch (cause) {
    if (cause instanceof SyntaxProblem)
      throw Object.assign(badRequest(`error decoding patch: ${cause.message}`), { cause })
    throw cause
  }
}
