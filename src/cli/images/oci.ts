import { createHash } from 'node:crypto'
import { type TarEntry, writeTar } from './tar.ts'

/** An image of one layer, described by what is in it. */
export interface ImageSpec {
  /** Full reference: `weft.local/busybox:1`. */
  readonly reference: string
  readonly files: readonly TarEntry[]
  readonly entrypoint?: readonly string[]
  readonly command?: readonly string[]
  readonly env?: readonly string[]
}

interface Descriptor {
  readonly mediaType: string
  readonly digest: string
  readonly size: number
}

/**
 * An OCI image layout (image-spec v1) of the images as one tar archive, as `ctr images import` reads it. Equal input
 * gives equal bytes.
 */
export function ociArchive(images: readonly ImageSpec[]): Uint8Array {
  const blobs = new Map<string, Uint8Array>()
  const blob = (mediaType: string, data: Uint8Array): Descriptor => {
    const digest = sha256(data)
    blobs.set(digest, data)
    return { mediaType, digest: `sha256:${digest}`, size: data.length }
  }
  const manifests = images.map((image) => {
    const layer = writeTar(image.files)
    const config = json({
      architecture: process.arch === 'arm64' ? 'arm64' : 'amd64',
      os: 'linux',
      config: {
        ...(image.entrypoint ? { Entrypoint: image.entrypoint } : {}),
        ...(image.command ? { Cmd: image.command } : {}),
        Env: image.env ?? ['PATH=/bin:/usr/bin:/sbin:/usr/sbin'],
      },
      rootfs: { type: 'layers', diff_ids: [`sha256:${sha256(layer)}`] },
    })
    const manifest = json({
      schemaVersion: 2,
      mediaType: 'application/vnd.oci.image.manifest.v1+json',
      config: blob('application/vnd.oci.image.config.v1+json', config),
      layers: [blob('application/vnd.oci.image.layer.v1.tar', layer)],
    })
    return {
      ...blob('application/vnd.oci.image.manifest.v1+json', manifest),
      annotations: {
        'io.containerd.image.name': image.reference,
        'org.opencontainers.image.ref.name': image.reference,
      },
    }
  })
  return writeTar([
    { path: 'blobs/', type: 'directory', mode: 0o755 },
    { path: 'blobs/sha256/', type: 'directory', mode: 0o755 },
    ...[...blobs].map(
      ([digest, data]): TarEntry => ({ path: `blobs/sha256/${digest}`, type: 'file', mode: 0o644, data }),
    ),
    {
      path: 'index.json',
      type: 'file',
      mode: 0o644,
      data: json({ schemaVersion: 2, mediaType: 'application/vnd.oci.image.index.v1+json', manifests }),
    },
    { path: 'oci-layout', type: 'file', mode: 0o644, data: json({ imageLayoutVersion: '1.0.0' }) },
  ])
}

const json = (value: unknown): Uint8Array => Buffer.from(JSON.stringify(value))
const sha256 = (data: Uint8Array): string => createHash('sha256').update(data).digest('hex')
