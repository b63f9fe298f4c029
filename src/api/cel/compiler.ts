import type { ASTNode } from '@marcbachmann/cel-js'
import { add, fixed, free, listBase, mapBase, one, type Range, union } from './cost.ts'
import { Frame, type Node } from './frame.ts'
import { callNode, type FunctionTable, resolve } from './functions.ts'
import type { Issue } from './issue.ts'
import { literalNode, operatorNames, pathOf, typeNames } from './literals.ts'
import { logicRun } from './logic.ts'
import { expandMacro } from './macros.ts'
import { sizeOfNode } from './operators.ts'
import { absentIsNone, indexNode, presenceNode, selectNode } from './select.ts'
import * as types from './types.ts'
import { formatType, join, type Type } from './types.ts'
import { EvaluationError, mapKey, noSuchOverload, TypeValue } from './values.ts'
import type { Variable, Walk } from './walk.ts'

/** What an expression may speak of. */
export interface Declarations {
  /** In the order in which their values are given. */
  readonly variables: ReadonlyMap<string, Type>
  readonly functions: FunctionTable
}

/** Goes over the tree once: finds types, adds up costs, and makes closures. */
export class Compiler implements Walk {
  readonly source: string
  readonly issues: Issue[] = []
  readonly references = new Set<string>()
  readonly functions: FunctionTable
  slotCount = 0
  /** What makes the expression fail whatever its variables are. */
  failure: string | undefined
  readonly #globals: ReadonlyMap<string, Type>
  readonly #scope = new Map<string, Variable>()
  /** Above zero: elements of literals may be of any types. */
  #mixed = 0

  constructor(source: string, { variables, functions }: Declarations) {
    this.source = source
    this.functions = functions
    this.#globals = variables
    for (const [name, type] of variables) this.#scope.set(name, { type, slot: this.slotCount++, isRooted: true })
  }

  fail(offset: number, message: string): Node {
    this.issues.push({ offset, message })
    return {
      type: types.dyn,
      cost: free,
      offset,
      run() {
        throw noSuchOverload()
      },
    }
  }

  withVariable<T>(name: string, { type, size, isRooted }: Omit<Variable, 'slot'>, body: (slot: number) => T): T {
    const before = this.#scope.get(name)
    const slot = this.slotCount++
    this.#scope.set(name, { type, slot, isRooted, ...(size ? { size } : {}) })
    try {
      return body(slot)
    } finally {
      if (before === undefined) this.#scope.delete(name)
      else this.#scope.set(name, before)
    }
  }

  variable(name: string): Node['run'] {
    const slot = this.#scope.get(name)?.slot ?? 0
    return (frame) => frame.slots[slot]
  }

  compile(ast: ASTNode): Node {
    switch (ast.op) {
      case 'value':
        return literalNode(ast.args, ast.start)
      case 'id':
        return this.#identifier(ast.args, ast.start)
      case '.': {
        // A variable whose name has a dot: authorizer.requestResource.
        const path = pathOf(ast)
        if (path !== undefined && this.#globals.has(path)) return this.#identifier(path, ast.start)
        return selectNode(this, this.compile(ast.args[0]), ast.args[1], this.dotOffset(ast), ast.start)
      }
      case '.?':
        return absentIsNone(this, this.compile(ast.args[0]), ast.args[1], this.dotOffset(ast))
      case '[]':
        return indexNode(this, this.compile(ast.args[0]), this.compile(ast.args[1]), ast.args[0].end, false)
      case '[?]':
        return indexNode(this, this.compile(ast.args[0]), this.compile(ast.args[1]), ast.args[0].end, true)
      case 'call':
        return this.#call(ast.args[0], ast.args[1], ast.start)
      case 'rcall':
        return this.#memberCall(ast)
      case 'list':
        return this.#list(ast.args, ast.start)
      case 'map':
        return this.#map(ast.args, ast.start)
      case '?:':
        return this.#conditional(ast.args, ast.start)
      case '||':
      case '&&':
        return this.#logic(ast.op, this.compile(ast.args[0]), this.compile(ast.args[1]), this.operatorOffset(ast))
      case '!_':
      case '-_':
        return this.#negation(ast.op, ast.args, ast.start)
      default:
        return this.apply(ast.op, [this.compile(ast.args[0]), this.compile(ast.args[1])], this.operatorOffset(ast))
    }
  }

  /** An operator or function on arguments that are compiled already. */
  apply(name: string, args: readonly Node[], offset: number, isMember = false): Node {
    const candidates = this.functions.get(name)
    const shown = operatorNames[name] ?? name
    if (candidates === undefined) return this.fail(offset, `undeclared reference to '${shown}' (in container '')`)
    const argTypes = args.map((arg) => arg.type)
    const found = resolve(candidates, isMember, argTypes)
    if (found === undefined) {
      const formatted = argTypes.map(formatType)
      const applied = isMember ? `${formatted[0]}.(${formatted.slice(1).join(', ')})` : `(${formatted.join(', ')})`
      return this.fail(offset, `found no matching overload for '${shown}' applied to '${applied}'`)
    }
    for (const each of found.overloads) {
      const words = each.check?.(args)
      if (words !== undefined) return this.fail(args.at(-1)?.offset ?? offset, words)
    }
    const [left] = argTypes
    const isJoined = name === '+' && left?.kind === 'list' && left.identity !== undefined
    // A set or map list stays one when something is added to it.
    const type = isJoined ? left : found.type
    const node = callNode(found.overloads, type, args, offset)
    return conversions.has(name) ? this.#folded(node, args) : node
  }

  /** A conversion of what is written there is done once. */
  #folded(node: Node, args: readonly Node[]): Node {
    if (!args.every((arg) => arg.literal !== undefined)) return node
    try {
      const value = node.run(new Frame([], Infinity))
      return { ...node, literal: { value }, run: () => value }
    } catch (error) {
      if (!(error instanceof EvaluationError)) throw error
      this.failure ??= error.message
      return node
    }
  }

