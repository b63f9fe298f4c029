import type { Status, StatusCause } from '../gen/meta-v1.ts'

/**
 * Every error of the API is a `Status` made here: reason, code and words as upstream has them
 * (facts: kubernetes/apimachinery api/errors; validation/field). Thrown as `StatusError`, written by `respond`.
 */
export class StatusError extends Error {
  readonly status: Status
  /** Seconds for a Retry-After header, where the client should come back. */
  readonly retryAfterSeconds: number | undefined

  constructor(status: Omit<Status, 'apiVersion' | 'kind' | 'metadata'>, options?: ErrorOptions) {
    super(status.message ?? status.reason ?? 'unknown', options)
    this.name = 'StatusError'
    this.status = { apiVersion: 'v1', kind: 'Status', metadata: {}, ...status } as Status
    this.retryAfterSeconds = status.details?.retryAfterSeconds
  }

  get code(): number {
    return this.status.code ?? 500
  }

  get reason(): string {
    return this.status.reason ?? ''
  }
}

/** What an error is about: `{group: 'apps', resource: 'deployments'}`; kind for validation errors. */
export interface Subject {
  readonly group: string
  readonly resource: string
}

export function isStatus(error: unknown, reason: string): error is StatusError {
  return error instanceof StatusError && error.reason === reason
}

const qualified = ({ group, resource }: Subject): string => (group === '' ? resource : `${resource}.${group}`)

function failure(code: number, reason: string, message: string, details?: Status['details']): StatusError {
  return new StatusError({ status: 'Failure', code, reason, message, ...(details ? { details } : {}) })
}

export const notFound = (subject: Subject, name: string): StatusError =>
  failure(404, 'NotFound', `${qualified(subject)} "${name}" not found`, {
    name,
    group: subject.group,
    kind: subject.resource,
  })

export const alreadyExists = (subject: Subject, name: string): StatusError =>
  failure(409, 'AlreadyExists', `${qualified(subject)} "${name}" already exists`, {
    name,
    group: subject.group,
    kind: subject.resource,
  })

export const conflict = (subject: Subject, name: string, message: string): StatusError =>
  failure(409, 'Conflict', `Operation cannot be fulfilled on ${qualified(subject)} "${name}": ${message}`, {
    name,
    group: subject.group,
    kind: subject.resource,
  })

export const modified = (subject: Subject, name: string): StatusError =>
  conflict(subject, name, 'the object has been modified; please apply your changes to the latest version and try again')

/** The words of a failed authorization. `why` is the authorizer's own explanation. */
export const forbidden = (subject: Subject, name: string, why: string): StatusError =>
  failure(
    403,
    'Forbidden',
    name === '' ? `${qualified(subject)} is forbidden: ${why}` : `${qualified(subject)} "${name}" is forbidden: ${why}`,
    {
      ...(name === '' ? {} : { name }),
      group: subject.group,
      kind: subject.resource,
    },
  )

export const badRequest = (message: string): StatusError => failure(400, 'BadRequest', message)
export const unauthorized = (): StatusError => failure(401, 'Unauthorized', 'Unauthorized')
export const methodNotAllowed = (subject: Subject, action: string): StatusError =>
  failure(405, 'MethodNotAllowed', `${action} is not supported on resources of kind "${qualified(subject)}"`, {
    group: subject.group,
    kind: subject.resource,
  })
export const expired = (message: string): StatusError => failure(410, 'Expired', message)
export const tooLarge = (message: string): StatusError => failure(413, 'RequestEntityTooLarge', message)
export const unsupportedMediaType = (message: string): StatusError => failure(415, 'UnsupportedMediaType', message)
export const notAcceptable = (message: string): StatusError => failure(406, 'NotAcceptable', message)
export const internalError = (message: string): StatusError =>
  failure(500, 'InternalError', `Internal error occurred: ${message}`, { causes: [{ message }] })
