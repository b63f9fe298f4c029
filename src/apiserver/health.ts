import type { ApiResponse } from '#api/wire.ts'
import { textResponse } from './respond.ts'

/** One thing that must be well. */
export interface Check {
  readonly name: string
  /** Only `/readyz` asks it: not being ready is no reason to be restarted. */
  readonly readyOnly?: boolean
  /** Undefined: well. Otherwise what is wrong, in a few words. */
  check(): string | undefined
}

/** `/healthz`, `/livez`, `/readyz`, each alone and by check (`/readyz/store`), with `?verbose` and `?exclude=`. */
export function health(checks: readonly Check[], path: string, query: URLSearchParams): ApiResponse | undefined {
  const [, endpoint = '', name, more] = path.split('/')
  if (!['healthz', 'livez', 'readyz'].includes(endpoint) || more !== undefined) return undefined
  const asked = checks.filter((check) => endpoint === 'readyz' || !check.readyOnly)
  if (name !== undefined && name !== '') {
    const one = asked.find((check) => check.name === name)
    if (one === undefined) return undefined
    const trouble = one.check()
    return trouble === undefined ? textResponse(200, 'ok') : textResponse(500, `internal server error: ${trouble}\n`)
  }
  const excluded = query.getAll('exclude')
  const results = asked.map((check) => ({
    name: check.name,
    excluded: excluded.includes(check.name),
    trouble: excluded.includes(check.name) ? undefined : check.check(),
  }))
  const failed = results.some((result) => result.trouble !== undefined)
  const lines = results.map(({ name, excluded, trouble }) => {
    if (excluded) return `[+]${name} excluded: ok\n`
    // Why it failed is told in the log: these paths are open to everybody.
    return trouble === undefined ? `[+]${name} ok\n` : `[-]${name} failed: reason withheld\n`
  })
  if (failed) return textResponse(500, `${lines.join('')}${endpoint} check failed\n`)
  return textResponse(200, query.has('verbose') ? `${lines.join('')}${endpoint} check passed\n` : 'ok')
}
