import { chmodSync, lstatSync, mkdirSync, statSync, writeFileSync } from 'node:fs'
import type { HostPathVolumeSource, Volume } from '#api/gen/core-v1.ts'
import { parseQuantity, quantityValue } from '#api/meta/quantity.ts'
import { mountsBelow, mountTmpfs } from '#kernel/mount.ts'
import { writeAtomically } from './atomic-writer.ts'
import { contentOf } from './payload.ts'
import type { VolumePlugin } from './plugin.ts'

/** Every kind of volume this node has. */
export const volumePlugins: readonly VolumePlugin[] = [
  contentPlugin('kubernetes.io~configmap', (v) => v.configMap !== undefined, 'disk'),
  contentPlugin('kubernetes.io~secret', (v) => v.secret !== undefined, 'memory'),
  contentPlugin('kubernetes.io~downward-api', (v) => v.downwardAPI !== undefined, 'disk'),
  contentPlugin('kubernetes.io~projected', (v) => v.projected !== undefined, 'memory'),
  {
    name: 'kubernetes.io~empty-dir',
    // A volume without a source is an emptyDir: the API server fills that in.
    supports: (volume) => volume.emptyDir !== undefined,
    async setUp({ emptyDir = {} }, dir) {
      const { medium = '', sizeLimit } = emptyDir
      if (medium !== '' && medium !== 'Memory') throw new Error(`emptyDir medium "${medium}" is not supported`)
      mkdirSync(dir, { recursive: true })
      if (medium === 'Memory' && !isMounted(dir)) {
        const sizeBytes = sizeLimit === undefined ? undefined : Number(quantityValue(parseQuantity(sizeLimit)))
        mountTmpfs(dir, { sizeBytes: sizeBytes === 0 ? undefined : sizeBytes, mode: 0o777 })
      }
      openToAll(dir)
      return { path: dir, live: false, owned: true }
    },
  },
  {
    name: 'kubernetes.io~host-path',
    supports: (volume) => volume.hostPath !== undefined,
    async setUp({ hostPath }) {
      if (hostPath !== undefined) checkHostPath(hostPath)
      return { path: hostPath?.path ?? '', live: false, owned: false }
    },
  },
]

/** A volume of API objects: secrets and tokens never touch a disk. */
function contentPlugin(name: string, supports: (volume: Volume) => boolean, where: 'disk' | 'memory'): VolumePlugin {
  return {
    name,
    supports,
    async setUp(volume, dir, context) {
      const { payload, refreshAt } = await contentOf(volume, context)
      mkdirSync(dir, { recursive: true })
      if (where === 'memory' && !isMounted(dir)) mountTmpfs(dir, { mode: 0o777 })
      openToAll(dir)
      writeAtomically(dir, payload, context.pod.spec.securityContext?.fsGroup)
      return { path: dir, live: true, owned: false, ...(refreshAt === undefined ? {} : { refreshAt }) }
    },
  }
}

/** Whoever the container runs as finds its way in; mkdir's own mode is cut by the umask. */
function openToAll(dir: string): void {
  // lstat: the directory is ours, and stays a directory.
  if ((lstatSync(dir).mode & 0o777) !== 0o777) chmodSync(dir, 0o777)
}

const isMounted = (dir: string): boolean => mountsBelow(dir).includes(dir)

const kinds: Readonly<Record<string, (s: ReturnType<typeof statSync> & object) => boolean>> = {
  Directory: (s) => s.isDirectory(),
  File: (s) => s.isFile(),
  Socket: (s) => s.isSocket(),
  CharDevice: (s) => s.isCharacterDevice(),
  BlockDevice: (s) => s.isBlockDevice(),
}

function checkHostPath({ path, type = '' }: HostPathVolumeSource): void {
  if (type === '') return
  const found = statSync(path, { throwIfNoEntry: false })
  if (type === 'DirectoryOrCreate' || type === 'FileOrCreate') {
    if (found === undefined) {
      if (type === 'DirectoryOrCreate') mkdirSync(path, { recursive: true, mode: 0o755 })
      else writeFileSync(path, '', { flag: 'wx', mode: 0o644 })
      return
    }
    const kind = type === 'DirectoryOrCreate' ? 'Directory' : 'File'
    if (kinds[kind]?.(found) !== true) throw new Error(`hostPath type check failed: ${path} is not a ${words[kind]}`)
    return
  }
  if (found === undefined || kinds[type]?.(found) !== true)
    throw new Error(`hostPath type check failed: ${path} is not a ${words[type] ?? type}`)
}

const words: Readonly<Record<string, string>> = {
  Directory: 'directory',
  File: 'file',
  Socket: 'socket file',
  CharDevice: 'character device',
  BlockDevice: 'block device',
}
