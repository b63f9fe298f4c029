import { tunnelRows } from './tunnel.ts'
import { clusterIpRows } from './cluster-ip.ts'
const t = performance.now()
console.log(await tunnelRows(), performance.now() - t)
const u = performance.now()
console.log(await clusterIpRows(), performance.now() - u)
