import type { Secret } from '../gen/core-v1.ts'
import { secrets } from '../gen/resources.ts'
import { ageColumn, column, nameColumn } from '../meta/columns.ts'
import { defineKind } from '../meta/define.ts'
import { configKey } from '../meta/names.ts'
import { immutable } from '../meta/object-meta.ts'
import { sameJson } from '../meta/patch/json.ts'
import { isObject } from '../meta/patch/merge.ts'
import { type FieldError, fieldError } from '../meta/status.ts'
import { base64Bytes, dataBytesMax, immutableWords } from './config-map.ts'

const redacted = '<secret contents redacted>'

function validateSecret({ metadata, type, data = {} }: Secret): FieldError[] {
  const errors: FieldError[] = []
  let size = 0
  for (const key in data) {
    for (const words of configKey(key)) errors.push(fieldError.invalid(`data[${key}]`, key, words))
    size += base64Bytes(data[key] ?? '')
  }
  if (size > dataBytesMax) errors.push(fieldError.tooLong('data', dataBytesMax))
  const needs = (key: string): void => {
    if (data[key] === undefined) errors.push(fieldError.required(`data[${key}]`))
  }
  switch (type) {
    case 'kubernetes.io/service-account-token':
      if (!metadata.annotations?.['kubernetes.io/service-account.name']) {
        errors.push(fieldError.required('metadata.annotations[kubernetes.io/service-account.name]'))
      }
      break
    case 'kubernetes.io/dockercfg':
      validateJson(data['.dockercfg'], 'data[.dockercfg]', errors)
      break
    case 'kubernetes.io/dockerconfigjson':
      validateJson(data['.dockerconfigjson'], 'data[.dockerconfigjson]', errors)
      break
    case 'kubernetes.io/basic-auth':
      if (data.username === undefined && data.password === undefined) {
        needs('username')
        needs('password')
      }
      break
    case 'kubernetes.io/ssh-auth':
      needs('ssh-privatekey')
      break
    case 'kubernetes.io/tls':
      needs('tls.crt')
      needs('tls.key')
      break
    default:
  }
  return errors
}

function validateJson(base64: string | undefined, path: string, errors: FieldError[]): void {
  if (base64 === undefined) {
    errors.push(fieldError.required(path))
    return
  }
  const text = Buffer.from(base64, 'base64').toString()
  try {
    if (isObject(JSON.parse(text))) return
    errors.push(fieldError.invalid(path, redacted, 'json: the value is not an object'))
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error
    const first = text.trimStart().charAt(0)
    errors.push(
      fieldError.invalid(
        path,
        redacted,
        first === ''
          ? 'unexpected end of JSON input'
          : /[[{"\d\-tfn]/.test(first)
            ? 'invalid JSON'
            : `invalid character '${first}' looking for beginning of value`,
      ),
    )
  }
}

export const secret = defineKind<Secret>({
  resource: secrets,
  message: 'core/v1.Secret',
  description: 'Values that only those who need them may read.',
  defaults(object) {
    object.type ||= 'Opaque'
    // A way to write plain text: it is never stored as such.
    const { stringData } = object
    if (stringData === undefined) return
    object.data ??= {}
    for (const key in stringData) object.data[key] = Buffer.from(stringData[key] ?? '').toString('base64')
    delete object.stringData
  },
  validate: validateSecret,
  validateUpdate(next, old) {
    const errors = immutable(next.type, old.type, 'type')
    if (old.immutable) {
      if (!next.immutable) errors.push(fieldError.forbidden('immutable', immutableWords))
      if (!sameJson(next.data ?? {}, old.data ?? {})) errors.push(fieldError.forbidden('data', immutableWords))
    }
    return [...errors, ...validateSecret(next)]
  },
  columns: [
    nameColumn,
    column('Type', 'What it holds.', ({ type }) => type ?? ''),
    column('Data', 'How many entries it has.', ({ data = {} }) => Object.keys(data).length, 'string'),
    ageColumn,
  ],
  selectableFields: { type: ({ type }) => type ?? '' },
})
