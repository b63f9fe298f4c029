import type { CustomResourceDefinition, CustomResourceDefinitionVersion } from '#api/gen/apiextensions-v1.ts'
import type { KubeObject } from '#api/meta/resource.ts'
import type { JsonSchema } from '#api/schema/json-schema.ts'
import { fromCustomResourceDefinition } from './custom-kind.ts'
import type { CustomKind } from './kind.ts'

// The custom kind that tests speak of.

export type Json = Record<string, unknown>

/** A bit of everything that a schema can say. */
const schema: JsonSchema = {
  type: 'object',
  required: ['spec'],
  properties: {
    spec: {
      type: 'object',
      required: ['size'],
      properties: {
        size: { type: 'integer', minimum: 1, maximum: 10 },
        color: { type: 'string', enum: ['red', 'green'], default: 'red' },
        name: { type: 'string', pattern: '^[a-z]+$', maxLength: 5 },
        when: { type: 'string', format: 'date-time' },
        port: { 'x-kubernetes-int-or-string': true },
        any: { type: 'object', 'x-kubernetes-preserve-unknown-fields': true },
        tags: { type: 'array', 'x-kubernetes-list-type': 'set', items: { type: 'string' }, maxItems: 3 },
        parts: {
          type: 'array',
          'x-kubernetes-list-type': 'map',
          'x-kubernetes-list-map-keys': ['id'],
          items: {
            type: 'object',
            required: ['id'],
            properties: { id: { type: 'string' }, weight: { type: 'integer', default: 1 } },
          },
        },
        limits: { type: 'object', additionalProperties: { type: 'integer' } },
        maybe: { type: 'string', nullable: true },
        pod: { type: 'object', 'x-kubernetes-embedded-resource': true, properties: { spec: { type: 'object' } } },
      },
      oneOf: [
        { required: ['port'] },
        { required: ['name'] },
        { not: { anyOf: [{ required: ['port'] }, { required: ['name'] }] } },
      ],
    },
    status: {
      type: 'object',
      properties: { ready: { type: 'integer' }, conditions: { type: 'array', items: open() } },
    },
  },
}

/** Whatever is in it stays. */
function open(): JsonSchema {
  return { type: 'object', 'x-kubernetes-preserve-unknown-fields': true }
}

/** Served and stored in version v1. */
export function definition(
  plural = 'widgets',
  more: {
    readonly version?: Partial<CustomResourceDefinitionVersion>
    readonly group?: string
    readonly shortNames?: string[]
  } = {},
): CustomResourceDefinition {
  const group = more.group ?? 'example.com'
  const kind = plural[0]?.toUpperCase() + plural.slice(1, -1)
  return {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: {
      name: `${plural}.${group}`,
      uid: `uid-${plural}`,
      resourceVersion: '1',
      creationTimestamp: '2026-01-01T00:00:00Z',
      generation: 1,
    },
    spec: {
      group,
      scope: 'Namespaced',
      names: { plural, kind, ...(more.shortNames ? { shortNames: more.shortNames } : {}) },
      versions: [
        { name: 'v1', served: true, storage: true, schema: { openAPIV3Schema: schema as never }, ...more.version },
      ],
    },
    status: { acceptedNames: { plural: '', kind: '' } },
  }
}

export function kindOf(d: CustomResourceDefinition): CustomKind {
  const [kind] = fromCustomResourceDefinition(d)
  if (kind === undefined) throw new Error('nothing is served')
  return kind
}

export const widget = (spec: Json, more: Json = {}): KubeObject & Json => ({
  apiVersion: 'example.com/v1',
  kind: 'Widget',
  metadata: {
    name: 'a',
    namespace: 'default',
    uid: 'u',
    resourceVersion: '1',
    creationTimestamp: '2026-01-01T00:00:00Z',
  },
  spec,
  ...more,
})

/** What is wrong with a Widget of that spec. */
export const errorsOf = (spec: Json): string[] =>
  kindOf(definition())
    .validate(widget(spec))
    .map((e) => `${e.path}: ${e.message}`)
