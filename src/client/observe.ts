import type { ApiHandler } from '#api/wire.ts'
import { type Clock, systemClock } from '#base/clock.ts'

/** Told of each request: seconds until the head of its answer; `undefined` where there was none. */
export type RequestObserver = (method: string, status: number | undefined, seconds: number) => void

/** The same handler, with somebody who looks on. */
export function observeRequests(handler: ApiHandler, observe: RequestObserver, clock: Clock = systemClock): ApiHandler {
  return async (request) => {
    const start = clock.monotonic()
    const seconds = (): number => (clock.monotonic() - start) / 1000
    try {
      const answer = await handler(request)
      observe(request.method, answer.status, seconds())
      return answer
    } catch (error) {
      // Who has gone does not count as a failure of the server's.
      if (!request.signal.aborted) observe(request.method, undefined, seconds())
      throw error
    }
  }
}
