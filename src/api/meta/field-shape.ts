import { type Field, getMessage, type Message } from '../schema/table.ts'
import { isObject, type JsonObject } from './patch/merge.ts'

/** How the values below a place are told apart. Built from the field table, or from a custom resource's schema. */
export type Shape =
  /** Owned as a whole. */
  | { readonly kind: 'leaf' }
  | { readonly kind: 'struct'; readonly fields: ReadonlyMap<string, ShapeField> }
  | { readonly kind: 'map'; readonly element: Shape }
  | { readonly kind: 'set' }
  | { readonly kind: 'list'; readonly keys: readonly string[]; readonly element: Shape }
  /** No schema: maps are followed, lists are owned whole. */
  | { readonly kind: 'untyped' }

export interface ShapeField {
  readonly shape: Shape
  /** There even in an object that nobody has filled in: adding to it does not own it. */
  readonly always: boolean
  /** Written only when it is not empty: `""`, 0, false, `[]` and `{}` are the same as its absence. */
  readonly omitsEmpty: boolean
}

const leaf: Shape = { kind: 'leaf' }
export const untyped: Shape = { kind: 'untyped' }
const shapes = new Map<string, Shape>()

/** References and selectors are owned whole (upstream's structType=atomic), which the field table does not say. */
const atomicMessages: ReadonlySet<string> = new Set([
  'meta/v1.LabelSelector',
  'meta/v1.OwnerReference',
  'core/v1.ConfigMapKeySelector',
  'core/v1.EndpointAddress',
  'core/v1.EndpointPort',
  'core/v1.FileKeySelector',
  'core/v1.LocalObjectReference',
  'core/v1.NodeSelector',
  'core/v1.NodeSelectorTerm',
  'core/v1.ObjectFieldSelector',
  'core/v1.ObjectReference',
  'core/v1.ResourceFieldSelector',
  'core/v1.ScopeSelector',
  'core/v1.SecretKeySelector',
  'core/v1.SecretReference',
  'core/v1.TopologySelectorTerm',
  'core/v1.TypedLocalObjectReference',
  'discovery/v1.EndpointPort',
  'rbac/v1.RoleRef',
  'rbac/v1.Subject',
  'networking/v1.ServiceBackendPort',
  'autoscaling/v1.CrossVersionObjectReference',
])

/** The shape of a kind of the field table (`core/v1.Pod`). */
export function shapeOf(message: string): Shape {
  const known = shapes.get(message)
  if (known) return known
  const fields = new Map<string, ShapeField>()
  // Registered before it is filled: JSON schemas contain themselves.
  const shape: Shape = atomicMessages.has(message) ? leaf : { kind: 'struct', fields }
  shapes.set(message, shape)
  if (shape.kind === 'struct') fillFields(fields, getMessage(message))
  return shape
}

function fillFields(fields: Map<string, ShapeField>, message: Message): void {
  for (const field of message.fields.values()) {
    const always = field.always || field.required
    const isStruct = field.message !== undefined && !field.repeated && !field.map
    const omitsEmpty = !always && !field.pointer && !isStruct
    fields.set(field.name, { shape: fieldShape(field), always, omitsEmpty })
  }
}

function fieldShape(field: Field): Shape {
  if (field.repeated && !field.map) {
    if (field.listType === 'set') return { kind: 'set' }
    if (field.listType === 'map' && field.message !== undefined) {
      return { kind: 'list', keys: field.listKeys.toSorted(), element: shapeOf(field.message) }
    }
    return leaf
  }
  if (field.mapType === 'atomic') return leaf
  if (field.map) return { kind: 'map', element: field.message === undefined ? leaf : shapeOf(field.message) }
  if (field.message !== undefined) return shapeOf(field.message)
  return field.scalar === 'rawextension' ? untyped : leaf
}

/** A custom resource: its own schema, with metadata as in every kind. */
export function customShape(schema: JsonObject | undefined): Shape {
  const own = schema === undefined ? untyped : schemaShape(schema)
  const fields = new Map(own.kind === 'struct' ? own.fields : [])
  fields.set('metadata', { shape: shapeOf('meta/v1.ObjectMeta'), always: true, omitsEmpty: false })
  return { kind: 'struct', fields }
}

function schemaShape(schema: JsonObject): Shape {
  if (schema['x-kubernetes-map-type'] === 'atomic') return leaf
  if (schema.type === 'array') {
    const items = isObject(schema.items) ? schema.items : {}
    const keys = schema['x-kubernetes-list-map-keys']
    if (schema['x-kubernetes-list-type'] === 'set') return { kind: 'set' }
    if (schema['x-kubernetes-list-type'] !== 'map' || !Array.isArray(keys)) return leaf
    return { kind: 'list', keys: keys.map(String).sort(), element: schemaShape(items) }
  }
  if (isObject(schema.properties)) {
    const fields = new Map<string, ShapeField>()
    for (const [name, property] of Object.entries(schema.properties)) {
      fields.set(name, {
        shape: isObject(property) ? schemaShape(property) : untyped,
        always: false,
        omitsEmpty: false,
      })
    }
    return { kind: 'struct', fields }
  }
  if (isObject(schema.additionalProperties)) {
    return { kind: 'map', element: schemaShape(schema.additionalProperties) }
  }
  return schema.type === 'object' || schema.type === undefined ? untyped : leaf
}
