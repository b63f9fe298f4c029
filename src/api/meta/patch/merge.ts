/** JSON merge patch, RFC 7386. */

export type JsonObject = Record<string, unknown>

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** The patched document. `target` is not changed; what the patch does not touch is shared with the result. */
export function applyMergePatch(target: unknown, patch: unknown): unknown {
  // Lists are copied: the same patch is applied again when another write came between.
  if (!isObject(patch)) return Array.isArray(patch) ? structuredClone(patch) : patch
  const result: JsonObject = isObject(target) ? { ...target } : {}
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete result[key]
    else setOwn(result, key, applyMergePatch(result[key], value))
  }
  return result
}

/** `__proto__` is a key like any other in JSON; plain assignment would set the prototype. */
export function setOwn(object: JsonObject, key: string, value: unknown): void {
  if (key === '__proto__') {
    Object.defineProperty(object, key, { value, writable: true, enumerable: true, configurable: true })
  } else object[key] = value
}
