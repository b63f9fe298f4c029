import type { Frame, Node } from './frame.ts'
import { EvaluationError, noSuchOverload } from './values.ts'

/**
 * An operand that fails does not matter where the other one decides (cel-spec: "Logical Operators"); where none does, the
 * first failure counts.
 */
export function logicRun(decides: boolean, a: Node['run'], b: Node['run']): Node['run'] {
  const settle = (frame: Frame, failure: EvaluationError): boolean => {
    try {
      if (b(frame) === decides) return decides
    } catch (error) {
      if (!(error instanceof EvaluationError)) throw error
    }
    throw failure
  }
  return (frame) => {
    let left: unknown
    try {
      left = a(frame)
    } catch (error) {
      if (!(error instanceof EvaluationError)) throw error
      return settle(frame, error)
    }
    if (left === decides) return decides
    if (typeof left !== 'boolean') return settle(frame, noSuchOverload())
    const right = b(frame)
    if (typeof right !== 'boolean') throw noSuchOverload()
    return right
  }
}
