// The distribution's kubectl (1.20), whatever else is called kubectl on this machine: tests should mean the same everywhere.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { asRoot, must } from './setup.js'

const cacheDir = '/var/cache/weft/kubernetes-client'
const inPackage = 'usr/bin/kubectl'

/** Path of the program; fetched and unpacked beside the system's own where the package cannot be installed. */
export function distributionKubectl() {
  const unpacked = `${cacheDir}/${inPackage}`
  if (existsSync(unpacked)) return unpacked
  const owner = spawnSync('dpkg-query', ['-S', '/usr/bin/kubectl'], { encoding: 'utf8' }).stdout ?? ''
  if (owner.startsWith('kubernetes-client:')) return '/usr/bin/kubectl'
  // Named last, so that one which was cut off is not taken for whole.
  const half = `${cacheDir}.${process.pid}`
  mkdirSync(half, { recursive: true })
  process.once('exit', () => rmSync(half, { recursive: true, force: true }))
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
  const options = { cwd: half, env }
  const download = ['download', '-qq', '-o', 'APT::Sandbox::User=root', 'kubernetes-client']
  if (spawnSync('apt-get', download, { ...options, stdio: 'ignore' }).status !== 0) {
    must('apt-get update', ...asRoot('apt-get update', 'apt-get', ['update', '-qq']), { env })
    must('fetch kubectl', 'apt-get', download, options)
  }
  const [deb] = readdirSync(half).filter((name) => name.endsWith('.deb'))
  must('unpack kubectl', 'dpkg', ['-x', `${half}/${deb}`, half])
  rmSync(cacheDir, { recursive: true, force: true })
  renameSync(half, cacheDir)
  return unpacked
}
