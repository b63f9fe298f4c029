import type { Node, NodeSelectorRequirement, NodeSelectorTerm, PodSpec } from '../gen/core-v1.ts'

/** Node selectors: terms are alternatives, the requirements of a term must all hold, and a term without any holds never. */
export type NodeTest = (node: Node) => boolean

const always: NodeTest = () => true
const never: NodeTest = () => false

/** `spec.nodeSelector` and the required node affinity of a pod; undefined when it has neither. */
export function requiredNodeTest({ nodeSelector, affinity }: PodSpec): NodeTest | undefined {
  const tests: NodeTest[] = Object.entries(nodeSelector ?? {}).map(
    ([key, value]) =>
      (node) =>
        node.metadata.labels?.[key] === value,
  )
  const required = affinity?.nodeAffinity?.requiredDuringSchedulingIgnoredDuringExecution
  if (required !== undefined) {
    const terms = required.nodeSelectorTerms.map(termTest)
    tests.push((node) => terms.some((test) => test(node)))
  }
  if (tests.length === 0) return undefined
  const [only] = tests
  return tests.length === 1 && only !== undefined ? only : (node) => tests.every((test) => test(node))
}

export function termTest({ matchExpressions = [], matchFields = [] }: NodeSelectorTerm): NodeTest {
  if (matchExpressions.length + matchFields.length === 0) return never
  const tests = [
    ...matchExpressions.map((requirement) => {
      const holds = requirementTest(requirement)
      const { key } = requirement
      return (node: Node) => holds(node.metadata.labels?.[key])
    }),
    // The name is the only field there is to select by.
    ...matchFields.map((requirement) => {
      const holds = requirement.key === 'metadata.name' ? requirementTest(requirement) : undefined
      return holds === undefined ? never : (node: Node) => holds(node.metadata.name)
    }),
  ]
  return tests.length === 0 ? always : (node) => tests.every((test) => test(node))
}

function requirementTest({ operator, values = [] }: NodeSelectorRequirement): (value: string | undefined) => boolean {
  const set = new Set<string | undefined>(values)
  switch (operator) {
    case 'In':
      return (value) => set.has(value)
    case 'NotIn':
      return (value) => !set.has(value)
    case 'Exists':
      return (value) => value !== undefined
    case 'DoesNotExist':
      return (value) => value === undefined
    case 'Gt':
    case 'Lt': {
      const bound = integer(values[0])
      return (value) => {
        const actual = integer(value)
        if (actual === undefined || bound === undefined) return false
        return operator === 'Gt' ? actual > bound : actual < bound
      }
    }
    default:
      operator satisfies never
      return () => false
  }
}

const integer = (text: string | undefined): bigint | undefined =>
  text !== undefined && /^[+-]?\d{1,19}$/.test(text) ? BigInt(text.replace(/^\+/, '')) : undefined

/**
 * The names of the only nodes a pod may go to, where its affinity names them (as every DaemonSet pod's does): then no
 * other node has to be looked at. Undefined when any node may do.
 */
export function namedNodes({ affinity }: PodSpec): readonly string[] | undefined {
  const terms = affinity?.nodeAffinity?.requiredDuringSchedulingIgnoredDuringExecution?.nodeSelectorTerms
  if (terms === undefined || terms.length === 0) return undefined
  const names = new Set<string>()
  for (const { matchFields = [] } of terms) {
    const byName = matchFields.filter((r) => r.key === 'metadata.name' && r.operator === 'In')
    const [first] = byName
    if (first === undefined) return undefined
    for (const name of first.values ?? []) if (byName.every((r) => r.values?.includes(name))) names.add(name)
  }
  return [...names]
}
