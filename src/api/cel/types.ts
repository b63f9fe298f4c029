/**
 * Types of CEL as Kubernetes uses it (cel-spec: langdef "Values and types"). `max` is known for what comes from a schema:
 * the most elements of a list or map, the most bytes of a string; fixed-size values from a schema have 0, as upstream
 * counts them.
 */
export type Type = Plain | ListType | MapType | ObjectType | OptionalType | OpaqueType | TypeParameter

export type PlainKind =
  | 'bool'
  | 'int'
  | 'uint'
  | 'double'
  | 'string'
  | 'bytes'
  | 'null'
  | 'duration'
  | 'timestamp'
  | 'type'
  | 'dyn'

export interface Plain {
  readonly kind: PlainKind
  readonly max?: number
}
export interface ListType {
  readonly kind: 'list'
  readonly of: Type
  readonly max?: number
  /** Sets, and lists that are maps by some keys, are equal in any order, and `+` merges them. */
  readonly identity?: Identity
}
/** No keys: the whole element is its identity. */
export interface Identity {
  readonly keys: readonly string[]
}
export interface MapType {
  readonly kind: 'map'
  readonly key: Type
  readonly value: Type
  readonly max?: number
}
export interface ObjectType {
  readonly kind: 'object'
  readonly name: string
  /** By the name that an expression uses: `__namespace__`. */
  readonly fields: ReadonlyMap<string, ObjectField>
  readonly max?: number
}
export interface ObjectField {
  readonly type: Type
  /** The name that the JSON uses: `namespace`. */
  readonly property: string
}
export interface OptionalType {
  readonly kind: 'optional'
  readonly of: Type
  readonly max?: undefined
}
export interface OpaqueType {
  readonly kind: 'opaque'
  readonly name: string
  readonly max?: undefined
}
export interface TypeParameter {
  readonly kind: 'parameter'
  readonly name: string
  readonly max?: undefined
}

const plain = (kind: PlainKind): Plain => ({ kind })
export const bool = plain('bool')
export const int = plain('int')
export const uint = plain('uint')
export const double = plain('double')
export const string = plain('string')
export const bytes = plain('bytes')
export const nullType = plain('null')
export const duration = plain('duration')
export const timestamp = plain('timestamp')
export const typeType = plain('type')
export const dyn = plain('dyn')
export const listOf = (of: Type, max?: number, identity?: Identity): ListType => ({
  kind: 'list',
  of,
  ...(max === undefined ? {} : { max }),
  ...(identity === undefined ? {} : { identity }),
})
export const mapOf = (key: Type, value: Type, max?: number): MapType => ({
  kind: 'map',
  key,
  value,
  ...(max === undefined ? {} : { max }),
})
export const optionalOf = (of: Type): OptionalType => ({ kind: 'optional', of })
export const opaque = (name: string): OpaqueType => ({ kind: 'opaque', name })

const plainKinds: ReadonlyMap<string, Plain> = new Map(
  [bool, int, uint, double, string, bytes, duration, timestamp, typeType, dyn].map((type) => [type.kind, type]),
)

/** `list<A>`, `map<string, dyn>`, `optional<A>`, `net.IP`: how signatures are written here. */
export function parseType(text: string): Type {
  const known = plainKinds.get(text)
  if (known !== undefined) return known
  if (text === 'null_type') return nullType
  const generic = /^(list|map|optional)<(.*)>$/.exec(text)
  if (generic !== null) {
    const parts = splitTopLevel(generic[2] ?? '')
    const [first = dyn, second = dyn] = parts.map(parseType)
    if (generic[1] === 'list') return listOf(first)
    return generic[1] === 'map' ? mapOf(first, second) : optionalOf(first)
  }
  return /^[A-Z]$/.test(text) ? { kind: 'parameter', name: text } : opaque(text)
}

