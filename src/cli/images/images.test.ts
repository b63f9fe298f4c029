import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { lstatSync, mkdtempSync, readFileSync, readlinkSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { busyboxImage, demoImages, echoImage, type Programs, pauseImage } from './demo.ts'
import { type ImageSpec, ociArchive } from './oci.ts'
import { type TarEntry, writeTar } from './tar.ts'

const file = (path: string, text: string, mode = 0o644): TarEntry => ({
  path,
  type: 'file',
  mode,
  data: Buffer.from(text),
})
const sha256 = (data: Uint8Array): string => createHash('sha256').update(data).digest('hex')

/** Unpacks with the system's tar and hands the directory over. */
function unpacked<T>(archive: Uint8Array, look: (dir: string) => T): T {
  const dir = mkdtempSync(join(tmpdir(), 'weft-images-'))
  try {
    execFileSync('tar', ['-x', '-p', '-f', '-', '-C', dir], { input: archive, stdio: ['pipe', 'pipe', 'pipe'] })
    return look(dir)
  } finally {
    rmSync(dir, { recursive: true })
  }
}

const entries: readonly TarEntry[] = [
  { path: 'bin/', type: 'directory', mode: 0o755 },
  file('bin/program', 'x'.repeat(512), 0o755),
  file('bin/one-more-than-a-block', 'y'.repeat(513)),
  file('empty', ''),
  file(`${'long/'.repeat(19)}name`, 'a path of 99 bytes'),
  { path: 'bin/sh', type: 'symlink', target: 'program' },
]

test('tar: the system’s tar lists and unpacks what was written', (t) => {
  const archive = writeTar(entries)
  t.is(archive.length % 512, 0)
  const listed = execFileSync('tar', ['-t', '-v', '--numeric-owner', '--utc', '-f', '-'], {
    input: archive,
    encoding: 'utf8',
    env: { ...process.env, LC_ALL: 'C' },
  })
  t.is(
    listed.replaceAll(/ +/g, ' '),
    `drwxr-xr-x 0/0 0 1970-01-01 00:00 bin/
-rwxr-xr-x 0/0 512 1970-01-01 00:00 bin/program
-rw-r--r-- 0/0 513 1970-01-01 00:00 bin/one-more-than-a-block
-rw-r--r-- 0/0 0 1970-01-01 00:00 empty
-rw-r--r-- 0/0 18 1970-01-01 00:00 ${'long/'.repeat(19)}name
lrwxrwxrwx 0/0 0 1970-01-01 00:00 bin/sh -> program
`,
  )
  unpacked(archive, (dir) => {
    t.is(readFileSync(join(dir, 'bin/one-more-than-a-block'), 'utf8'), 'y'.repeat(513))
    t.is(statSync(join(dir, 'bin/program')).mode & 0o7777, 0o755)
    t.is(readFileSync(join(dir, 'empty'), 'utf8'), '')
    t.true(lstatSync(join(dir, 'bin/sh')).isSymbolicLink())
    t.is(readlinkSync(join(dir, 'bin/sh')), 'program')
  })
})

test('tar: equal input gives equal bytes, another order or mode gives others', (t) => {
  const digest = (list: readonly TarEntry[]) => sha256(writeTar(list))
  t.is(digest(entries), digest(structuredClone(entries)))
  t.not(digest(entries), digest(entries.toReversed()))
  t.not(digest([file('a', 'x', 0o644)]), digest([file('a', 'x', 0o755)]))
  t.is(writeTar([]).length, 1024, 'an empty archive is its two closing blocks')
})

test('tar: a path that the header cannot hold is refused, not cut', (t) => {
  t.notThrows(() => writeTar([file('a'.repeat(100), '')]))
  t.throws(() => writeTar([file('a'.repeat(101), '')]), { instanceOf: RangeError, message: /longer than 100 bytes/ })
  t.throws(() => writeTar([file('ä'.repeat(51), '')]), { instanceOf: RangeError })
  t.throws(() => writeTar([{ path: 'l', type: 'symlink', target: 'a'.repeat(101) }]), { instanceOf: RangeError })
})

const image: ImageSpec = {
  reference: 'weft.local/one:1',
  files: [file('hello', 'hello', 0o755)],
  entrypoint: ['/hello'],
  command: ['--loud'],
}

interface Descriptor {
  readonly mediaType: string
  readonly digest: string
  readonly size: number
  readonly annotations?: Readonly<Record<string, string>>
}

test('OCI archive: every descriptor’s digest and size is its blob’s, from the index down to the layer', (t) => {
  unpacked(ociArchive([image]), (dir) => {
    const blob = ({ digest, size }: Descriptor): Uint8Array => {
      const data = readFileSync(join(dir, 'blobs', digest.replace(':', '/')))
      t.is(`sha256:${sha256(data)}`, digest)
      t.is(data.length, size)
      return data
    }
    const json = <T>(data: Uint8Array): T => JSON.parse(Buffer.from(data).toString()) as T
    t.deepEqual(json(readFileSync(join(dir, 'oci-layout'))), { imageLayoutVersion: '1.0.0' })
    const index = json<{ manifests: Descriptor[] }>(readFileSync(join(dir, 'index.json')))
    t.is(index.manifests.length, 1)
    const [descriptor] = index.manifests
    if (descriptor === undefined) return t.fail()
    t.is(descriptor.annotations?.['io.containerd.image.name'], 'weft.local/one:1')
    const manifest = json<{ config: Descriptor; layers: Descriptor[] }>(blob(descriptor))
    const config = json<{ os: string; config: unknown; rootfs: { diff_ids: string[] } }>(blob(manifest.config))
    t.deepEqual(config.config, {
      Entrypoint: ['/hello'],
      Cmd: ['--loud'],
      Env: ['PATH=/bin:/usr/bin:/sbin:/usr/sbin'],
    })
    t.is(config.os, 'linux')
    t.is(manifest.layers.length, 1)
    const [layer] = manifest.layers
    if (layer === undefined) return t.fail()
    t.deepEqual(config.rootfs.diff_ids, [layer.digest], 'the layer is not compressed')
    unpacked(blob(layer), (root) => t.is(readFileSync(join(root, 'hello'), 'utf8'), 'hello'))
  })
})

test('OCI archive: equal images give equal bytes; a blob that two images share is there once', (t) => {
  const two = [image, { ...image, reference: 'weft.local/two:1' }]
  t.is(sha256(ociArchive(two)), sha256(ociArchive(structuredClone(two))))
  const names = execFileSync('tar', ['-t', '-f', '-'], { input: ociArchive(two), encoding: 'utf8' })
    .trim()
    .split('\n')
  t.is(names.filter((name) => /sha256\/[0-9a-f]{64}$/.test(name)).length, 3, 'layer, configuration and manifest')
  t.is(new Set(names).size, names.length)
})

test('the demo’s images: pause alone; echo with what its root needs; busybox with its applets and get’s libraries', (t) => {
  const programs: Programs = {
    pause: Buffer.from('pause'),
    echo: Buffer.from('echo'),
    busybox: Buffer.from('busybox'),
    get: Buffer.from('get'),
    libraries: [{ path: 'lib64/ld.so', data: Buffer.from('ld') }],
  }
  const images = demoImages(programs, ['busybox', 'ls', 'sh'])
  t.deepEqual(
    images.map(({ reference, entrypoint, command }) => [reference, entrypoint, command]),
    [
      [pauseImage, ['/pause'], undefined],
      [echoImage, ['/echo'], ['--http', '8080', '--tcp', '9000', '--udp', '9000']],
      [busyboxImage, undefined, ['sh']],
    ],
  )
  const base = ['etc/', 'etc/passwd', 'etc/group', 'tmp/']
  t.deepEqual(
    images.map(({ files }) => files.map((f) => f.path)),
    [
      ['pause'],
      [...base, 'echo'],
      [...base, 'root/', 'bin/', 'bin/busybox', 'bin/get', 'lib64/ld.so', 'bin/ls', 'bin/sh'],
    ],
    'busybox is no link to itself',
  )
})
