import type { Clock } from '#base/clock.ts'

interface Zone {
  tokens: number
  at: number
  /** Nodes already given up: they do not need another token. */
  readonly given: Set<string>
}

/** Limits how fast nodes are given up, per zone: a token bucket that holds one. */
export class ZoneRates {
  readonly #clock: Clock
  readonly #zones = new Map<string, Zone>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** Whether the node may be given up now, at `perSecond` nodes a second. Asking again about one that was is free. */
  allows(zoneName: string, node: string, perSecond: number): boolean {
    const now = this.#clock.monotonic()
    const zone = this.#zones.get(zoneName) ?? { tokens: 1, at: now, given: new Set<string>() }
    this.#zones.set(zoneName, zone)
    zone.tokens = Math.min(1, zone.tokens + ((now - zone.at) / 1000) * perSecond)
    zone.at = now
    if (perSecond === 0) return false
    if (zone.given.has(node)) return true
    if (zone.tokens < 1) return false
    zone.tokens--
    zone.given.add(node)
    return true
  }

  recovered(zoneName: string, node: string): void {
    this.#zones.get(zoneName)?.given.delete(node)
  }
}
