import { tunnelRows } from './zz-vx.ts'
await tunnelRows()
