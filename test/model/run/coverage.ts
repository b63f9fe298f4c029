import type { Hook, Outcome } from '../journey.ts'
import { type Reason, reasons } from '../reasons.ts'

/** How often each outcome and reason was reached: what a run has not met it has not tested. */
export class Coverage {
  readonly #counts = new Map<string, number>()

  count({ from }: Hook, { end, reason, marks }: Outcome): void {
    this.#add(`${from}: ${end}`)
    if (reason !== 'forwarded') this.#add(`${from}: ${end}, ${reason}`)
    for (const mark of marks) this.#add(mark)
  }

  /** What XDP did with a packet that it saw first. */
  countEarly(did: string): void {
    this.#add(`early: ${did}`)
  }

  /** Something that a run wants to have met. */
  mark(key: string): void {
    this.#add(key)
  }

  #add(key: string): void {
    this.#counts.set(key, (this.#counts.get(key) ?? 0) + 1)
  }

  /** What another run has met was met, too. */
  add(other: Coverage): void {
    for (const [key, count] of other.#counts) this.#counts.set(key, (this.#counts.get(key) ?? 0) + count)
  }

  /** Sum over the hooks of a reason. */
  reached(reason: Reason): number {
    let sum = 0
    for (const [key, count] of this.#counts) if (key.endsWith(`, ${reason}`)) sum += count
    return sum
  }

  get(key: string): number {
    return this.#counts.get(key) ?? 0
  }

  /** Of those that must be reached, which were not often enough. */
  missing(wanted: readonly string[], atLeast: number): string[] {
    return wanted.filter((key) => (key in reasons ? this.reached(key as Reason) : this.get(key)) < atLeast)
  }

  /** One line for each. */
  table(): string {
    return [...this.#counts]
      .toSorted(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, count]) => `${count.toString().padStart(9)}  ${key}`)
      .join('\n')
  }
}

/** What every full run must have met: the ends, the reasons that a test-run can show, and the turns of a connection's life. */
export const wanted: readonly string[] = [
  'pod: pod',
  'pod: out',
  'pod: stack',
  'pod: refusal',
  'uplink: pod',
  'uplink: out',
  'uplink: stack',
  'uplink: refusal',
  'host: stack',
  'pod: tunnel',
  'uplink: tunnel',
  'tunnel: pod',
  'tunnel: tunnel',
  'tunnel: stack',
  'tunnel: refusal',
  'tunnel: drop, invalid identity',
  'stack: tunnel',
  'no tunnel',
  'early: sent on',
  'early: left',
  'invalid packet',
  'unsupported protocol',
  'invalid source',
  'multicast',
  'no service',
  'policy denied',
  'unknown sender',
  'flows full',
  'flows share',
  'invalid flow',
  'truncated header',
  'unknown protocol',
  'fragment without first',
  'invalid extension header',
  'no backend',
  'source range',
  'no nat port',
  'no nat mapping',
  'rate limited',
  'no local backend',
  'invalid identity',
  'unsupported nat protocol',
  'forbidden icmp',
  'host not ready',
  'map write failed',
  'answered',
  'adopted',
  'adopted as an answer',
  'reset',
  'reset outside the window',
  'closed both ways',
  'closing tuple reused',
  'established flow cut',
  'unanswered flow cut',
  'address of another pod before',
  'own address from outside',
  'masqueraded',
  'hairpin',
  'sent on to another node',
  'another port was taken',
  'error of a known connection',
  'error of an allowed connection',
  'error translated',
  'translation reset',
  'translation not reset by a stranger',
]

/** What a run across nodes must have met beside that. */
export const wantedAcross: readonly string[] = [
  'across: tunnel: pod',
  'across: uplink: pod',
  'across: tunnel: refusal',
  'across: uplink: refusal',
  'across: an answer arrives',
  'across: a refusal goes back by the tunnel',
  'across: a refusal goes back bare',
  'across: a refusal arrives',
  'across: an error arrives',
  'across: a node port on the way',
  'across: cut at the far end',
  'across: one knows less',
]
