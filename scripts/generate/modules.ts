import { execFileSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** Version of every published module that the generated files come from. */
export const version = 'v0.36.3'

/** Module path -> directory, downloaded through Go's own client when it is not there yet. */
export function fetchModules(names: readonly string[]): Map<string, string> {
  const dir = join(tmpdir(), 'weft-generate')
  mkdirSync(dir, { recursive: true })
  writeFileSync(join(dir, 'go.mod'), 'module generate\n\ngo 1.24\n')
  const asked = names.map((n) => (n.includes('@') ? n : `${n}@${version}`))
  const out = execFileSync('go', ['mod', 'download', '-json', ...asked], { cwd: dir, encoding: 'utf8' })
  const found = out
    .split(/(?<=\n})\n/)
    .filter((t) => t.trim() !== '')
    .map((t) => JSON.parse(t) as { Path: string; Dir: string })
  return new Map(found.map((m) => [m.Path, m.Dir]))
}