/** Splits at commas that are not within angle brackets. */
export function splitTopLevel(text: string): string[] {
  const parts: string[] = []
  let depth = 0
  let from = 0
  for (let i = 0; i < text.length; i++) {
    if (text[i] === '<') depth++
    else if (text[i] === '>') depth--
    else if (text[i] === ',' && depth === 0) {
      parts.push(text.slice(from, i).trim())
      from = i + 1
    }
  }
  const last = text.slice(from).trim()
  return last === '' ? parts : [...parts, last]
}

/** As upstream's messages print a type: `list(string)`, `map(string, int)`. */
export function formatType(type: Type): string {
  switch (type.kind) {
    case 'list':
      return `list(${formatType(type.of)})`
    case 'map':
      return `map(${formatType(type.key)}, ${formatType(type.value)})`
    case 'optional':
      return `optional_type(${formatType(type.of)})`
    case 'object':
    case 'opaque':
    case 'parameter':
      return type.name
    default:
      return type.kind
  }
}

/** What a call's type parameters stand for, by name. */
export type Bindings = Map<string, Type>

/** Whether a value of the type can be given where `to` is asked for. Binds parameters of `to` as it goes. */
export function isAssignable(from: Type, to: Type, bindings: Bindings): boolean {
  // The elements of an empty literal fit anywhere and bind nothing.
  if (from.kind === 'parameter') return true
  if (to.kind === 'parameter') {
    const bound = bindings.get(to.name)
    if (bound === undefined || bound.kind === 'dyn') {
      bindings.set(to.name, from)
      return true
    }
    if (isAssignable(from, bound, bindings)) return true
    if (!isAssignable(bound, from, bindings)) return false
    bindings.set(to.name, from)
    return true
  }
  if (from.kind === 'dyn' || to.kind === 'dyn') return true
  if (from.kind === 'null') return ['null', 'object', 'opaque', 'optional', 'duration', 'timestamp'].includes(to.kind)
  if (to.kind === 'null') return isAssignable(to, from, bindings)
  switch (to.kind) {
    case 'list':
      return from.kind === 'list' && isAssignable(from.of, to.of, bindings)
    case 'map':
      return (
        from.kind === 'map' && isAssignable(from.key, to.key, bindings) && isAssignable(from.value, to.value, bindings)
      )
    case 'optional':
      return from.kind === 'optional' && isAssignable(from.of, to.of, bindings)
    case 'object':
      return from.kind === 'object' && from.name === to.name
    case 'opaque':
      return from.kind === 'opaque' && from.name === to.name
    default:
      return from.kind === to.kind
  }
}

/** The type with its parameters filled in; what was not bound may be anything. */
export function substitute(type: Type, bindings: Bindings): Type {
  switch (type.kind) {
    case 'parameter':
      return bindings.get(type.name) ?? dyn
    case 'list':
      return listOf(substitute(type.of, bindings))
    case 'map':
      return mapOf(substitute(type.key, bindings), substitute(type.value, bindings))
    case 'optional':
      return optionalOf(substitute(type.of, bindings))
    default:
      return type
  }
}

/** A type for values of either; undefined where they have nothing in common. */
export function join(a: Type, b: Type): Type | undefined {
  if (isAssignable(b, a, new Map())) return isFree(a) ? b : a
  return isAssignable(a, b, new Map()) ? b : undefined
}

/** `[]` and `{}` take the type of what they are put together with; so does null. */
const isFree = (type: Type): boolean =>
  type.kind === 'null' ||
  (type.kind === 'list' && type.of.kind === 'parameter') ||
  (type.kind === 'map' && type.value.kind === 'parameter') ||
  (type.kind === 'optional' && type.of.kind === 'parameter')

/** Whether a value's true type is only known when it is there. */
export function isDynamic(type: Type): boolean {
  switch (type.kind) {
    case 'dyn':
    case 'parameter':
      return true
    case 'list':
    case 'optional':
      return isDynamic(type.of)
    case 'map':
      return isDynamic(type.key) || isDynamic(type.value)
    default:
      return false
  }
}
