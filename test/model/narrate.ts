import type { Outcome } from './journey.ts'
import { NodeModel } from './node.ts'
import { changed, emptyCluster, formatStep, parseScenario, type Step } from './scenario.ts'
import { ownNode } from './universe.ts'

/** Time between two packets of a scenario. */
export const tickMs = 1
/** Where a scenario's clock begins: far enough from 0 that everything may lie in the past. */
export const beginMs = 10_000_000

/** What became of a packet, on one line. */
export function tellOutcome({ end, reason, pod, rules, story, wrapped }: Outcome): string {
  const where =
    end === 'pod'
      ? `to ${pod}`
      : end === 'out'
        ? 'out'
        : end === 'tunnel'
          ? `wrapped to ${wrapped?.node} as ${typeof wrapped?.as === 'object' ? wrapped.as.pod : 'node'}`
          : end === 'stack'
            ? 'to the node itself'
            : `${end === 'drop' ? 'dropped' : 'refused'}, ${reason}`
  const why = [...story, ...(rules.length > 1 ? [`also allowed by ${rules.slice(1).join(' and ')}`] : [])]
  return `=> ${where}${why.length === 0 ? '' : `: ${why.join('; ')}`}`
}

/** A scenario's text with the answers of the model after every packet; comments and empty lines stay, old answers go. */
export function narrate(text: string): string {
  parseScenario(text)
  const model = new NodeModel(ownNode, emptyCluster)
  let now = beginMs
  const lines = text.split('\n').filter((line) => !line.startsWith('=>'))
  return lines
    .flatMap((line) => {
      const [step] = parseScenario(line).steps
      if (step === undefined) return [line]
      if (step.do === 'wait') {
        now += step.ms
        model.sweep(now)
      } else if (step.do === 'send') {
        now += tickMs
        return [line, tellOutcome(model.judge(step.hook, step.packet, now))]
      } else model.change(changed(model.cluster, step))
      return [line]
    })
    .join('\n')
}

/** A scenario's steps as text, with answers. */
export const narrateSteps = (title: string, steps: readonly Step[]): string =>
  narrate(`# ${title}\n${steps.map((step) => `${formatStep(step)}\n`).join('')}`)
