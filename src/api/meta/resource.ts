/** One resource of the API: where it is served and what its objects are. `K` exists only for the type checker. */
export interface Resource<K extends KubeObject = KubeObject> {
  /** `''` for the core group. */
  readonly group: string
  readonly version: string
  /** Plural, lower case: `pods`. */
  readonly resource: string
  readonly kind: string
  readonly namespaced: boolean
  readonly _type?: K
}

/** What every stored object has. */
export interface KubeObject {
  apiVersion: string
  kind: string
  metadata: ObjectMeta
}

import type { ObjectMeta } from '../gen/meta-v1.ts'
