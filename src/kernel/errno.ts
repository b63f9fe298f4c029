import { getSystemErrorMap } from 'node:util'

/**
 * A system call that failed: what was attempted, and errno's name in `code`, as in Node's own errors.
 * The message ends with what to do where there is something to do.
 */
export class KernelError extends Error {
  readonly code: string
  readonly action: string

  constructor(action: string, code: string, options?: { readonly details?: string; readonly cause?: unknown }) {
    const words = wordsOf(code)
    const hint = hints[code]
    const details = options?.details === undefined || options.details === '' ? '' : `\n${options.details}`
    super(
      `Cannot ${action}: ${code}${words === '' ? '' : `, ${words}`}${hint === undefined ? '' : ` (${hint})`}${details}`,
      options?.cause === undefined ? undefined : { cause: options.cause },
    )
    this.name = 'KernelError'
    this.code = code
    this.action = action
  }
}

const hints: Readonly<Record<string, string>> = {
  EPERM: 'root is needed, with CAP_NET_ADMIN, CAP_SYS_ADMIN and CAP_BPF',
}

/** Not in Node's table. */
const more: ReadonlyMap<number, readonly [string, string]> = new Map([
  [524, ['ENOTSUPP', 'operation is not supported']],
])

function wordsOf(code: string): string {
  for (const [name, words] of getSystemErrorMap().values()) if (name === code) return words
  for (const [name, words] of more.values()) if (name === code) return words
  return ''
}

/** `result` where it is not negative, else a `KernelError` of the errno that it is the negative of. */
export function checkResult(result: number, action: string, details?: () => string): number {
  if (result >= 0) return result
  throw new KernelError(action, errnoName(-result), details === undefined ? {} : { details: details() })
}

/** `ENOENT` for 2. */
export function errnoName(errno: number): string {
  return getSystemErrorMap().get(-errno)?.[0] ?? more.get(errno)?.[0] ?? `errno ${errno}`
}

export function hasCode(error: unknown, ...codes: readonly string[]): boolean {
  return error instanceof Error && codes.includes((error as { code?: unknown }).code as string)
}
