import { stringify } from 'yaml'
import type { Because, Step } from '#agent/why/why.ts'
import type { Answer } from './ask.ts'
import type { End } from './ends.ts'

/** The way of the packet, a paragraph for each hook, and the verdict first. */
export function formatWhy(answer: Answer): string {
  const { source, destination, port, protocol, steps, ways, isAllowed, notes } = answer
  const asked = protocol === 'ICMP' ? 'by ICMP' : `port ${port}/${protocol}`
  const refused = ways.filter((way) => !way.isAllowed)
  const some = refused.length > 0 && refused.length < ways.length
  const verdict = isAllowed ? 'allowed' : some ? `REFUSED on ${refused.length} of ${ways.length} ways` : 'REFUSED'
  const head = `${endName(source)} -> ${endName(destination)} ${asked}: ${verdict}`
  const backends = Math.max(0, ...steps.map((step) => step.backends?.length ?? 0))
  const which =
    ways.length < 2
      ? []
      : [`${formatWays(ways)}${backends > ways.length ? ` (${ways.length} of ${backends} were asked about)` : ''}`]
  return `${[[head, ...which, ...notes].join('\n'), ...steps.map(formatStep)].join('\n\n')}\n`
}

/** Where one Service leads to several, each is asked about and one is shown. */
function formatWays(ways: Answer['ways']): string {
  const places = (isAllowed: boolean): string =>
    ways
      .filter((way) => way.isAllowed === isAllowed)
      .map((way) => way.to)
      .join(' ')
  const [yes, no] = [places(true), places(false)]
  if (no === '') return `to each of ${yes}; the first is shown`
  return yes === '' ? `to none of ${no}; the first is shown` : `to ${yes}, but not to ${no}; one of these is shown`
}

const endName = ({ name, address, node }: End): string =>
  `${name}${name === address ? '' : ` ${address}`}${node === undefined ? '' : ` on ${node}`}`

function formatStep(step: Step): string {
  const { node, hook, verdict, reason, backends = [], isGateway } = step
  const named = serviceName(step)
  if (hook === 'connect') {
    const all = backends.map(placeName)
    if (isGateway)
      return `${node} connect: ${named} is a Gateway's: its engine on ${node} answers, and asks by its routes`
    return backends.length === 0
      ? `${node} connect: ${named} has no endpoint: the connection is refused at once`
      : `${node} connect: ${named} leads to ${leadsTo(all)}${formatPlace(step)}`
  }
  const { source, destination } = step
  // A packet that is only sent on, or left to the stack, was looked at by no policy.
  const ids =
    source.identity === 0 && destination.identity === 0
      ? ''
      : ` (identity ${source.identity} -> ${destination.identity})`
  const lines = [
    `${node} ${hook}: ${verdict === 'dropped' ? `dropped: ${reason}` : hook === 'to_container' ? 'let in' : words[verdict]}${ids}`,
  ]
  if (isGateway) lines.push(`  ${named} is a Gateway's: its engine on ${node} answers, and asks by its routes`)
  lines.push(...formatExchange(step, named))
  if (step.egress !== undefined) lines.push(...formatBecause('egress', step.egress))
  if (step.ingress !== undefined) lines.push(...formatBecause('ingress', step.ingress))
  return lines.join('\n')
}

/** What the packet has become: of a Service's address a backend's, of a pod's the node's. */
function formatExchange({ source, verdict, backends, goesOn }: Step, named: string): string[] {
  const lines: string[] = []
  if (backends !== undefined) {
    const all = backends.map(placeName)
    const leads = `leads to ${leadsTo(all)}`
    lines.push(`  ${named} ${all.length === 0 ? 'has no endpoint for those outside' : leads}`)
  }
  if (goesOn === undefined) return lines
  const to = placeName({ address: goesOn.destination, port: goesOn.port })
  const under = goesOn.source === source.address ? '' : `, under the address ${goesOn.source}`
  lines.push(`  ${verdict === 'dropped' ? 'would have gone' : 'goes'} on to ${to}${under}`)
  return lines
}

/** Of a Service with thousands of endpoints only some are said. */
const leadsTo = (all: readonly string[]): string =>
  all.length === 1 ? (all[0] ?? '') : `one of ${all.slice(0, saidMax).join(' ')}${more(all.length - saidMax)}`
const saidMax = 8
const more = (count: number): string => (count > 0 ? ` and ${count} more` : '')

/** Which of several this way goes to. */
const formatPlace = ({ backends = [], goesOn }: Step): string =>
  goesOn === undefined || backends.length < 2
    ? ''
    : `; here to ${placeName({ address: goesOn.destination, port: goesOn.port })}`

const serviceName = ({ service, destination }: Step): string =>
  service === undefined
    ? placeName({ address: destination.address, port: destination.port })
    : `Service ${service.namespace}/${service.name}`

const placeName = ({ address, port }: { readonly address: string; readonly port: number }): string =>
  `${literal(address)}:${port}`

const words = {
  forwarded: 'forwarded',
  stack: 'left to the node’s own stack',
  translated: 'translated',
  refused: 'refused',
  dropped: 'dropped',
}

function formatBecause(side: 'egress' | 'ingress', because: Because): string[] {
  switch (because.kind) {
    case 'not-isolated':
      return [`  ${side}: no NetworkPolicy isolates it`]
    case 'always':
      return [`  ${side}: no policy is asked: a pod always reaches itself, and its own node always reaches it`]
    case 'closed':
      return [`  ${side}: closed, for what isolates it is not written: weft status and its policies' events say why`]
    case 'policies': {
      const { policies } = because
      if (policies.length === 0) return [`  ${side}: isolated by policies that are not known any more`]
      const it = policies.length > 1 ? 'them' : 'it'
      return [
        `  ${side}: isolated, and no element of ${it} allows this:`,
        ...policies
          .slice(0, policiesMax)
          .flatMap((rule) => [`    NetworkPolicy ${ruleName(rule)}:`, ...formatElement(rule.element, '      ')]),
        ...(policies.length > policiesMax ? [`   ${more(policies.length - policiesMax)}`] : []),
      ]
    }
    case 'rule':
      return [
        `  ${side}: allowed by NetworkPolicy ${ruleName(because.rule)}:`,
        ...formatElement(because.rule.element, '    '),
      ]
    default:
      return because satisfies never
  }
}

/** A pod may be isolated by thousands. */
const policiesMax = 8

type RuleName = Extract<Because, { readonly kind: 'rule' }>['rule']
const ruleName = ({ namespace, name, generation, path }: RuleName): string =>
  `${namespace}/${name} (generation ${generation}) ${path}`

const formatElement = (element: unknown, indent: string): string[] =>
  stringify(element)
    .trimEnd()
    .split('\n')
    .map((line) => `${indent}${line}`)

const literal = (address: string): string => (address.includes(':') ? `[${address}]` : address)
