import { isTolerated, untoleratedTaint } from '#api/placement/taints.ts'
import { normalizeToMax, type Plugin } from '../plugin.ts'

const reasons = ['node(s) had untolerated taint(s)']

export const taintToleration: Plugin = {
  name: 'TaintToleration',
  weight: 3,
  judge({ pod }) {
    const { tolerations } = pod.spec
    return {
      filter: ({ node }) => (untoleratedTaint(node?.spec.taints, tolerations) === undefined ? undefined : reasons),
      score({ node }) {
        let intolerable = 0
        for (const taint of node?.spec.taints ?? [])
          if (taint.effect === 'PreferNoSchedule' && !isTolerated(taint, tolerations)) intolerable++
        return intolerable
      },
      normalize: (scores) => normalizeToMax(scores, { reverse: true }),
    }
  },
}
