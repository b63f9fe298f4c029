import { pullPolicyOf } from '#api/core/pod/defaults.ts'
import type { Container, Pod } from '#api/gen/core-v1.ts'
import type { Hindrance } from '../pods/facts.ts'
import type { NodeContext } from '../pods/node-context.ts'
import { detailOf, type ImageRecord } from '../runtime/runtime.ts'
import { fieldPathOf } from './field-path.ts'
import { sandboxConfig } from './sandbox-config.ts'

/** The image cannot be had now. */
export class ImageError extends Error {
  override readonly name = 'ImageError'
  readonly hindrance: Hindrance

  constructor(hindrance: Hindrance, options?: ErrorOptions) {
    super(hindrance.message, options)
    this.hindrance = hindrance
  }
}

const retryFirstMs = 10_000
const retryMaxMs = 300_000
/** How long ErrImagePull shows before it is called what it is by then: a back-off. */
const renamedAfterMs = 1_000

const component = '[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*'
const label = '[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?'
const reference = new RegExp(
  `^(?:(?:${label}(?:\\.${label})*|\\[[0-9a-fA-F:]+\\])(?::\\d+)?/)?${component}(?:/${component})*(?::\\w[\\w.-]{0,127})?(?:@[a-z0-9+._-]+:[0-9a-fA-F]{32,})?$`,
)

/** What is wrong with an image's name, in upstream's words; undefined for one that can be asked for. Pure. */
export function imageNameProblem(image: string): string | undefined {
  if (reference.test(image)) return undefined
  // The host may have capitals, what comes after it may not.
  const path = image.slice(image.indexOf('/') + 1).replace(/[:@].*$/, '')
  const why = /[A-Z]/.test(path) ? `: repository name (${path}) must be lowercase` : ''
  return `Failed to apply default image tag "${image}": couldn't parse image name "${image}": invalid reference format${why}`
}

/**
 * The image on this node, pulled where the policy says so. `failures` counts the pulls of this image for this pod that
 * failed before. Throws `ImageError`.
 */
export async function ensureImage(
  context: NodeContext,
  pod: Pod,
  container: Container,
  failures: number,
  signal: AbortSignal,
): Promise<ImageRecord> {
  const { runtime, events, clock } = context
  const image = container.image ?? ''
  const policy = container.imagePullPolicy ?? pullPolicyOf(container.image ?? '')
  const note = (type: 'Normal' | 'Warning', reason: string, message: string) =>
    events.record(pod, { type, reason, message, fieldPath: fieldPathOf(pod, container) })
  const fail = (reason: string, message: string): never => {
    note('Warning', 'Failed', `Error: ${reason}`)
    throw new ImageError({ reason, message, retryAt: clock.now() + retryFirstMs })
  }
  const problem = imageNameProblem(image)
  if (problem !== undefined) {
    note('Warning', 'InspectFailed', problem)
    return fail('InvalidImageName', problem)
  }
  const present = await runtime.imageStatus(image, signal)
  if (present !== undefined && policy !== 'Always') {
    note('Normal', 'Pulled', `Container image "${image}" already present on machine and can be accessed by the pod`)
    return present
  }
  if (policy === 'Never') {
    const message = `Container image "${image}" is not present with pull policy of Never`
    note('Warning', 'ErrImageNeverPull', message)
    return fail('ErrImageNeverPull', message)
  }
  note('Normal', 'Pulling', `Pulling image "${image}"`)
  const began = clock.monotonic()
  try {
    await runtime.pullImage(image, sandboxConfig(pod, 0, context), signal)
    const pulled = await runtime.imageStatus(image, signal)
    if (pulled === undefined) throw new Error(`image "${image}" was pulled but is not there`)
    const ms = Math.round(clock.monotonic() - began)
    note('Normal', 'Pulled', `Successfully pulled image "${image}" in ${ms}ms. Image size: ${pulled.sizeBytes} bytes.`)
    return pulled
  } catch (error) {
    if (signal.aborted) throw error
    const why = detailOf(error)
    const message = `failed to pull image "${image}": ${why}`
    note('Warning', 'Failed', `Failed to pull image "${image}": ${why}`)
    note('Warning', 'Failed', 'Error: ErrImagePull')
    const now = clock.now()
    throw new ImageError(
      {
        reason: 'ErrImagePull',
        message,
        retryAt: now + Math.min(retryMaxMs, retryFirstMs * 2 ** Math.min(10, failures)),
        later: {
          at: now + renamedAfterMs,
          reason: 'ImagePullBackOff',
          message: `Back-off pulling image "${image}": ErrImagePull: ${message}`,
        },
      },
      { cause: error },
    )
  }
}
