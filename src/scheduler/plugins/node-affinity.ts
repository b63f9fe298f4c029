import { requiredNodeTest, termTest } from '#api/placement/node-affinity.ts'
import { type Judge, normalizeToMax, type Plugin } from '../plugin.ts'

const reasons = ["node(s) didn't match Pod's node affinity/selector"]

export const nodeAffinity: Plugin = {
  name: 'NodeAffinity',
  weight: 2,
  judge({ pod }) {
    const required = requiredNodeTest(pod.spec)
    const preferred = (pod.spec.affinity?.nodeAffinity?.preferredDuringSchedulingIgnoredDuringExecution ?? []).map(
      ({ weight, preference }) => ({ weight, test: termTest(preference) }),
    )
    if (required === undefined && preferred.length === 0) return undefined
    const judge: Judge = {}
    if (required !== undefined)
      judge.filter = ({ node }) => (node !== undefined && required(node) ? undefined : reasons)
    if (preferred.length > 0) {
      judge.score = ({ node }) =>
        preferred.reduce((sum, { weight, test }) => sum + (node !== undefined && test(node) ? weight : 0), 0)
      judge.normalize = (scores) => normalizeToMax(scores, { reverse: false })
    }
    return judge
  },
}
