import { compileRegex, type Regex } from '#api/cel/regex.ts'

/** A schema's `pattern`, in Go's syntax; undefined for what Go does not take. */
export const compilePattern = (pattern: string): Regex | undefined => compileRegex(pattern)
