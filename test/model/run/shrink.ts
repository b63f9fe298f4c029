/** The first difference that steps show, with the index of the step. */
export interface Found {
  readonly at: number
  readonly what: string
}

/** Replays at most so many times while it looks for a shorter scenario. */
const replaysMax = 3_000

/**
 * The fewest of `all` that still show a difference behind `fixed` (delta debugging: halves, quarters, …, single steps). `what`
 * they show; undefined: no fewer do.
 */
export function shortest<T>(
  fixed: readonly T[],
  all: readonly T[],
  firstDifference: (steps: readonly T[]) => Found | undefined,
): { readonly steps: readonly T[]; readonly what: string | undefined } {
  let steps = all
  let what: string | undefined
  let replays = 0
  for (let chunk = Math.ceil(steps.length / 2); chunk >= 1; ) {
    let removed = false
    for (let from = Math.max(0, steps.length - chunk - 1); from >= 0 && replays < replaysMax; from -= chunk) {
      const shorter = [...steps.slice(0, from), ...steps.slice(from + chunk)]
      replays++
      let found: Found | undefined
      try {
        found = firstDifference([...fixed, ...shorter])
      } catch {
        // Without that step the rest makes no sense: it stays.
        continue
      }
      if (found === undefined) continue
      steps = shorter.slice(0, found.at + 1 - fixed.length)
      what = found.what
      removed = true
      from = Math.min(from, steps.length - 1)
    }
    if (chunk === 1 && !removed) break
    chunk = removed ? chunk : Math.floor(chunk / 2)
  }
  return { steps, what }
}
