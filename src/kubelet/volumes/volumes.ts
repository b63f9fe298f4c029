import {
  chmodSync,
  chownSync,
  existsSync,
  lchownSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  rmSync,
  statSync,
} from 'node:fs'
import { join } from 'node:path'
import type { Container, Pod, Volume, VolumeMount } from '#api/gen/core-v1.ts'
import type { Clock } from '#base/clock.ts'
import { mountsBelow, unmount } from '#kernel/mount.ts'
import type { NodeFacts } from '../containers/downward.ts'
import { ConfigError } from '../containers/env.ts'
import { expand } from '../containers/expand.ts'
import type { Objects } from '../objects/objects.ts'
import type { Mount } from '../runtime/runtime.ts'
import type { PreparedVolume, TokenSource, VolumeContext, VolumePlugin } from './plugin.ts'
import { volumePlugins } from './plugins.ts'
import { bindSubPath } from './sub-path.ts'

export interface VolumesOptions {
  /** `<data>/pods`: a directory per pod. */
  readonly podsDir: string
  readonly node: () => NodeFacts
  readonly objects: Objects
  readonly tokens: TokenSource
  readonly clock: Clock
  readonly plugins?: readonly VolumePlugin[]
}

/** A volume that cannot be set up; the message is for the pod's FailedMount event. */
export class VolumeError extends Error {
  override readonly name = 'VolumeError'
}

/**
 * The volumes of this node's pods. What is mounted is known from the directory tree and the kernel's mount table, so
 * that an agent that has just come up takes over what it finds.
 */
export class Volumes {
  readonly #options: VolumesOptions
  readonly #plugins: readonly VolumePlugin[]
  readonly #prepared = new Map<string, Map<string, PreparedVolume>>()

  constructor(options: VolumesOptions) {
    this.#options = options
    this.#plugins = options.plugins ?? volumePlugins
  }

