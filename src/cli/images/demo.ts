import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { librariesOf } from './libraries.ts'
import { type ImageSpec, ociArchive } from './oci.ts'
import type { TarEntry } from './tar.ts'

/** The images that every `weft up` cluster has, so that nothing needs a registry. */
export const pauseImage = 'weft.local/pause:1'
export const busyboxImage = 'weft.local/busybox:1'
export const echoImage = 'weft.local/echo:1'

const busyboxPath = '/bin/busybox'

/** A file that a container's root needs, whatever runs in it. */
const base: readonly TarEntry[] = [
  { path: 'etc/', type: 'directory', mode: 0o755 },
  {
    path: 'etc/passwd',
    type: 'file',
    mode: 0o644,
    data: Buffer.from('root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n'),
  },
  { path: 'etc/group', type: 'file', mode: 0o644, data: Buffer.from('root:x:0:\nnogroup:x:65534:\n') },
  { path: 'tmp/', type: 'directory', mode: 0o1777 },
]

export interface Programs {
  readonly pause: Uint8Array
  readonly echo: Uint8Array
  readonly busybox: Uint8Array
  readonly get: Uint8Array
  /** What `get` is linked to: path without the leading slash, and bytes. */
  readonly libraries: readonly { readonly path: string; readonly data: Uint8Array }[]
}

/** Pure: the three images from the bytes of their programs. */
export function demoImages(programs: Programs, applets: readonly string[]): ImageSpec[] {
  const program = (path: string, data: Uint8Array): TarEntry => ({ path, type: 'file', mode: 0o755, data })
  return [
    { reference: pauseImage, files: [program('pause', programs.pause)], entrypoint: ['/pause'] },
    {
      reference: echoImage,
      files: [...base, program('echo', programs.echo)],
      entrypoint: ['/echo'],
      command: ['--http', '8080', '--tcp', '9000', '--udp', '9000'],
    },
    {
      reference: busyboxImage,
      files: [
        ...base,
        { path: 'root/', type: 'directory', mode: 0o700 },
        { path: 'bin/', type: 'directory', mode: 0o755 },
        program('bin/busybox', programs.busybox),
        program('bin/get', programs.get),
        ...programs.libraries.map(({ path, data }) => program(path, data)),
        ...applets
          .filter((a) => a !== 'busybox')
          .map((a): TarEntry => ({ path: `bin/${a}`, type: 'symlink', target: 'busybox' })),
      ],
      command: ['sh'],
    },
  ]
}

/**
 * Builds the archive of the demo's images into `cacheDir` (once per content) and returns its path.
 * Needs make, gcc and the distribution's static busybox; says which one is missing.
 */
export function buildDemoArchive(root: string, cacheDir: string): string {
  const out = join(cacheDir, 'images')
  mkdirSync(out, { recursive: true })
  if (!existsSync(busyboxPath))
    throw new Error(`Cannot build the demo's images: ${busyboxPath} is missing; install the package busybox-static`)
  execFileSync('make', ['-s', '-C', join(root, 'images'), `OUT=${out}`], { stdio: ['ignore', 'ignore', 'inherit'] })
  const applets = execFileSync(busyboxPath, ['--list'], { encoding: 'utf8' }).trim().split('\n')
  const programs = {
    pause: readFileSync(join(out, 'pause')),
    echo: readFileSync(join(out, 'echo')),
    busybox: readFileSync(busyboxPath),
    get: readFileSync(join(out, 'get')),
    libraries: librariesOf(join(out, 'get')),
  }
  const archive = ociArchive(demoImages(programs, applets))
  const path = join(out, `demo-${createHash('sha256').update(archive).digest('hex').slice(0, 16)}.tar`)
  if (!existsSync(path)) {
    writeFileSync(`${path}.new`, archive)
    renameSync(`${path}.new`, path)
  }
  return path
}
