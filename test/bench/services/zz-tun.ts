import { tunnelRows } from './tunnel.ts'
console.log(await tunnelRows())
