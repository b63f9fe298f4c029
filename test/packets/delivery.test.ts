import test from 'ava'
import { inPod, load, onFabric, onNode, peerNames, serve, type TestPod, Topology } from './topology.ts'

/** Root, a kernel of 6.8 or later, clang: `node scripts/test.js` says so where one is missing. */
let topology: Topology
let a: TestPod
let b: TestPod
let far: TestPod
const port = 8080

test.before(async () => {
  topology = await Topology.create({ label: 'd' })
  a = await topology.node(1).addPod()
  b = await topology.node(1).addPod()
  far = await topology.node(2).addPod()
})
test.after.always(async () => {
  await topology?.[Symbol.asyncDispose]()
})

const families = ['v4', 'v6'] as const

for (const family of families) {
  test(`pods of one node talk (${family})`, async (t) => {
    await using _ = await serve(inPod(b), b[family], port)
    t.true((await load(inPod(a), 'rr', b[family], port)) > 0)
    t.true((await load(inPod(a), 'crr', b[family], port)) > 0)
    t.true((await load(inPod(a), 'urr', b[family], port)) > 0)
    t.true((await load(inPod(a), 'stream', b[family], port)) > 0)
  })

  test(`pods of two nodes talk (${family})`, async (t) => {
    await using _ = await serve(inPod(far), far[family], port)
    t.true((await load(inPod(a), 'rr', far[family], port)) > 0)
    t.true((await load(inPod(a), 'crr', far[family], port)) > 0)
    t.true((await load(inPod(a), 'urr', far[family], port)) > 0)
    t.true((await load(inPod(a), 'stream', far[family], port)) > 0)
  })
}
