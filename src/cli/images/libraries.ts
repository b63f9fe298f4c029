import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'

/** The loader and the libraries that a program needs, at the paths where it looks for them (ldd(1)), without a leading slash. */
export function librariesOf(program: string): { readonly path: string; readonly data: Uint8Array }[] {
  const text = execFileSync('ldd', [program], { encoding: 'utf8' })
  const paths = [...text.matchAll(/(\/\S+) \(0x/g)].flatMap((m) => m[1] ?? [])
  return paths.map((path) => ({ path: path.slice(1), data: readFileSync(path) }))
}
