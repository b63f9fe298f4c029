import { delay } from './delay.ts'

/**
 * For tests and checks: calls `check` until it neither throws nor returns false, and returns what it returned.
 * Between calls the event loop turns; from the second turn on with a pause of `pauseMs`. After `withinMs` of real time
 * the last error is thrown.
 */
export async function eventually<T>(
  check: () => T | Promise<T>,
  { withinMs = 5_000, pauseMs = 2 }: { readonly withinMs?: number; readonly pauseMs?: number } = {},
): Promise<Exclude<T, false>> {
  const end = performance.now() + withinMs
  for (let turn = 0; ; turn++) {
    let failure: unknown
    try {
      const value = await check()
      if (value !== false) return value as Exclude<T, false>
      failure = new Error(`${check.toString()} stayed false for ${withinMs} ms`)
    } catch (error) {
      failure = error
    }
    if (performance.now() > end) throw failure
    if (turn < 50) await new Promise((resolve) => setImmediate(resolve))
    else await delay(pauseMs)
  }
}
