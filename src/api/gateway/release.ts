/**
 * Order of two releases (`v1.6.1`, `v1.6.0-rc.2`; semver.org 11): below, at or above zero. Undefined where one of them is
 * no release: a development build, an empty text.
 */
export function compareReleases(a: string, b: string): number | undefined {
  const [left, right] = [parse(a), parse(b)]
  if (left === undefined || right === undefined) return undefined
  for (const [i, number] of left.numbers.entries()) {
    const difference = number - (right.numbers[i] ?? 0)
    if (difference !== 0) return difference
  }
  if (left.candidate === right.candidate) return 0
  // A candidate comes before its release.
  if (left.candidate === '') return 1
  if (right.candidate === '') return -1
  return left.candidate.localeCompare(right.candidate, 'en', { numeric: true })
}

function parse(text: string): { readonly numbers: readonly number[]; readonly candidate: string } | undefined {
  const found = /^v(\d+)\.(\d+)\.(\d+)(?:-((?:rc|alpha|beta)[.\d]*))?$/.exec(text)
  if (found === null) return undefined
  const numbers = found.slice(1, 4).map(Number)
  return numbers.every((n) => n === 0) ? undefined : { numbers, candidate: found[4] ?? '' }
}
