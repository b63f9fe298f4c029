import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { addressOf } from '#cli/cluster/layout.ts'
import { parseKubeconfig } from '#client/kubeconfig.ts'
import type { TestCluster } from './cluster.ts'

/** What a node's kubelet says at a path, asked from the fabric with the administrator's certificate. */
export async function scrapeNode(cluster: TestCluster, node: string, path = '/metrics'): Promise<string> {
  const { layout } = cluster
  const found = layout.nodes.find(({ name }) => name === node)
  if (found === undefined) throw new Error(`the cluster has no node ${node}`)
  const config = await parseKubeconfig(readFileSync(layout.server.adminKubeconfig, 'utf8'))
  const [host = ''] = found.addresses.map(addressOf)
  const options = { host, port: 10_250, path, ca: config.ca, cert: config.cert, key: config.key }
  return execFileSync('nsenter', [`--net=/run/netns/${layout.fabric.netns}`, process.execPath, '-e', script], {
    encoding: 'utf8',
    input: JSON.stringify(options),
    timeout: 20_000,
    maxBuffer: 64 << 20,
  })
}

const script = `
const options = JSON.parse(require('fs').readFileSync(0, 'utf8'))
require('https').get(options, (answer) => {
  if (answer.statusCode !== 200) { console.error(answer.statusCode); process.exitCode = 1 }
  answer.pipe(process.stdout)
})`