  /** Where the sign of a binary operator stands: between its operands. */
  operatorOffset(ast: ASTNode): number {
    const [left] = ast.args as readonly [ASTNode, ASTNode]
    const between = this.source.slice(left.end)
    return left.end + (/^[\s)]*/.exec(between)?.[0].length ?? 0)
  }

  dotOffset(ast: ASTNode): number {
    const [left] = ast.args as readonly [ASTNode, string]
    const dot = this.source.indexOf('.', left.end)
    return dot < 0 ? ast.start : dot
  }

  presence(ast: ASTNode): Node {
    if (ast.op !== '.') return this.fail(ast.start, 'invalid argument to has() macro')
    return presenceNode(this, this.compile(ast.args[0]), ast.args[1], this.dotOffset(ast))
  }

  #identifier(name: string, offset: number): Node {
    const variable = this.#scope.get(name)
    if (variable === undefined) {
      const typeName = typeNames[name]
      if (typeName !== undefined) {
        const value = new TypeValue(typeName)
        return { type: types.typeType, cost: free, offset, run: () => value }
      }
      return this.fail(offset, `undeclared reference to '${name}' (in container '')`)
    }
    if (this.#globals.has(name)) this.references.add(name)
    const { slot, type, size, isRooted } = variable
    return {
      type,
      cost: one,
      isRooted,
      ...(size ? { size } : {}),
      offset,
      run(frame) {
        frame.cost++
        return frame.slots[slot]
      },
    }
  }

  #call(name: string, args: readonly ASTNode[], start: number): Node {
    const macro = expandMacro(this, name, undefined, args, start)
    if (macro !== undefined) return macro
    const open = this.source.indexOf('(', start)
    return this.apply(
      name,
      args.map((arg) => this.compile(arg)),
      open < 0 ? start : open,
    )
  }

  #memberCall(ast: ASTNode & { readonly op: 'rcall' }): Node {
    const [name, receiver, args] = ast.args
    const open = this.source.indexOf('(', receiver.end)
    const offset = open < 0 ? ast.start : open
    const path = pathOf(receiver)
    const isFree = path !== undefined && !this.#scope.has(path.split('.')[0] ?? '')
    if (isFree && this.functions.has(`${path}.${name}`)) {
      return this.apply(
        `${path}.${name}`,
        args.map((arg) => this.compile(arg)),
        offset,
      )
    }
    const macro = expandMacro(this, name, receiver, args, offset)
    if (macro !== undefined) return macro
    const all = [this.compile(receiver), ...this.#arguments(name, args)]
    if (this.issues.length > 0 && all[0]?.type.kind === 'dyn' && !this.functions.has(name))
      return this.fail(offset, `undeclared reference to '${name}' (in container '')`)
    return this.apply(name, all, offset, true)
  }

  /** What `format` is given need not have one type. */
  #arguments(name: string, args: readonly ASTNode[]): Node[] {
    if (name !== 'format') return args.map((each) => this.compile(each))
    this.#mixed++
    const nodes = args.map((each) => this.compile(each))
    this.#mixed--
    return nodes
  }

  #negation(op: '!_' | '-_', operand: ASTNode, offset: number): Node {
    // The least int is written as the negation of a number that is none.
    if (op === '-_' && operand.op === 'value' && typeof operand.args === 'bigint')
      return literalNode(-operand.args, offset)
    if (op === '-_' && operand.op === 'value' && typeof operand.args === 'number')
      return literalNode(-operand.args, offset)
    return this.apply(op, [this.compile(operand)], offset)
  }

  #list(elements: readonly ASTNode[], offset: number): Node {
    const nodes = elements.map((element) => this.compile(element))
    const of = this.#common(nodes)
    const runs = nodes.map((node) => node.run)
    const value = nodes.map(sizeOfNode).reduce(union, nodes.length === 0 ? free : { min: Infinity, max: 0 })
    const constants = nodes.every((node) => node.literal !== undefined) ? nodes.map((n) => n.literal?.value) : undefined
    const literal = constants && { value: constants }
    return {
      type: types.listOf(of),
      cost: add(fixed(listBase), ...nodes.map((node) => node.cost)),
      size: fixed(nodes.length),
      entries: { key: one, value },
      offset,
      ...(literal ? { literal } : {}),
      run(frame) {
        if (constants !== undefined) return constants
        frame.spend(listBase)
        return runs.map((run) => run(frame))
      },
    }
  }

  #map(pairs: readonly (readonly [ASTNode, ASTNode])[], offset: number): Node {
    const nodes = pairs.map(([key, value]) => [this.compile(key), this.compile(value)] as const)
    const keys = nodes.map(([key]) => key)
    const values = nodes.map(([, value]) => value)
    const size = (parts: readonly Node[]): Range =>
      parts.map(sizeOfNode).reduce(union, parts.length === 0 ? free : { min: Infinity, max: 0 })
    const node: Node = {
      type: types.mapOf(this.#common(keys), this.#common(values)),
      cost: add(fixed(mapBase), ...nodes.flat().map((node) => node.cost)),
      size: fixed(nodes.length),
      entries: { key: size(keys), value: size(values) },
      offset,
      run(frame) {
        frame.spend(mapBase)
        const map = new Map<unknown, unknown>()
        for (const [key, value] of nodes) {
          const at = mapKey(key.run(frame))
          if (map.has(at)) throw new EvaluationError(`Failed with repeated key`)
          map.set(at, value.run(frame))
        }
        return map
      },
    }
    return this.#folded(node, [...keys, ...values])
  }

  /** The type of a literal's elements, which must have one in common. */
  #common(nodes: readonly Node[]): Type {
    let type: Type | undefined
    for (const node of nodes) {
      const isMixed = type !== undefined && (type.kind === 'dyn') !== (node.type.kind === 'dyn')
      const joined: Type | undefined = type === undefined ? node.type : isMixed ? undefined : join(type, node.type)
      if (joined === undefined && this.#mixed > 0) return types.dyn
      if (joined === undefined) {
        const expected = formatType(type ?? types.dyn)
        this.fail(node.offset, `expected type '${expected}' but found '${formatType(node.type)}'`)
        return types.dyn
      }
      type = joined
    }
    return type ?? { kind: 'parameter', name: 'any' }
  }

  #conditional([test, yes, no]: readonly [ASTNode, ASTNode, ASTNode], start: number): Node {
    const [condition, a, b] = [this.compile(test), this.compile(yes), this.compile(no)]
    const offset = this.source.indexOf('?', test.end) < 0 ? start : this.source.indexOf('?', test.end)
    const type = join(a.type, b.type)
    if (type === undefined || !isBoolean(condition.type)) {
      const applied = [condition, a, b].map((node) => formatType(node.type)).join(', ')
      return this.fail(offset, `found no matching overload for '_?_:_' applied to '(${applied})'`)
    }
    const [run, runA, runB] = [condition.run, a.run, b.run]
    const entries =
      a.entries && b.entries
        ? { key: union(a.entries.key, b.entries.key), value: union(a.entries.value, b.entries.value) }
        : undefined
    return {
      type,
      cost: add(condition.cost, union(a.cost, b.cost)),
      size: union(sizeOfNode(a), sizeOfNode(b)),
      ...(entries ? { entries } : {}),
      offset: start,
      run(frame) {
        const value = run(frame)
        if (value === true) return runA(frame)
        if (value === false) return runB(frame)
        throw noSuchOverload()
      },
    }
  }

  #logic(op: '||' | '&&', a: Node, b: Node, offset: number): Node {
    if (!isBoolean(a.type) || !isBoolean(b.type)) {
      const applied = `${formatType(a.type)}, ${formatType(b.type)}`
      return this.fail(offset, `found no matching overload for '_${op}_' applied to '(${applied})'`)
    }
    return {
      type: types.bool,
      cost: { min: a.cost.min, max: add(a.cost, b.cost).max },
      size: one,
      offset: a.offset,
      run: logicRun(op === '||', a.run, b.run),
    }
  }
}

const conversions = new Set('bool bytes double duration dyn int string timestamp type uint'.split(' '))

const isBoolean = ({ kind }: Type): boolean => kind === 'bool' || kind === 'dyn' || kind === 'parameter'
