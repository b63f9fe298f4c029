// The distribution's kubectl (1.20), whatever else is called kubectl on this machine: tests should mean the same everywhere.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync } from 'node:fs'
import { asRoot, must } from './setup.js'

const cacheDir = '/var/cache/weft/kubernetes-client'
const unpacked = `${cacheDir}/usr/bin/kubectl`

/** Path of the program; fetched and unpacked beside the system's own where the package cannot be installed. */
export function distributionKubectl() {
  if (existsSync(unpacked)) return unpacked
  const owner = spawnSync('dpkg-query', ['-S', '/usr/bin/kubectl'], { encoding: 'utf8' }).stdout ?? ''
  if (owner.startsWith('kubernetes-client:')) return '/usr/bin/kubectl'
  mkdirSync(cacheDir, { recursive: true })
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
  if (spawnSync('apt-cache', ['show', 'kubernetes-client']).status !== 0)
    must('apt-get update', ...asRoot('apt-get', ['update', '-qq']), { env })
  must(
    'fetch kubectl',
    ...asRoot('apt-get', ['download', '-qq', '-o', 'APT::Sandbox::User=root', 'kubernetes-client']),
    { cwd: cacheDir, env },
  )
  const [deb] = readdirSync(cacheDir).filter((name) => name.endsWith('.deb'))
  must('unpack kubectl', 'dpkg', ['-x', `${cacheDir}/${deb}`, cacheDir])
  return unpacked
}
