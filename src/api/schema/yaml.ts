import { parseDocument, type ScalarTag, visit } from 'yaml'
import { type Parsed, parseJson, SyntaxProblem } from './json.ts'

/** YAML 1.1 words that upstream's reader takes for booleans and octal numbers, and the 1.2 reader does not. */
const bool: ScalarTag = {
  tag: 'tag:yaml.org,2002:bool',
  default: true,
  test: /^(?:[Yy]|[Yy]es|YES|[Oo]n|ON|[Nn]|[Nn]o|NO|[Oo]ff|OFF)$/,
  resolve: (text) => /^(?:[Yy]|[Yy]es|YES|[Oo]n|ON)$/.test(text),
}
const octal: ScalarTag = {
  tag: 'tag:yaml.org,2002:int',
  default: true,
  test: /^[-+]?0[0-7]+$/,
  resolve: (text) => Number.parseInt(text, 8),
}

/** The reader takes about a second for this much; JSON bodies, which kubectl sends, may be larger. */
const yamlBytesMax = 1024 * 1024

/**
 * The first document of a YAML text as JSON would have it. A key that comes twice is told as upstream's reader does:
 * `line 3: key "x" already set in map`. Throws SyntaxProblem; aliases that multiply are refused.
 */
export function parseYaml(text: string): Parsed {
  // JSON is YAML, and what clients send as YAML is mostly JSON.
  if (/^\s*\{\s*"/.test(text)) {
    try {
      return parseJson(text)
    } catch (error) {
      if (!(error instanceof SyntaxProblem) || error.message === 'exceeded max depth') throw error
    }
  }
  if (text.length > yamlBytesMax) throw new SyntaxProblem(`yaml: longer than ${yamlBytesMax} bytes; send JSON`)
  try {
    const document = parseDocument(text, {
      merge: true,
      resolveKnownTags: false,
      customTags: (tags) => [bool, octal, ...tags],
    })
    const duplicates: string[] = []
    for (const error of document.errors) {
      if (error.code === 'MULTIPLE_DOCS') continue
      const line = error.linePos?.[0].line ?? 0
      if (error.message.includes('call stack')) throw new SyntaxProblem('exceeded max depth', { cause: error })
      if (error.code !== 'DUPLICATE_KEY')
        throw new SyntaxProblem(`yaml: line ${line}: ${error.message.split('\n')[0]}`, { cause: error })
      duplicates.push(`line ${line}: key ${JSON.stringify(keyAt(text, error.pos[0]))} already set in map`)
    }
    visit(document, {
      Pair: (_, pair) => {
        if (pair.key !== null && typeof pair.key === 'object' && 'items' in pair.key)
          throw new SyntaxProblem('yaml: invalid map key')
      },
    })
    const value: unknown = document.toJS({ maxAliasCount: 100 })
    return { value, duplicates }
  } catch (cause) {
    if (cause instanceof SyntaxProblem) throw cause
    if (cause instanceof RangeError) throw new SyntaxProblem('exceeded max depth', { cause })
    throw new SyntaxProblem(`yaml: ${cause instanceof Error ? cause.message.split('\n')[0] : 'malformed text'}`, {
      cause,
    })
  }
}

function keyAt(text: string, at: number): string {
  return /^["']?([^"':\s]*)/.exec(text.slice(at, at + 256))?.[1] ?? ''
}
