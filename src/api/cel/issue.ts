/** What is wrong with an expression, and where: an offset into its text. */
export interface Issue {
  readonly offset: number
  readonly message: string
}

/** The expression cannot be compiled; the message is as upstream prints it, with the line and a mark below it. */
export class CompileError extends Error {
  override readonly name = 'CompileError'
  constructor(source: string, issues: readonly Issue[], options?: ErrorOptions) {
    super(issues.map((issue) => formatIssue(source, issue)).join('\n'), options)
  }
}

function formatIssue(source: string, { offset, message }: Issue): string {
  const before = source.slice(0, Math.max(0, offset))
  const line = before.split('\n').length
  const lineStart = before.lastIndexOf('\n') + 1
  const text = source.slice(lineStart).split('\n', 1)[0] ?? ''
  const column = before.length - lineStart
  return `ERROR: <input>:${line}:${column + 1}: ${message}\n | ${text.replaceAll('\t', ' ')}\n | ${'.'.repeat(column)}^`
}
