import type { PodTemplateSpec } from '#api/gen/core-v1.ts'
import { safeEncode } from '#api/meta/generate-name.ts'
import { canonicalQuantity, tryParseQuantity } from '#api/meta/quantity.ts'

/**
 * Pod templates as values. Clients written in Go send a template back in another spelling of the same (`resources: {}`,
 * `creationTimestamp: null`, `1` for `1000m`), and a roll-back must find the ReplicaSet that it came from.
 */

/** Fields whose empty object means the same as their absence; elsewhere (`emptyDir: {}`) it does not. */
const emptyIsAbsent = new Set([
  'annotations',
  'labels',
  'limits',
  'matchLabels',
  'metadata',
  'nodeSelector',
  'overhead',
  'requests',
  'resources',
])
const quantityMaps = new Set(['limits', 'requests', 'overhead'])
const quantities = new Set(['sizeLimit', 'divisor'])

/** One text for all spellings of a template. */
export function canonicalTemplate(template: unknown, without: readonly string[] = []): string {
  return JSON.stringify(canonical(template, '', new Set(without)) ?? {})
}

function canonical(value: unknown, field: string, without: ReadonlySet<string>): unknown {
  if (value === null || value === undefined) return undefined
  if (Array.isArray(value))
    return value.length === 0 ? undefined : value.map((item) => canonical(item, '', without) ?? {})
  if (typeof value !== 'object') return quantities.has(field) ? quantity(value) : value
  const result: Record<string, unknown> = {}
  for (const key of Object.keys(value).toSorted()) {
    if (field === 'labels' && without.has(key)) continue
    const given = (value as Record<string, unknown>)[key]
    const inner = quantityMaps.has(field) ? quantity(given) : canonical(given, key, without)
    if (inner !== undefined) result[key] = inner
  }
  return Object.keys(result).length === 0 && emptyIsAbsent.has(field) ? undefined : result
}

/** Annotations and labels may be called `limits` too: what is no quantity stays as it is. */
function quantity(value: unknown): unknown {
  if (typeof value !== 'string' && typeof value !== 'number') return value
  return tryParseQuantity(value) === undefined ? value : canonicalQuantity(value)
}

/** Whether two templates are the same but for the labels named. */
export const sameTemplate = (a: PodTemplateSpec, b: PodTemplateSpec, withoutLabels: readonly string[] = []): boolean =>
  canonicalTemplate(a, withoutLabels) === canonicalTemplate(b, withoutLabels)

/**
 * The hash in names and labels (`pod-template-hash`, `controller-revision-hash`): 32-bit FNV-1a of the canonical text,
 * in letters that spell nothing. `collisionCount` makes another when the first is taken.
 */
export function templateHash(template: PodTemplateSpec, collisionCount?: number): string {
  const text = canonicalTemplate(template) + (collisionCount === undefined ? '' : `#${collisionCount}`)
  let hash = 0x811c9dc5
  for (const byte of Buffer.from(text)) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0
  return safeEncode(String(hash))
}
