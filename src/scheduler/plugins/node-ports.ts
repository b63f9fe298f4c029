import { conflicts } from '../host-ports.ts'
import type { Plugin } from '../plugin.ts'

const reasons = ["node(s) didn't have free ports for the requested pod ports"]

export const nodePorts: Plugin = {
  name: 'NodePorts',
  weight: 0,
  judge({ ports }) {
    if (ports.length === 0) return undefined
    return {
      filter(node) {
        for (const { port } of node.ports.values()) if (ports.some((p) => conflicts(p, port))) return reasons
        return undefined
      },
    }
  },
}
