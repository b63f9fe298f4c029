/**
 * `npm run test:kernels [-- --nodes N --seconds S]`: Weft on a machine with pure cgroup v2, which this one may not be.
 * Boots Debian's backported cloud kernel in qemu (software emulation, no network device) with a root of the packages that
 * Weft needs and a clean clone of this checkout, runs checks.sh there, and ends 0 only if every check passed.
 */
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  chmodSync,
  copyFileSync,
  cpSync,
  createWriteStream,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { basename, join } from 'node:path'
import { parseArgs } from 'node:util'
import { fail, must, root } from '../../scripts/setup.js'

const cacheDir = '/var/cache/weft/kernels'
// qemu 7.2 emulates cmpxchg16b wrongly with two processors; without it the kernel takes another way. Protection keys are
// off on a suspicion: V8 guards its code with them, and once one of its own checks failed in the machine.
const cpu = 'max,-cx16,-pku'
const here = import.meta.dirname
const { values } = parseArgs({
  options: { nodes: { type: 'string', default: '1' }, seconds: { type: 'string', default: '1200' } },
})

if (process.getuid?.() !== 0) fail('the machine of test/kernels is built with debootstrap: run it as root')
mkdirSync(cacheDir, { recursive: true })
const start = performance.now()
installTools()
const kernel = fetchKernel()
const rootImage = buildRoot(kernel)
const weftImage = buildCheckout()
say(`images are ready; booting ${basename(kernel)} with ${values.nodes} node(s)`)
process.exitCode = await boot()

function say(text: string): void {
  process.stdout.write(`[${((performance.now() - start) / 1000).toFixed(0)} s] ${text}\n`)
}

function installTools(): void {
  const missing = [
    ['/usr/bin/qemu-system-x86_64', 'qemu-system-x86'],
    ['/usr/sbin/debootstrap', 'debootstrap'],
    ['/usr/sbin/mke2fs', 'e2fsprogs'],
  ].flatMap(([file = '', name = '']) => (existsSync(file) ? [] : [name]))
  if (missing.length === 0) return
  say(`installing Debian packages: ${missing.join(' ')}`)
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
  must('apt-get update', 'apt-get', ['update', '-qq'], { env })
  must('apt-get install', 'apt-get', ['install', '-y', '-qq', '--no-install-recommends', ...missing], { env })
}

/** The release of this Debian and the mirror that apt takes it from. */
function mirror(): { site: string; release: string } {
  const release = /^VERSION_CODENAME=(\w+)/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1]
  if (release === undefined) fail('/etc/os-release has no VERSION_CODENAME: test/kernels needs a Debian release')
  const sites = must('apt mirror', 'apt-get', ['indextargets', '--format', '$(SITE)', `Codename: ${release}`])
  const site = sites.split('\n')[0]
  if (site === undefined || site === '') fail(`apt knows no mirror of ${release}: run apt-get update first`)
  return { site: site ?? '', release: release ?? '' }
}

/**
 * The newest cloud kernel of backports, unpacked and not installed: a directory of `boot` and `lib/modules`. apt's own
 * configuration is not touched. What was fetched before is kept.
 */
function fetchKernel(): string {
  const have = readdirSync(cacheDir).filter((name) => name.startsWith('linux-image-') && !name.endsWith('.new'))
  if (have[0] !== undefined) return join(cacheDir, have[0])
  const { site, release } = mirror()
  const apt = join(cacheDir, 'apt')
  mkdirSync(join(apt, 'lists/partial'), { recursive: true })
  mkdirSync(join(apt, 'archives/partial'), { recursive: true })
  const [keyring] = ['/usr/share/keyrings/debian-archive-keyring.gpg'].filter((path) => existsSync(path))
  const signed = keyring === undefined ? '' : `[signed-by=${keyring}] `
  writeFileSync(join(apt, 'sources.list'), `deb ${signed}${site} ${release}-backports main\n`)
  const options = {
    'Dir::State::lists': join(apt, 'lists'),
    'Dir::Cache': apt,
    'Dir::Etc::sourcelist': join(apt, 'sources.list'),
    'Dir::Etc::sourceparts': '/dev/null',
    'APT::Sandbox::User': 'root',
  }
  const flags = Object.entries(options).flatMap(([name, value]) => ['-o', `${name}=${value}`])
  must('apt-get update', 'apt-get', [...flags, 'update', '-qq'])
  const names = must('apt-cache pkgnames', 'apt-cache', [...flags, 'pkgnames', 'linux-image-'])
  const [name] = names
    .split('\n')
    .filter((n) => /^linux-image-\d.*\d-cloud-amd64$/.test(n))
    .sort((a, b) => b.localeCompare(a, 'en', { numeric: true }))
  if (name === undefined) fail(`${release}-backports has no cloud kernel`)
  say(`fetching ${name}`)
  const dir = join(cacheDir, String(name))
  must('fetch the kernel', 'apt-get', [...flags, 'download', '-qq', String(name)], { cwd: apt })
  const deb = readdirSync(apt).find((file) => file.startsWith(`${name}_`))
  must('unpack the kernel', 'dpkg', ['-x', join(apt, String(deb)), `${dir}.new`])
  renameSync(`${dir}.new`, dir)
  rmSync(apt, { recursive: true, force: true })
  return dir
}

