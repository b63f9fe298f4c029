import { createNamespace, deleteNamespace } from '#kernel/netns.ts'
import { loadIptables, loadNftables } from './kube-proxy.ts'

const n = Number(process.argv[2]),
  k = Number(process.argv[3])
const ns = `weft-test-rules${process.pid}`
const rules = Array.from({ length: n }, (_, i) => ({
  address: `10.97.${i >> 8}.${i & 255}`,
  port: 80,
  backends: Array.from({ length: k }, (_, j) => `10.99.${((i * k + j) >> 8) & 255}.${(i * k + j) & 255}`),
  backendPort: 8080,
}))
createNamespace(ns)
try {
  for (const [name, f] of [
    ['nft', loadNftables],
    ['ipt', loadIptables],
  ] as const) {
    const s = performance.now()
    f(ns, rules)
    console.log(name, n, k, (performance.now() - s).toFixed(0), 'ms')
  }
} finally {
  const s = performance.now()
  deleteNamespace(ns)
  console.log('gone', performance.now() - s)
}
