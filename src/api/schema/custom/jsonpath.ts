/**
 * The simple JSONPath of printer columns, scale paths and selectable fields: `.spec.replicas`, `.a['b.c']`, `.a[0]`,
 * `.a[*].b`, `.conditions[?(@.type=="Ready")].status`.
 */
export type Step =
  | { readonly kind: 'field'; readonly name: string }
  | { readonly kind: 'index'; readonly index: number }
  | { readonly kind: 'all' }
  | { readonly kind: 'where'; readonly path: readonly Step[]; readonly operator: string; readonly value: unknown }

const tokens =
  /\.?\[\s*(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|(-?\d+)|(\*)|\?\(\s*@((?:\.[\w-]+|\['[^']*'\])+)\s*(==|!=|<=|>=|<|>)\s*("[^"]*"|'[^']*'|[\w.+-]+)\s*\))\s*\]|\.((?:[^.[\]\\]|\\.)+)/y

/** Undefined for a path that this does not read. */
export function parsePath(text: string): readonly Step[] | undefined {
  const path = text
    .trim()
    .replace(/^\{(.*)\}$/, '$1')
    .replace(/^\$/, '')
  const steps: Step[] = []
  tokens.lastIndex = 0
  while (tokens.lastIndex < path.length) {
    const match = tokens.exec(path)
    if (match === null) return undefined
    const [, single, double, index, all, wherePath, operator, literal, field] = match
    const name = single ?? double ?? field
    if (name === '*' || all !== undefined) steps.push({ kind: 'all' })
    else if (name !== undefined) steps.push({ kind: 'field', name: name.replace(/\\(.)/g, '$1') })
    else if (index !== undefined) steps.push({ kind: 'index', index: Number(index) })
    else if (wherePath !== undefined && operator !== undefined && literal !== undefined) {
      const end = tokens.lastIndex
      const inner = parsePath(wherePath)
      tokens.lastIndex = end
      if (inner === undefined) return undefined
      steps.push({ kind: 'where', path: inner, operator, value: literalOf(literal) })
    }
  }
  return steps
}

function literalOf(text: string): unknown {
  if (/^["']/.test(text)) return text.slice(1, -1)
  if (text === 'true' || text === 'false') return text === 'true'
  return Number.isNaN(Number(text)) ? text : Number(text)
}

/** Everything the path leads to. */
export function findAll(root: unknown, steps: readonly Step[]): unknown[] {
  let found: unknown[] = [root]
  for (const step of steps) found = found.flatMap((value) => follow(value, step))
  return found
}

function follow(value: unknown, step: Step): unknown[] {
  if (typeof value !== 'object' || value === null) return []
  switch (step.kind) {
    case 'field':
      return !Array.isArray(value) && Object.hasOwn(value, step.name)
        ? [(value as Record<string, unknown>)[step.name]]
        : []
    case 'index': {
      const item: unknown = Array.isArray(value) ? value.at(step.index) : undefined
      return item === undefined ? [] : [item]
    }
    case 'all':
      return Object.values(value)
    case 'where':
      return Object.values(value).filter((item) =>
        findAll(item, step.path).some((got) => compare(got, step.operator, step.value)),
      )
    default:
      return step satisfies never
  }
}

function compare(got: unknown, operator: string, wanted: unknown): boolean {
  if (operator === '==') return got === wanted
  if (operator === '!=') return got !== wanted
  if (typeof got !== typeof wanted || (typeof got !== 'number' && typeof got !== 'string')) return false
  const other = wanted as typeof got
  return operator === '<'
    ? got < other
    : operator === '<='
      ? got <= other
      : operator === '>'
        ? got > other
        : got >= other
}
