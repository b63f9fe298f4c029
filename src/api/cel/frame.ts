import type { Entries, Range } from './cost.ts'
import type { Type } from './types.ts'
import { CostError } from './values.ts'

/** One evaluation: its variables, and what it has cost so far. */
export class Frame {
  readonly slots: unknown[]
  readonly limit: number
  cost = 0

  constructor(slots: unknown[], limit: number) {
    this.slots = slots
    this.limit = limit
  }

  /** Counts cost, and ends the evaluation when it is more than it may be. */
  spend(cost: number): void {
    this.cost += cost
    if (this.cost > this.limit) throw new CostError()
  }
}

export type Run = (frame: Frame) => unknown

/** A part of an expression, checked: its type, what it may cost, and how to evaluate it. */
export interface Node {
  readonly type: Type
  readonly cost: Range
  /** Of its value, where more is known than the type says. */
  readonly size?: Range
  readonly entries?: Entries
  readonly run: Run
  /** Its size follows from the schema: it is a variable's value, or was reached from there. */
  readonly isRooted?: boolean
  /** A literal, and its value. */
  readonly literal?: { readonly value: unknown }
  /** Where it stands in the text. */
  readonly offset: number
}
