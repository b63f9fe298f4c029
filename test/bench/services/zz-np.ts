import { nodePortRows } from './node-port.ts'

console.log(await nodePortRows())
