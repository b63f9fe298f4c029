import { badRequest, StatusError, tooLarge } from '../status.ts'
import { isObject, setOwn } from './merge.ts'

/** JSON patch, RFC 6902, with upstream's limits and answers. */

const operationsMax = 10_000
/** Sum of the bytes that copy operations may add, so that a few lines cannot grow an object without bound. */
const copyBytesMax = 3 * 1024 * 1024

/** The one answer upstream gives to a JSON patch that does not apply; what it was is only in the error's cause. */
export function patchRejected(detail: string): StatusError {
  return new StatusError(
    {
      status: 'Failure',
      code: 422,
      reason: 'Invalid',
      message: 'the server rejected our request due to an error in our request',
      details: {},
    },
    { cause: new Error(detail) },
  )
}

interface Operation {
  readonly op: 'add' | 'remove' | 'replace' | 'move' | 'copy' | 'test'
  readonly path: readonly string[]
  readonly from: readonly string[]
  readonly value: unknown
}

/** Throws 400 for what is no patch, 413 for too many operations. */
function parseJsonPatch(patch: unknown): Operation[] {
  if (!Array.isArray(patch)) {
    throw badRequest('error decoding patch: json: cannot unmarshal the patch into Go value of type jsonpatch.Patch')
  }
  if (patch.length > operationsMax) {
    throw tooLarge(`The allowed maximum operations in a JSON patch is ${operationsMax}, got ${patch.length}`)
  }
  return patch.map(parseOperation)
}

function parseOperation(operation: unknown): Operation {
  if (!isObject(operation)) throw badRequest('error decoding patch: an operation must be an object')
  const { op, path, from, value } = operation
  switch (op) {
    case 'add':
    case 'remove':
    case 'replace':
    case 'move':
    case 'copy':
    case 'test':
      break
    default:
      throw patchRejected(`Unexpected kind: ${String(op)}`)
  }
  if (typeof path !== 'string') throw patchRejected(`${op} operation does not have a path`)
  const needsFrom = op === 'move' || op === 'copy'
  if (needsFrom && typeof from !== 'string') throw patchRejected(`${op} operation does not have a from path`)
  if ((op === 'add' || op === 'replace') && !Object.hasOwn(operation, 'value')) {
    throw patchRejected(`${op} operation missing value`)
  }
  return { op, path: parsePointer(path), from: needsFrom ? parsePointer(String(from)) : [], value: value ?? null }
}

function parsePointer(text: string): string[] {
  if (text === '') return []
  if (!text.startsWith('/')) throw patchRejected(`JSON pointer "${text}" does not begin with "/"`)
  return text
    .slice(1)
    .split('/')
    .map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'))
}

/**
 * The patched document; `document` itself is not changed. Throws 422 when an operation does not apply (a test that
 * fails, a path that is absent), 413 when copies grow beyond the limit.
 */
export function applyJsonPatch(document: unknown, patch: unknown): unknown {
  const operations = parseJsonPatch(patch)
  let root = operations.length === 0 ? document : structuredClone(document)
  let copied = 0
  for (const { op, path, from, value } of operations) {
    switch (op) {
      case 'add':
        root = add(root, path, structuredClone(value))
        break
      case 'replace':
        root = replace(root, path, structuredClone(value))
        break
      case 'remove':
        root = remove(root, path)
        break
      case 'test':
        test(root, path, value)
        break
      case 'move': {
        const moved = get(root, from)
        if (from.length < path.length && from.every((part, i) => part === path[i])) {
          throw patchRejected(`cannot move ${pointer(from)} into its own child ${pointer(path)}`)
        }
        root = add(remove(root, from), path, moved)
        break
      }
      case 'copy': {
        const text = JSON.stringify(get(root, from))
        copied += text.length
        if (copied > copyBytesMax) {
          throw tooLarge(
            `Unable to complete the copy, the accumulated size increase of copy is ${copied}, exceeding the limit ${copyBytesMax}`,
          )
        }
        root = add(root, path, JSON.parse(text))
        break
      }
      default:
        op satisfies never
    }
  }
  return root
}

const pointer = (path: readonly string[]): string =>
  path.map((part) => `/${part.replaceAll('~', '~0').replaceAll('/', '~1')}`).join('')

const missing = (path: readonly string[]): StatusError =>
  patchRejected(`unable to find the value at ${JSON.stringify(pointer(path))}`)

function get(root: unknown, path: readonly string[]): unknown {
  let value = root
  for (const [depth, part] of path.entries()) {
    if (Array.isArray(value)) value = value[indexOf(part, value.length - 1, path)]
    else if (isObject(value) && Object.hasOwn(value, part)) value = value[part]
    else throw missing(path.slice(0, depth + 1))
  }
  return value
}

/** Array index up to `last`, or the 422 for anything else. */
function indexOf(part: string, last: number, path: readonly string[]): number {
  const index = /^(0|[1-9]\d{0,8})$/.test(part) ? Number(part) : -1
  if (index < 0 || index > last) throw missing(path)
  return index
}

function split(path: readonly string[]): { parent: readonly string[]; last: string } {
  return { parent: path.slice(0, -1), last: path.at(-1) ?? '' }
}

function add(root: unknown, path: readonly string[], value: unknown): unknown {
  if (path.length === 0) return value
  const { parent, last } = split(path)
  const container = get(root, parent)
  if (Array.isArray(container)) {
    const index = last === '-' ? container.length : indexOf(last, container.length, path)
    container.splice(index, 0, value)
  } else if (isObject(container)) setOwn(container, last, value)
  else throw missing(path)
  return root
}

function replace(root: unknown, path: readonly string[], value: unknown): unknown {
  if (path.length === 0) return value
  const { parent, last } = split(path)
  const container = get(root, parent)
  if (Array.isArray(container)) container[indexOf(last, container.length - 1, path)] = value
  else if (isObject(container) && Object.hasOwn(container, last)) setOwn(container, last, value)
  else throw missing(path)
  return root
}

function remove(root: unknown, path: readonly string[]): unknown {
  if (path.length === 0) return null
  const { parent, last } = split(path)
  const container = get(root, parent)
  if (Array.isArray(container)) container.splice(indexOf(last, container.length - 1, path), 1)
  else if (isObject(container) && Object.hasOwn(container, last)) delete container[last]
  else throw missing(path)
  return root
}

/** Upstream lets a test for null hold where the value is absent. */
function test(root: unknown, path: readonly string[], expected: unknown): void {
  let actual: unknown
  try {
    actual = get(root, path)
  } catch (error) {
    if (expected === null && error instanceof StatusError) return
    throw error
  }
  if (!sameJson(actual, expected)) throw patchRejected(`testing value ${pointer(path)} failed`)
}

/** Equal as JSON: order of keys does not count. */
export function sameJson(a: unknown, b: unknown): boolean {
  if (a === b) return true
  if (Array.isArray(a)) {
    return Array.isArray(b) && a.length === b.length && a.every((value, i) => sameJson(value, b[i]))
  }
  if (!isObject(a) || !isObject(b)) return false
  let count = 0
  for (const key in a) {
    if (a[key] === undefined) continue
    if (!Object.hasOwn(b, key) || !sameJson(a[key], b[key])) return false
    count++
  }
  for (const key in b) if (b[key] !== undefined) count--
  return count === 0
}