/** An ext4 image of a minimal Debian with what scripts/apt-packages.txt names, kubectl, and the kernel's modules. */
function buildRoot(kernelDir: string): string {
  const wanted = readFileSync(join(root, 'scripts/apt-packages.txt'), 'utf8')
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => line.split(/\s+/)[0] ?? '')
  const packages = [...wanted, 'kubernetes-client', 'kmod', 'procps']
  const init = readFileSync(join(here, 'init.sh'))
  const key = createHash('sha256')
    .update([...packages, basename(kernelDir)].join())
    .update(init)
    .digest('hex')
  const image = join(cacheDir, `root-${key.slice(0, 16)}.ext4`)
  if (existsSync(image)) return image
  say('building the root image: debootstrap and the packages, about 100 s')
  const { site, release } = mirror()
  const dir = join(cacheDir, 'root.new')
  rmSync(dir, { recursive: true, force: true })
  must('debootstrap', 'nice', ['debootstrap', '--variant=minbase', `--include=${packages.join()}`, release, dir, site])
  cpSync(join(kernelDir, 'lib/modules'), join(dir, 'usr/lib/modules'), { recursive: true })
  for (const version of readdirSync(join(kernelDir, 'lib/modules'))) must('depmod', 'chroot', [dir, 'depmod', version])
  mkdirSync(join(dir, 'weft'))
  copyFileSync(join(here, 'init.sh'), join(dir, 'sbin/weft-init'))
  chmodSync(join(dir, 'sbin/weft-init'), 0o755)
  rmSync(join(dir, 'var/cache/apt/archives'), { recursive: true, force: true })
  makeImage(image, dir, '4G')
  rmSync(dir, { recursive: true, force: true })
  return image
}

/** An ext4 image of a clean clone with its npm packages, native/build and the scripts of this folder as they are now. */
function buildCheckout(): string {
  const dir = join(cacheDir, 'weft.new')
  rmSync(dir, { recursive: true, force: true })
  must('git clone', 'git', ['clone', '-q', '--no-hardlinks', root, dir])
  const head = must('git log', 'git', ['-C', dir, 'log', '-1', '--format=%h %s']).trim()
  say(`the checkout is ${head}`)
  must('copy node_modules', 'cp', ['-a', join(root, 'node_modules'), join(dir, 'node_modules')])
  must('copy native/build', 'cp', ['-a', join(root, 'native/build'), join(dir, 'native/build')])
  cpSync(here, join(dir, 'test/kernels'), { recursive: true })
  // clang takes minutes on the emulated processor, longer than the agent lets it.
  const script = `import { compile } from './src/datapath/compile.ts'; await compile({ cacheDir: 'cache/bpf' })`
  must('compile bpf/', process.execPath, ['--input-type=module', '-e', script], { cwd: dir })
  const image = join(cacheDir, 'weft.ext4')
  makeImage(image, dir, '1536M')
  rmSync(dir, { recursive: true, force: true })
  return image
}

function makeImage(image: string, dir: string, size: string): void {
  rmSync(image, { force: true })
  must('mke2fs', 'nice', ['mke2fs', '-q', '-t', 'ext4', '-O', '^has_journal', '-d', dir, `${image}.new`, size])
  renameSync(`${image}.new`, image)
}

/** Runs the machine to its power-off, its console to standard output and console.log. The images stay as they are. */
async function boot(): Promise<number> {
  const vmlinuz = readdirSync(join(kernel, 'boot')).find((file) => file.startsWith('vmlinuz-'))
  // One controller: of two, the kernel takes the faster first, and the disks change their names.
  const disk = (id: string, file: string, number: number): string[] => [
    ...['-drive', `file=${file},if=none,id=${id},format=raw,snapshot=on,cache=unsafe`],
    ...['-device', `nvme-ns,drive=${id},nsid=${number}`],
  ]
  const child = spawn(
    'nice',
    [
      ...['-n', '19', 'qemu-system-x86_64', '-accel', 'tcg,thread=multi', '-cpu', cpu, '-smp', '2', '-m', '4096'],
      ...['-nodefaults', '-no-user-config', '-nographic', '-no-reboot', '-nic', 'none', '-serial', 'stdio'],
      ...['-kernel', join(kernel, 'boot', String(vmlinuz))],
      '-append',
      `console=ttyS0 quiet panic=-1 root=/dev/nvme0n1 rw init=/sbin/weft-init weft.nodes=${values.nodes}`,
      ...['-device', 'nvme,serial=weft'],
      ...disk('root', rootImage, 1),
      ...disk('weft', weftImage, 2),
    ],
    { stdio: ['ignore', 'pipe', 'inherit'], env: { ...process.env, TMPDIR: cacheDir } },
  )
  const end = () => child.kill('SIGKILL')
  const timer = setTimeout(() => {
    say(`the machine did not end within ${values.seconds} s: see ${cacheDir}/console.log`)
    end()
  }, Number(values.seconds) * 1000)
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, end)
  const log = createWriteStream(join(cacheDir, 'console.log'))
  let text = ''
  child.stdout.on('data', (chunk: Buffer) => {
    text += chunk
    log.write(chunk)
    process.stdout.write(chunk)
  })
  await new Promise<void>((resolve, reject) => {
    child.on('error', reject)
    child.on('close', () => resolve())
  })
  clearTimeout(timer)
  log.end()
  const done = /^checks: (\d+) passed, (\d+) failed/m.exec(text)
  say(done === null ? 'the machine ended without its last line' : done[0])
  return done !== null && Number(done[1]) > 0 && Number(done[2]) === 0 ? 0 : 1
}
