import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { stringify } from 'yaml'
import { gatewayDefinitions } from '#api/gateway/crds.ts'

// What `helm template` makes of helm/ for the cluster of chart.test.ts is kept beside it: the distribution has no Helm.
// `node test/cluster/chart.ts PATH/TO/helm` makes it again; the test says when that is due.

export const clusterName = 't-chart'
const helmDir = resolve(import.meta.dirname, '../../helm')
const goldenPath = join(import.meta.dirname, 'chart.golden.yaml')
const monitorPath = join(import.meta.dirname, 'chart-monitor.golden.yaml')

/** A chart for nodes that share a machine: each has a directory of its own below one that is mounted. */
const values = {
  'apiServer.host': '172.30.0.1',
  podCidrs: '{10.244.0.0/16,fd00:10:244::/56}',
  serviceCidrs: '{10.96.0.0/16,fd00:10:96::/112}',
  'operator.loadBalancerPools': '{172.30.0.200-172.30.0.250,fd00:172:30::200-fd00:172:30::2ff}',
  'metrics.dashboards': 'true',
  'node.runMount': `/run/weft/${clusterName}`,
  'node.runDir': `/run/weft/${clusterName}/$(NODE_NAME)`,
  'node.bpffs': `/run/weft/${clusterName}/$(NODE_NAME)/bpf`,
  'node.cgroup': `weft/${clusterName}/$(NODE_NAME)`,
  'node.cniBinDir': `/run/weft/${clusterName}/$(NODE_NAME)/cni/bin`,
  'node.cniConfDir': `/run/weft/${clusterName}/$(NODE_NAME)/cni/conf`,
}

/** Of the chart's files and the values: the golden file names those that it was made of. */
function fingerprint(): string {
  const sum = createHash('sha256').update(JSON.stringify(values))
  const files = readdirSync(helmDir, { recursive: true, encoding: 'utf8' })
    .filter((file) => statSync(join(helmDir, file)).isFile() && !file.endsWith('.md') && !file.startsWith('crds/'))
    .toSorted()
  for (const file of files) sum.update(file).update(readFileSync(join(helmDir, file)))
  return sum.digest('hex').slice(0, 16)
}

/** The Gateway API's definitions, for clusters whose API server does not bring them: those of src/api, as one file. */
export const definitions = (): string =>
  `# Made by test/cluster/chart.ts from src/api/gateway.\n${gatewayDefinitions()
    .map((definition) => `---\n${stringify(definition, { aliasDuplicateObjects: false, lineWidth: 0 })}`)
    .join('')}`
export const definitionsPath = join(helmDir, 'crds/gateway-api.yaml')

/** The manifests. Throws where the chart is newer than they are. */
export const renderedChart = (): string => golden(goldenPath)

/** The PodMonitor, which needs a definition that only the Prometheus operator brings. */
export const renderedMonitor = (): string => golden(monitorPath)

function golden(path: string): string {
  const text = readFileSync(path, 'utf8')
  const of = /^# of helm\/ ([0-9a-f]+)/.exec(text)?.[1]
  if (of !== fingerprint())
    throw new Error(`${path} is of an older chart: node test/cluster/chart.ts PATH/TO/helm makes it again`)
  return text
}

function render(helm: string): void {
  mkdirSync(dirname(definitionsPath), { recursive: true })
  writeFileSync(definitionsPath, definitions())
  const set = Object.entries(values).flatMap(([key, value]) => ['--set', `${key}=${value}`])
  const args = ['template', 'weft', helmDir, '--namespace', 'kube-system', '--kube-version', '1.36.0', ...set]
  const write = (path: string, ...more: readonly string[]): void =>
    writeFileSync(path, `# of helm/ ${fingerprint()}\n${execFileSync(helm, [...args, ...more], { encoding: 'utf8' })}`)
  write(goldenPath)
  write(monitorPath, '--set', 'metrics.podMonitor=true', '--show-only', 'templates/agent/pod-monitor.yaml')
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const [, , helm] = process.argv
  if (helm === undefined) throw new Error('say where helm is: node test/cluster/chart.ts PATH/TO/helm')
  render(helm)
}
