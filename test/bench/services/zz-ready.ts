import { readinessRows } from './readiness.ts'

console.log(await readinessRows())
