import { stringify } from 'yaml'
import type { Because, Step } from '#agent/why/why.ts'
import type { Answer } from './ask.ts'
import type { End } from './ends.ts'

/** The way of the packet, a paragraph for each hook, and the verdict first. */
export function formatWhy(answer: Answer): string {
  const { source, destination, port, protocol, steps, isAllowed } = answer
  const head = `${endName(source)} -> ${endName(destination)} port ${port}/${protocol}: ${isAllowed ? 'allowed' : 'REFUSED'}`
  return `${[head, ...steps.map(formatStep)].join('\n\n')}\n`
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
      : `${node} connect: ${named} leads to ${all.length === 1 ? all[0] : `one of ${all.join(' ')}; the first is looked at`}`
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
    const leads = `leads to ${all.length === 1 ? all[0] : `one of ${all.join(' ')}`}`
    lines.push(`  ${named} ${all.length === 0 ? 'has no endpoint for those outside' : leads}`)
  }
  if (goesOn === undefined) return lines
  const to = placeName({ address: goesOn.destination, port: goesOn.port })
  const under = goesOn.source === source.address ? '' : `, under the address ${goesOn.source}`
  lines.push(`  ${verdict === 'dropped' ? 'would have gone' : 'goes'} on to ${to}${under}`)
  return lines
}

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
    case 'policies': {
      const names = because.policies.map((p) => `${p.namespace}/${p.name}`)
      return [
        `  ${side}: isolated by NetworkPolicy ${names.join(', ') || '(not known any more)'}; no element of ${names.length > 1 ? 'them' : 'it'} allows this`,
      ]
    }
    case 'rule': {
      const { namespace, name, generation, path, element } = because.rule
      const yaml = stringify(element).trimEnd().split('\n')
      return [
        `  ${side}: allowed by NetworkPolicy ${namespace}/${name} (generation ${generation}) ${path}:`,
        ...yaml.map((line) => `    ${line}`),
      ]
    }
    default:
      return because satisfies never
  }
}

const literal = (address: string): string => (address.includes(':') ? `[${address}]` : address)
