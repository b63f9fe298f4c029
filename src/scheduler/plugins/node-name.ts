import type { Plugin } from '../plugin.ts'

const reasons = ["node(s) didn't match the requested node name"]

export const nodeName: Plugin = {
  name: 'NodeName',
  weight: 0,
  judge({ pod }) {
    const wanted = pod.spec.nodeName
    if (wanted === undefined || wanted === '') return undefined
    return { filter: (node) => (node.name === wanted ? undefined : reasons) }
  },
}
