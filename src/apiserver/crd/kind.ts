import type { KindDefinition } from '#api/kind.ts'
import type { JsonSchema } from '#api/schema/json-schema.ts'

/** A kind that came from a CustomResourceDefinition: served like any other, checked by the schema it brings. */
export interface CustomKind extends KindDefinition {
  readonly schema: JsonSchema & Record<string, unknown>
  /** `WidgetList`, or what the definition names. */
  readonly listKind: string
  /** Name of the definition it came from: `widgets.example.com`. */
  readonly definition: string
}

export const isCustom = (kind: KindDefinition): kind is CustomKind => kind.message === undefined && 'definition' in kind
