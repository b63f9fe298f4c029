import { isStatus, StatusError } from '#api/meta/status.ts'

/** Trying again would not help until something changes: said once, not retried. */
export class TerminalError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options)
    this.name = 'TerminalError'
  }
}

/**
 * The identity lacks a right: not the object is at fault but the role, so the whole part stops. Other refusals that are
 * Forbidden too (a namespace that is going, a quota, pod security) are about one object and are not this.
 */
export const isAccessDenied = (error: unknown): error is StatusError =>
  isStatus(error, 'Unauthorized') || (isStatus(error, 'Forbidden') && /User "[^"]*" cannot /.test(error.message))

/** The namespace is going: nothing can be made in it any more, and nothing needs to be. */
export const isNamespaceTerminating = (error: unknown): boolean =>
  error instanceof StatusError && (error.status.details?.causes ?? []).some((c) => c.reason === 'NamespaceTerminating')
