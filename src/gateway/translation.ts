import { type BackendNeeds, type BackendPort, type Referrer, resolveBackend } from './backends.ts'
import type { RouteBackendRef } from './objects.ts'
import { isFalse, type Verdict } from './verdict.ts'

/** Collects what is found on the way from one rule to the engine's form of it. */
export class Translation {
  readonly #from: Referrer
  readonly #needs: BackendNeeds
  /** Ports that were named and found. */
  readonly ports = new Map<string, BackendPort>()
  /** `namespace/name` of every Service that was asked for, found or not: when it changes, so may the rule. */
  readonly services = new Set<string>()
  #unresolved: Verdict | undefined
  #refusal: { readonly reason: string; readonly message: string } | undefined

  constructor(from: Referrer, needs: BackendNeeds) {
    this.#from = from
    this.#needs = needs
  }

  /** The first reference that leads nowhere. */
  get unresolved(): Verdict | undefined {
    return this.#unresolved
  }

  /** Why the rule cannot be done as it stands. */
  get refusal(): { readonly reason: string; readonly message: string } | undefined {
    return this.#refusal
  }

  /** The backend's id, or undefined for a reference that leads nowhere; that is noted. */
  backend(ref: RouteBackendRef): string | undefined {
    if ((ref.group ?? '') === '' && (ref.kind ?? 'Service') === 'Service')
      this.services.add(`${ref.namespace || this.#from.namespace}/${ref.name}`)
    const result = resolveBackend(ref, this.#from, this.#needs)
    if (!result.ok) {
      this.#unresolved ??= isFalse('ResolvedRefs', result.reason, result.message)
      return undefined
    }
    this.ports.set(result.port.id, result.port)
    return result.port.id
  }

  refuse(reason: string, message: string): void {
    this.#refusal ??= { reason, message }
  }
}
