import { stringify } from 'yaml'
import type { Because, Step } from '#agent/why/why.ts'
import type { Answer, End } from './ask.ts'

/** The way of the packet, a paragraph for each hook, and the verdict first. */
export function formatWhy(answer: Answer): string {
  const { source, destination, port, protocol, steps, isAllowed } = answer
  const head = `${endName(source)} -> ${endName(destination)} port ${port}/${protocol}: ${isAllowed ? 'allowed' : 'REFUSED'}`
  return `${[head, ...steps.map(formatStep)].join('\n\n')}\n`
}

const endName = ({ name, address, node }: End): string =>
  `${name}${name === address ? '' : ` ${address}`}${node === undefined ? '' : ` on ${node}`}`

function formatStep(step: Step): string {
  const { node, hook, verdict, reason, service, backends = [] } = step
  const lines: string[] = []
  if (hook === 'connect') {
    const named = service === undefined ? step.destination.address : `Service ${service.namespace}/${service.name}`
    const all = backends.map((b) => `${literal(b.address)}:${b.port}`)
    lines.push(
      backends.length === 0
        ? `${node} connect: ${named} has no endpoint: the connection is refused at once`
        : `${node} connect: ${named} leads to ${all.length === 1 ? all[0] : `one of ${all.join(' ')}; the first is looked at`}`,
    )
    return lines.join('\n')
  }
  const ids = `identity ${step.source.identity} -> ${step.destination.identity}`
  lines.push(`${node} ${hook}: ${verdict === 'dropped' ? `dropped: ${reason}` : words[verdict]} (${ids})`)
  if (step.egress !== undefined) lines.push(...formatBecause('egress', step.egress))
  if (step.ingress !== undefined) lines.push(...formatBecause('ingress', step.ingress))
  return lines.join('\n')
}

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
