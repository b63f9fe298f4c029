import { isDeepStrictEqual } from 'node:util'

/** Whether two statuses say the same: what is absent is zero or empty, and the order of fields means nothing. */
export const sameStatus = (a: object | undefined, b: object): boolean => isDeepStrictEqual(said(a ?? {}), said(b))

const said = (status: object): object =>
  Object.fromEntries(
    Object.entries(status).filter(
      ([, value]) => value !== undefined && value !== 0 && !(Array.isArray(value) && value.length === 0),
    ),
  )
