import { exactField, type FieldSelector, parseFieldSelector } from '#api/meta/fields.ts'
import type { KubeObject } from '#api/meta/resource.ts'
import { parseSelector, type Selector, SelectorError } from '#api/meta/selector.ts'
import { badRequest } from '#api/meta/status.ts'
import type { Item } from './item.ts'
import type { Served } from './served.ts'

/** Which objects of a collection a request is about. */
export interface Selection {
  /** Empty: all namespaces. */
  readonly namespace: string
  /** Set when the selector can only match this name. */
  readonly name: string | undefined
  /** Everything in the namespace. */
  readonly all: boolean
  matches(item: Item): boolean
}

/** Throws 400 for a selector that cannot be read or a field that this kind does not select by. */
export function selectionOf(served: Served, namespace: string, labelText: string, fieldText: string): Selection {
  const labels = parseLabels(labelText)
  const fields: FieldSelector = parseFieldSelector(fieldText, served.definition.selectableFields)
  const byLabels = labelText !== ''
  const byFields = fieldText !== ''
  const inNamespace = (item: Item): boolean => namespace === '' || item.namespace === namespace
  return {
    namespace,
    name: byFields ? exactField(fields, 'metadata.name') : undefined,
    all: !byLabels && !byFields,
    matches(item) {
      if (!inNamespace(item)) return false
      if (byLabels && !labels.matches(item.object.metadata.labels)) return false
      return !byFields || fields.matches(served.read(item) as KubeObject)
    },
  }
}

function parseLabels(text: string): Selector {
  try {
    return parseSelector(text)
  } catch (error) {
    if (error instanceof SelectorError) throw badRequest(error.message)
    throw error
  }
}