  podDir(uid: string): string {
    return join(this.#options.podsDir, uid)
  }

  /** Sets every volume up; volumes that are there are brought up to date. Throws `VolumeError`. */
  async mount(pod: Pod, signal: AbortSignal): Promise<void> {
    const prepared = this.#prepared.get(pod.metadata.uid) ?? new Map<string, PreparedVolume>()
    const volumes = pod.spec.volumes ?? []
    mkdirSync(this.podDir(pod.metadata.uid), { recursive: true, mode: 0o750 })
    const results = await Promise.allSettled(
      volumes.map(async (volume) => {
        prepared.set(volume.name, await this.#setUp(volume, pod, prepared.has(volume.name), signal))
      }),
    )
    this.#prepared.set(pod.metadata.uid, prepared)
    for (const [i, result] of results.entries()) {
      if (result.status === 'fulfilled') continue
      const why = result.reason instanceof Error ? result.reason.message : String(result.reason)
      throw new VolumeError(`MountVolume.SetUp failed for volume "${volumes[i]?.name}" : ${why}`, {
        cause: result.reason,
      })
    }
  }

  async #setUp(volume: Volume, pod: Pod, again: boolean, signal: AbortSignal): Promise<PreparedVolume> {
    const plugin = this.#plugins.find((p) => p.supports(volume))
    if (plugin === undefined) throw new Error('this node has no plugin for the volume')
    const dir = join(this.podDir(pod.metadata.uid), 'volumes', plugin.name, volume.name)
    const { node, objects, tokens, clock } = this.#options
    const context: VolumeContext = { pod, node: node(), objects, tokens, now: clock.now(), signal }
    const prepared = await plugin.setUp(volume, dir, context)
    const group = pod.spec.securityContext?.fsGroup
    if (prepared.owned && group !== undefined && !again)
      giveToGroup(prepared.path, group, pod.spec.securityContext?.fsGroupChangePolicy ?? 'Always')
    return prepared
  }

  /** When content of the pod's volumes must be renewed; ms. */
  refreshAt(uid: string): number | undefined {
    const times = [...(this.#prepared.get(uid)?.values() ?? [])].flatMap((p) =>
      p.refreshAt === undefined ? [] : [p.refreshAt],
    )
    return times.length === 0 ? undefined : Math.min(...times)
  }

  /** Whether any volume follows API objects. */
  isLive(uid: string): boolean {
    return [...(this.#prepared.get(uid)?.values() ?? [])].some((p) => p.live)
  }

  /** The container's volume mounts in CRI's terms. Throws `ConfigError` or `VolumeError` where one cannot be made. */
  mountsOf(pod: Pod, container: Container, env: ReadonlyMap<string, string>): Mount[] {
    const prepared = this.#prepared.get(pod.metadata.uid)
    return (container.volumeMounts ?? []).map((mount, i): Mount => {
      const volume = prepared?.get(mount.name)
      if (volume === undefined)
        throw new VolumeError(`cannot find volume "${mount.name}" to mount into container "${container.name}"`)
      const subPath = subPathOf(mount, env)
      const target = join(this.podDir(pod.metadata.uid), 'volume-subpaths', mount.name, container.name, String(i))
      return {
        containerPath: mount.mountPath.startsWith('/') ? mount.mountPath : `/${mount.mountPath}`,
        hostPath: subPath === '' ? volume.path : bind(volume.path, subPath, target, mount.name),
        // Content of API objects is the node's: writing to it would be lost, and seen by others.
        readonly: mount.readOnly === true || volume.live,
        propagation:
          mount.mountPropagation === 'Bidirectional'
            ? 'PROPAGATION_BIDIRECTIONAL'
            : mount.mountPropagation === 'HostToContainer'
              ? 'PROPAGATION_HOST_TO_CONTAINER'
              : 'PROPAGATION_PRIVATE',
      }
    })
  }

  /** Whether anything of the pod is on this node: an agent that has just come up asks. */
  exists(uid: string): boolean {
    return existsSync(this.podDir(uid))
  }

  /** Pods that have a directory here. */
  known(): string[] {
    return existsSync(this.#options.podsDir) ? readdirSync(this.#options.podsDir) : []
  }

  /** Takes every mount of the pod away; the content of disk volumes stays until `remove`. Idempotent. */
  unmount(uid: string): void {
    const dir = this.podDir(uid)
    for (const target of mountsBelow(dir)) unmount(target)
    this.#prepared.delete(uid)
  }

  /** Removes all that the pod had on this node. Refuses while something is mounted below: it could be anybody's. */
  remove(uid: string): void {
    this.unmount(uid)
    const dir = this.podDir(uid)
    const left = mountsBelow(dir)
    if (left.length > 0) throw new Error(`Cannot remove ${dir}: ${left.join(', ')} is still mounted`)
    rmSync(dir, { recursive: true, force: true })
  }
}

function bind(path: string, subPath: string, target: string, name: string): string {
  try {
    return bindSubPath(path, subPath, target)
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    throw new ConfigError(`failed to prepare subPath for volumeMount "${name}": ${why}`, { cause: error })
  }
}

function subPathOf({ subPath = '', subPathExpr = '' }: VolumeMount, env: ReadonlyMap<string, string>): string {
  if (subPathExpr === '') return subPath
  const text = expand(subPathExpr, (name) => env.get(name))
  if (text.includes('$(')) throw new ConfigError(`missing value for "${subPathExpr}"`)
  if (text.startsWith('/') || text.split('/').includes('..') || text.includes('`'))
    throw new ConfigError(`subPath "${text}" must be a relative path without ".."`)
  return text
}

/** Recursive unless the top already is as it should be and the policy is content with that. */
function giveToGroup(path: string, group: number, policy: string): void {
  const top = statSync(path)
  if (policy === 'OnRootMismatch' && top.gid === group && (top.mode & 0o2070) === 0o2070) return
  const give = (at: string) => {
    const found = lstatSync(at)
    if (found.isSymbolicLink()) return lchownSync(at, found.uid, group)
    chownSync(at, found.uid, group)
    chmodSync(at, (found.mode & 0o7777) | (found.isDirectory() ? 0o2070 : 0o060))
    if (found.isDirectory()) for (const name of readdirSync(at)) give(join(at, name))
  }
  give(path)
}
