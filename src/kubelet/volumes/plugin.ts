import type { Pod, Volume } from '#api/gen/core-v1.ts'
import type { NodeFacts } from '../containers/downward.ts'
import type { Objects } from '../objects/objects.ts'

/** A kind of volume. CSI comes as one more of these. */
export interface VolumePlugin {
  /** As in upstream's directory names: `kubernetes.io~configmap`. */
  readonly name: string
  supports(volume: Volume): boolean
  /**
   * Makes the volume's content be there, or up to date when it is called again. `dir` is the volume's own place on
   * this node. Throws with words for the pod's event.
   */
  setUp(volume: Volume, dir: string, context: VolumeContext): Promise<PreparedVolume>
}

export interface VolumeContext {
  readonly pod: Pod
  readonly node: NodeFacts
  readonly objects: Objects
  readonly tokens: TokenSource
  readonly now: number
  readonly signal: AbortSignal
}

export interface PreparedVolume {
  /** What containers see of the node's files. */
  readonly path: string
  /** Content that ages: when to set up again; ms. */
  readonly refreshAt?: number
  /** Content of API objects: to be set up again when they change. */
  readonly live: boolean
  /** It is given to fsGroup. */
  readonly owned: boolean
}

/** Tokens of service accounts, bound to the pod. */
export interface TokenSource {
  request(
    pod: Pod,
    options: { readonly audience: string | undefined; readonly expirationSeconds: number },
    signal: AbortSignal,
  ): Promise<{ readonly token: string; readonly expiresAt: number }>
}
