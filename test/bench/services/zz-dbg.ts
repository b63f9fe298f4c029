import { execFileSync } from 'node:child_process'
import { endpointSlices, pods, services } from '#api/gen/resources.ts'
import { layoutCluster } from '#cli/cluster/layout.ts'
import { adminClient } from '#cli/cluster/ready.ts'
import * as r from './readiness.ts'

const layout = layoutCluster('t-svcp', 2)
using client = await adminClient(layout)
const key = await r.makeService(client)
await new Promise((d) => setTimeout(d, 1500))
console.log(JSON.stringify((await client.list(pods, { namespace: "default" })).items.map((p: any) => [p.metadata.name, p.metadata.annotations, p.spec.nodeName, p.status, p.metadata.deletionTimestamp])))
console.log(JSON.stringify(await client.list(endpointSlices, { namespace: 'default' }), null, 0).slice(600))
