import { readFileSync } from 'node:fs'
import { rememberRight } from '#api/cel/schema/definition-rules.ts'
import type { CustomResourceDefinition } from '#api/gen/apiextensions-v1.ts'
import { compareReleases } from './release.ts'

/** Annotations that every definition of the Gateway API carries (gateway-api.sigs.k8s.io: versioning). */
export const bundleVersionAnnotation = 'gateway.networking.k8s.io/bundle-version'
export const channelAnnotation = 'gateway.networking.k8s.io/channel'
/** Ours: which edition of our own rules and words for that release it is. */
export const revisionAnnotation = 'weft.dev/gateway-crds'

interface Data {
  readonly release: string
  readonly revision: string
  /** Digests of the schemas, whose rules the generator has compiled. */
  readonly checked: readonly string[]
  readonly shared: readonly unknown[]
  readonly definitions: readonly unknown[]
}

/**
 * The Gateway API's CustomResourceDefinitions, experimental channel, as one would send them to an API server. Read from
 * the generated file at each call and not kept: they are needed once, at start-up. Equal parts are the same objects, so
 * nothing in them may be changed. Their rules need not be compiled to accept them.
 */
export function gatewayDefinitions(): CustomResourceDefinition[] {
  const data = JSON.parse(readFileSync(new URL('gen/crds.json', import.meta.url), 'utf8')) as Data
  rememberRight(data.checked)
  const parts = new Map<number, unknown>()
  const build = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(build)
    if (typeof value !== 'object' || value === null) return value
    const number = (value as { readonly $shared?: number }).$shared
    if (number === undefined)
      return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, build(inner)]))
    if (!parts.has(number)) parts.set(number, build(data.shared[number]))
    return parts.get(number)
  }
  return data.definitions.map((definition) => {
    const built = build(definition) as CustomResourceDefinition
    const annotations = { ...built.metadata.annotations, [revisionAnnotation]: data.revision }
    return { ...built, metadata: { ...built.metadata, annotations } }
  })
}

/**
 * Whether ours should take the place of a definition that is there: when that is of an older release, or of the same
 * one and ours in an earlier edition. Definitions of the standard channel, development builds and whatever names no
 * release are somebody's choice and stay.
 */
export function supersedes(ours: CustomResourceDefinition, present: CustomResourceDefinition): boolean {
  const next = ours.metadata.annotations ?? {}
  const now = present.metadata.annotations ?? {}
  if (now[channelAnnotation] !== next[channelAnnotation]) return false
  const order = compareReleases(next[bundleVersionAnnotation] ?? '', now[bundleVersionAnnotation] ?? '')
  if (order === undefined || order < 0) return false
  if (order > 0) return true
  return now[revisionAnnotation] !== undefined && now[revisionAnnotation] !== next[revisionAnnotation]
}
