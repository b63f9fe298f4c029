import { clusterIpRows } from './zz-cip.ts'
const u = performance.now()
console.log(await clusterIpRows(), performance.now() - u)
