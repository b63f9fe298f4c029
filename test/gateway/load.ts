import type { GatewayPlace } from './place.ts'

export interface Load {
  readonly requests: number
  /** What went wrong, with how often. */
  readonly failures: ReadonlyMap<string, number>
}

/**
 * Clients that ask as fast as they are answered until told to stop: some on kept connections, some on a new one each time.
 * Anything but 200 is a failure.
 */
export function startLoad(
  place: GatewayPlace,
  urls: readonly string[],
  { kept = 6, fresh = 2 }: { readonly kept?: number; readonly fresh?: number } = {},
): { stop(): Promise<Load> } {
  let running = true
  let requests = 0
  const failures = new Map<string, number>()
  const fail = (words: string): void => {
    failures.set(words, (failures.get(words) ?? 0) + 1)
  }
  const client = async (keepAlive: boolean, n: number): Promise<void> => {
    const agent = place.agent({ keepAlive, maxSockets: 1 })
    for (let i = n; running; i++) {
      const url = urls[i % urls.length] ?? ''
      try {
        const { code } = await place.ask(url, { agent })
        if (code !== 200) fail(`${url} ${code}`)
      } catch (error) {
        fail(`${url} ${String(error)}`)
      }
      requests++
    }
    agent.destroy()
  }
  const clients = [
    ...Array.from({ length: kept }, (_, i) => client(true, i)),
    ...Array.from({ length: fresh }, (_, i) => client(false, i)),
  ]
  return {
    async stop() {
      running = false
      await Promise.all(clients)
      return { requests, failures }
    },
  }
}
