/**
 * `@peculiar/x509` finds its algorithms through `tsyringe`, which wants the metadata functions of an old decorator
 * proposal on `Reflect`. It only ever asks for what it stored itself, so a map per target is all that is needed here.
 */
type Key = string | symbol
type Metadata = Map<Key, unknown>

const stored = new WeakMap<object, Metadata>()

function getOwnMetadata(key: Key, target: object): unknown {
  return stored.get(target)?.get(key)
}

function getMetadata(key: Key, target: object): unknown {
  for (let at: object | null = target; at !== null; at = Object.getPrototypeOf(at)) {
    if (stored.get(at)?.has(key)) return getOwnMetadata(key, at)
  }
  return undefined
}

function defineMetadata(key: Key, value: unknown, target: object): void {
  const own = stored.get(target) ?? new Map<Key, unknown>()
  own.set(key, value)
  stored.set(target, own)
}

if (!('getMetadata' in Reflect)) Object.assign(Reflect, { getMetadata, getOwnMetadata, defineMetadata })
