import test from 'ava'
import { testDatapath } from '#datapath/conformance.ts'
import { Topology } from './topology.ts'

/** The suite of the seam, on a real kernel. */
let topology: Topology
test.before(async () => {
  topology = await Topology.create({ label: 'c', direct: 'programs' })
  const { netlink } = topology.node(1)
  await netlink.addVeth({ name: 'one' }, { name: 'two' })
  await topology.node(1).datapath.setNodes([])
})
test.after.always(async () => {
  await topology?.[Symbol.asyncDispose]()
})

testDatapath(test, 'kernel', async () => {
  const node = topology.node(1)
  return {
    datapath: node.datapath,
    devices: ['one', 'two'].map((name) => node.namespace.ifindex(name)),
    async reopen() {
      node.closeDatapath()
      return node.openDatapath()
    },
  }
})