export const tooManyRequests = (message: string, retryAfterSeconds: number): StatusError =>
  failure(429, 'TooManyRequests', message, { retryAfterSeconds })
export const serviceUnavailable = (message: string): StatusError => failure(503, 'ServiceUnavailable', message)
export const timeout = (message: string, retryAfterSeconds: number, causes?: StatusCause[]): StatusError =>
  failure(504, 'Timeout', message, { retryAfterSeconds, ...(causes ? { causes } : {}) })

/** One finding of validation, in upstream's words. `path` is a field path such as `spec.containers[0].name`. */
export interface FieldError {
  readonly type:
    | 'FieldValueNotFound'
    | 'FieldValueRequired'
    | 'FieldValueDuplicate'
    | 'FieldValueInvalid'
    | 'FieldValueNotSupported'
    | 'FieldValueForbidden'
    | 'FieldValueTooLong'
    | 'FieldValueTooMany'
    | 'FieldValueTypeInvalid'
    | 'InternalError'
  readonly path: string
  /** Without the path: `Invalid value: "x": must be …`. */
  readonly message: string
}

/** 422 with one cause per finding, as kubectl prints them. */
export function invalid(group: string, kind: string, name: string, errors: readonly FieldError[]): StatusError {
  const texts = [...new Set(errors.map((e) => `${e.path}: ${e.message}`))]
  const list = texts.length === 1 ? texts[0] : `[${texts.join(', ')}]`
  return failure(422, 'Invalid', `${group === '' ? kind : `${kind}.${group}`} "${name}" is invalid: ${list}`, {
    name,
    group,
    kind,
    causes: errors.map((e) => ({ reason: e.type, message: e.message, field: e.path })),
  })
}

const quote = (value: unknown): string =>
  typeof value === 'string' ? JSON.stringify(value) : typeof value === 'object' ? JSON.stringify(value) : String(value)

export const fieldError = {
  required: (path: string, detail = ''): FieldError => ({
    type: 'FieldValueRequired',
    path,
    message: detail === '' ? 'Required value' : `Required value: ${detail}`,
  }),
  invalid: (path: string, value: unknown, detail: string): FieldError => ({
    type: 'FieldValueInvalid',
    path,
    message: `Invalid value: ${quote(value)}: ${detail}`,
  }),
  duplicate: (path: string, value: unknown): FieldError => ({
    type: 'FieldValueDuplicate',
    path,
    message: `Duplicate value: ${quote(value)}`,
  }),
  notFound: (path: string, value: unknown, detail = ''): FieldError => ({
    type: 'FieldValueNotFound',
    path,
    message: detail === '' ? `Not found: ${quote(value)}` : `Not found: ${quote(value)}: ${detail}`,
  }),
  forbidden: (path: string, detail: string): FieldError => ({
    type: 'FieldValueForbidden',
    path,
    message: `Forbidden: ${detail}`,
  }),
  tooLong: (path: string, max: number): FieldError => ({
    type: 'FieldValueTooLong',
    path,
    message: `Too long: may not be more than ${max} ${max === 1 ? 'byte' : 'bytes'}`,
  }),
  tooMany: (path: string, actual: number, max: number): FieldError => ({
    type: 'FieldValueTooMany',
    path,
    message: `Too many: ${actual}: must have at most ${max} ${max === 1 ? 'item' : 'items'}`,
  }),
  typeInvalid: (path: string, value: unknown, detail: string): FieldError => ({
    type: 'FieldValueTypeInvalid',
    path,
    message: `Invalid value: ${quote(value)}: ${detail}`,
  }),
  notSupported: (path: string, value: unknown, supported: readonly string[]): FieldError => ({
    type: 'FieldValueNotSupported',
    path,
    message: `Unsupported value: ${quote(value)}: supported values: ${supported
      .map((s) => JSON.stringify(s))
      .join(', ')}`,
  }),
} as const
