import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, globSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { addressOf, layoutCluster } from '#cli/cluster/layout.ts'
import { nodeCountOf } from '#cli/cluster/observe.ts'
import { ociArchive } from '#cli/images/oci.ts'

/**
 * Runs the Gateway API's public conformance suite against a `weft up` cluster. Nothing of the suite is in this repository:
 *
 *     node scripts/conformance.ts build  --gateway-api DIR --coredns DIR --out DIR
 *     node scripts/conformance.ts images --name CLUSTER --out DIR
 *     node scripts/conformance.ts run    --name CLUSTER --out DIR [-- FLAGS OF THE SUITE]
 *
 * `build` needs Go, a checkout of gateway-api v1.6.1 with its module `conformance` in place and one of CoreDNS v1.12.2,
 * both outside the repository. `images` gives each node the images that the suite's manifests name. `run` starts the suite
 * where a client outside the cluster lives, in the fabric's network namespace.
 */
const profiles = 'GATEWAY-HTTP,GATEWAY-GRPC'

/** Programs that the suite's manifests name images of, by the last part of the image's name. */
const programs = ['echo-basic', 'coredns'] as const
const imagesFile = 'images.json'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    name: { type: 'string', default: 'weft' },
    out: { type: 'string' },
    'gateway-api': { type: 'string' },
    coredns: { type: 'string' },
  },
})
const [command, ...rest] = positionals
const out = resolve(required('out'))

switch (command) {
  case 'build':
    build(resolve(required('gateway-api')), resolve(required('coredns')))
    break
  case 'images':
    importImages()
    break
  case 'run':
    process.exitCode = runSuite(rest)
    break
  default:
    throw new Error(`Cannot do ${JSON.stringify(command ?? '')}: say build, images or run`)
}

function required(option: 'out' | 'gateway-api' | 'coredns'): string {
  const value = values[option]
  if (value === undefined) throw new Error(`--${option} DIR is missing`)
  return value
}

function build(gatewayApi: string, coredns: string): void {
  const go = (cwd: string, args: readonly string[], env: Record<string, string>): void =>
    void execFileSync('go', args, { cwd, stdio: 'inherit', env: { ...process.env, GOWORK: 'off', ...env } })
  const conformance = join(gatewayApi, 'conformance')
  go(conformance, ['test', '-c', '-o', join(out, 'conformance.test'), '.'], {})
  go(conformance, ['build', '-trimpath', '-o', join(out, 'echo-basic'), './echo-basic'], { CGO_ENABLED: '0' })
  go(coredns, ['build', '-trimpath', '-o', join(out, 'coredns'), '.'], { CGO_ENABLED: '0' })
  writeFileSync(join(out, imagesFile), `${JSON.stringify(imagesNamed(conformance), null, 2)}\n`)
}

interface Image {
  readonly reference: string
  readonly program: string
}

/** Every image that the manifests name and that we have a program for, once. */
function imagesNamed(conformance: string): Image[] {
  const found = new Map<string, Image>()
  for (const path of globSync('{base,tests}/**/*.yaml', { cwd: conformance })) {
    for (const [, reference = ''] of readFileSync(join(conformance, path), 'utf8').matchAll(/^\s*image:\s*(\S+)$/gm)) {
      const program = programs.find((name) => reference.includes(`/${name}:`))
      if (program !== undefined) found.set(reference, { reference, program })
    }
  }
  return [...found.values()]
}

/** One static program each, under every name that the manifests have for it. */
function importImages(): void {
  const images = JSON.parse(readFileSync(join(out, imagesFile), 'utf8')) as Image[]
  const archive = ociArchive(
    images.map(({ reference, program }) => ({
      reference,
      files: [
        { path: 'etc/', type: 'directory', mode: 0o755 },
        { path: program, type: 'file', mode: 0o755, data: readFileSync(join(out, program)) },
      ],
      entrypoint: [`/${program}`],
    })),
  )
  const dir = mkdtempSync(join(tmpdir(), 'weft-conformance-'))
  try {
    const path = join(dir, 'images.tar')
    writeFileSync(path, archive)
    for (const node of layoutCluster(values.name, nodeCountOf(values.name)).nodes) {
      execFileSync('ctr', ['--address', node.criSocket, '--namespace', 'k8s.io', 'images', 'import', path], {
        stdio: ['ignore', 'ignore', 'inherit'],
      })
      process.stdout.write(`${node.name} has ${images.map(({ reference }) => reference).join(', ')}\n`)
    }
  } finally {
    rmSync(dir, { recursive: true })
  }
}

/** The suite's own exit status. It finds the API server where pods do: at the fabric's address. */
function runSuite(flags: readonly string[]): number {
  const suite = join(out, 'conformance.test')
  if (!existsSync(suite)) throw new Error(`${suite} is missing: build it first`)
  const layout = layoutCluster(values.name, nodeCountOf(values.name))
  const dir = mkdtempSync(join(tmpdir(), 'weft-conformance-'))
  try {
    const kubeconfig = join(dir, 'kubeconfig')
    const inFabric = `https://${addressOf(layout.fabric.addresses[0] ?? '')}:${layout.server.port}`
    const admin = readFileSync(layout.server.adminKubeconfig, 'utf8')
    writeFileSync(kubeconfig, admin.replaceAll(/https:\/\/127\.0\.0\.1:\d+/g, inFabric), { mode: 0o600 })
    const args = [
      `--net=/run/netns/${layout.fabric.netns}`,
      suite,
      '-test.v',
      // Beside it the program has tests of its own flags, which fail when it is given any.
      '-test.run=^TestConformance$',
      '-test.timeout=60m',
      '-gateway-class=weft',
      `-conformance-profiles=${profiles}`,
      '-usable-address=172.30.0.249',
      '-unusable-address=192.0.2.1',
      '-organization=weft',
      '-project=weft',
      '-url=https://weft.dev',
      '-version=dev',
      '-contact=weft',
      `-report-output=${join(out, 'report.yaml')}`,
      ...flags,
    ]
    const { status, error } = spawnSync('nsenter', args, {
      stdio: 'inherit',
      env: { ...process.env, KUBECONFIG: kubeconfig },
    })
    if (error !== undefined) throw error
    return status ?? 1
  } finally {
    rmSync(dir, { recursive: true })
  }
}
