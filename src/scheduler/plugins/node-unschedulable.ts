import type { Taint } from '#api/gen/core-v1.ts'
import { isTolerated } from '#api/placement/taints.ts'
import type { Plugin } from '../plugin.ts'

const cordon: Taint = { key: 'node.kubernetes.io/unschedulable', effect: 'NoSchedule' }
const reasons = ['node(s) were unschedulable']

export const nodeUnschedulable: Plugin = {
  name: 'NodeUnschedulable',
  weight: 0,
  judge({ pod }) {
    if (isTolerated(cordon, pod.spec.tolerations)) return undefined
    return { filter: ({ node }) => (node?.spec.unschedulable === true ? reasons : undefined) }
  },
}
