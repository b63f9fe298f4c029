import type { ConfigMap, DownwardAPIVolumeFile, KeyToPath, Secret, Volume, VolumeProjection } from '#api/gen/core-v1.ts'
import { fieldValue, resourceValue } from '../containers/downward.ts'
import type { Payload, PayloadFile } from './atomic-writer.ts'
import type { VolumeContext } from './plugin.ts'

const modeDefault = 0o644
const tokenSecondsDefault = 3600

/** The files of a volume that is made of API objects, and when they go stale. */
export interface Content {
  readonly payload: Payload
  readonly refreshAt?: number
}

/** Collects the content of a configMap, secret, downwardAPI or projected volume. Throws with upstream's words. */
export async function contentOf(volume: Volume, context: VolumeContext): Promise<Content> {
  const { configMap, secret, downwardAPI, projected } = volume
  if (configMap) return collect([{ configMap }], configMap.defaultMode, context)
  if (secret) {
    const { secretName, items, optional, defaultMode } = secret
    const projection = {
      ...(secretName === undefined ? {} : { name: secretName }),
      ...(items === undefined ? {} : { items }),
      ...(optional === undefined ? {} : { optional }),
    }
    return collect([{ secret: projection as NonNullable<VolumeProjection['secret']> }], defaultMode, context)
  }
  if (downwardAPI) return collect([{ downwardAPI }], downwardAPI.defaultMode, context)
  if (projected) return collect(projected.sources ?? [], projected.defaultMode, context)
  throw new Error(`volume ${volume.name} is not made of API objects`)
}

async function collect(
  sources: readonly VolumeProjection[],
  defaultMode: number | undefined,
  context: VolumeContext,
): Promise<Content> {
  const mode = defaultMode ?? modeDefault
  const parts = await Promise.all(sources.map((source) => project(source, mode, context)))
  const payload = new Map<string, PayloadFile>()
  for (const part of parts) for (const [path, file] of part.payload) payload.set(path, file)
  const times = parts.flatMap((p) => (p.refreshAt === undefined ? [] : [p.refreshAt]))
  return { payload, ...(times.length === 0 ? {} : { refreshAt: Math.min(...times) }) }
}

async function project(source: VolumeProjection, mode: number, context: VolumeContext): Promise<Content> {
  const { pod, objects } = context
  const { namespace, uid } = pod.metadata
  if (source.configMap) {
    const { name = '', items, optional } = source.configMap
    const found = await objects.configMap(uid, namespace, name)
    if (found === undefined && optional !== true) throw new Error(`configmap "${name}" not found`)
    return { payload: pick(configMapFiles(found), items, mode, optional === true, `${namespace}/${name}`, 'configmap') }
  }
  if (source.secret) {
    const { name = '', items, optional } = source.secret
    const found = await objects.secret(uid, namespace, name)
    if (found === undefined && optional !== true) throw new Error(`secret "${name}" not found`)
    return { payload: pick(secretFiles(found), items, mode, optional === true, `${namespace}/${name}`, 'secret') }
  }
  if (source.downwardAPI) return { payload: downwardFiles(source.downwardAPI.items ?? [], mode, context) }
  if (source.serviceAccountToken) return tokenFile(source.serviceAccountToken, mode, context)
  throw new Error('a source of a projected volume is of a kind that this node does not support')
}

const configMapFiles = (map: ConfigMap | undefined): Map<string, Uint8Array> =>
  new Map([
    ...Object.entries(map?.data ?? {}).map(([key, text]): [string, Uint8Array] => [key, Buffer.from(text)]),
    ...Object.entries(map?.binaryData ?? {}).map(([key, text]): [string, Uint8Array] => [
      key,
      Buffer.from(text, 'base64'),
    ]),
  ])

const secretFiles = (secret: Secret | undefined): Map<string, Uint8Array> =>
  new Map(Object.entries(secret?.data ?? {}).map(([key, text]) => [key, Buffer.from(text, 'base64')]))

function pick(
  files: ReadonlyMap<string, Uint8Array>,
  items: readonly KeyToPath[] | undefined,
  mode: number,
  optional: boolean,
  of: string,
  kind: string,
): Map<string, PayloadFile> {
  if (items === undefined || items.length === 0) return new Map([...files].map(([key, data]) => [key, { data, mode }]))
  const picked = new Map<string, PayloadFile>()
  for (const { key, path, mode: own } of items) {
    const data = files.get(key)
    if (data === undefined) {
      if (optional) continue
      throw new Error(`references non-existent ${kind} key: ${key} in ${of}`)
    }
    picked.set(path, { data, mode: own ?? mode })
  }
  return picked
}

function downwardFiles(
  items: readonly DownwardAPIVolumeFile[],
  mode: number,
  { pod, node }: VolumeContext,
): Map<string, PayloadFile> {
  const containers = [...pod.spec.containers, ...(pod.spec.initContainers ?? [])]
  return new Map(
    items.map(({ path, fieldRef, resourceFieldRef, mode: own }) => {
      const text = fieldRef
        ? fieldValue(pod, fieldRef.fieldPath, node, [])
        : resourceFieldRef
          ? resourceValue(
              containers.find((c) => c.name === resourceFieldRef.containerName),
              resourceFieldRef,
              node,
            )
          : ''
      return [path, { data: Buffer.from(text), mode: own ?? mode }]
    }),
  )
}

/** Kept until 80 % of its life is over, or a day. */
async function tokenFile(
  { audience, expirationSeconds = tokenSecondsDefault, path }: NonNullable<VolumeProjection['serviceAccountToken']>,
  mode: number,
  { pod, tokens, signal, now }: VolumeContext,
): Promise<Content> {
  const { token, expiresAt } = await tokens.request(pod, { audience, expirationSeconds }, signal)
  const refreshAt = Math.min(now + (expiresAt - now) * 0.8, now + 24 * 3_600_000)
  // With an fsGroup the group's right is added where the files are written; others have none.
  const own = pod.spec.securityContext?.fsGroup === undefined ? mode : 0o600
  return { payload: new Map([[path, { data: Buffer.from(token), mode: own }]]), refreshAt }
}
