import { randomUUID } from 'node:crypto'
import { errors, jwtVerify, SignJWT } from 'jose'
import type { Clock } from '#base/clock.ts'
import type { Pki } from '../pki/pki.ts'

/** What a token says beyond the registered claims; names and uids of the objects it is bound to. */
export interface Binding {
  readonly namespace: string
  readonly serviceaccount: ObjectReference
  readonly pod?: ObjectReference
  readonly node?: ObjectReference
  readonly secret?: ObjectReference
  /** Seconds since the epoch: after it the token is used longer than it was asked for. */
  readonly warnafter?: number
}
export interface ObjectReference {
  readonly name: string
  readonly uid: string
}

export interface TokenClaims {
  readonly audiences: readonly string[]
  readonly id: string
  readonly binding: Binding
}

export interface TokenKeysOptions {
  readonly key: Pki['serviceAccountKey']
  /** `https://kubernetes.default.svc.cluster.local` */
  readonly issuer: string
  readonly clock: Clock
}

const claim = 'kubernetes.io'

/** Signs and reads service-account tokens. Knows nothing of the objects they name. */
export class TokenKeys {
  readonly issuer: string
  readonly #key: Pki['serviceAccountKey']
  readonly #clock: Clock

  constructor({ key, issuer, clock }: TokenKeysOptions) {
    this.#key = key
    this.issuer = issuer
    this.#clock = clock
  }

  /** A compact JWS, valid from now for `seconds`. */
  async sign(binding: Binding, audiences: readonly string[], seconds: number): Promise<string> {
    const now = Math.floor(this.#clock.now() / 1000)
    return new SignJWT({ [claim]: binding })
      .setProtectedHeader({ alg: 'ES256', kid: this.#key.keyId })
      .setIssuer(this.issuer)
      .setAudience([...audiences])
      .setSubject(`system:serviceaccount:${binding.namespace}:${binding.serviceaccount.name}`)
      .setIssuedAt(now)
      .setNotBefore(now)
      .setExpirationTime(now + seconds)
      .setJti(randomUUID())
      .sign(this.#key.privateKey)
  }

  /** Undefined for anything that is not a token of this issuer, signed with this key and within its time. */
  async read(token: string): Promise<TokenClaims | undefined> {
    try {
      const { payload } = await jwtVerify(token, this.#key.publicKey, {
        issuer: this.issuer,
        algorithms: ['ES256'],
        currentDate: new Date(this.#clock.now()),
      })
      const binding = payload[claim] as Binding | undefined
      const audiences = typeof payload.aud === 'string' ? [payload.aud] : (payload.aud ?? [])
      if (binding?.serviceaccount === undefined || payload.jti === undefined) return undefined
      return { audiences, id: payload.jti, binding }
    } catch (error) {
      if (error instanceof errors.JOSEError) return undefined
      throw error
    }
  }

  /** The two documents by which others verify our tokens (OpenID Connect discovery). */
  documents(jwksUri: string): ReadonlyMap<string, unknown> {
    const { kty, crv, x, y } = this.#key.publicKey.export({ format: 'jwk' })
    return new Map<string, unknown>([
      [
        '/.well-known/openid-configuration',
        {
          issuer: this.issuer,
          jwks_uri: jwksUri,
          response_types_supported: ['id_token'],
          subject_types_supported: ['public'],
          id_token_signing_alg_values_supported: ['ES256'],
        },
      ],
      ['/openid/v1/jwks', { keys: [{ use: 'sig', kty, kid: this.#key.keyId, alg: 'ES256', crv, x, y }] }],
    ])
  }
}
