import type { ConfigMap } from '../gen/core-v1.ts'
import { configMaps } from '../gen/resources.ts'
import { ageColumn, column, nameColumn } from '../meta/columns.ts'
import { defineKind } from '../meta/define.ts'
import { configKey } from '../meta/names.ts'
import { sameJson } from '../meta/patch/json.ts'
import { type FieldError, fieldError } from '../meta/status.ts'

/** Values together, of one ConfigMap or Secret. */
export const dataBytesMax = 1024 * 1024
export const immutableWords = 'field is immutable when `immutable` is set'

/** Bytes that a base64 text stands for. */
export const base64Bytes = (text: string): number => Math.floor((text.replace(/=+$/, '').length * 3) / 4)

function validateConfigMap({ data = {}, binaryData = {} }: ConfigMap): FieldError[] {
  const errors: FieldError[] = []
  let size = 0
  for (const key in data) {
    for (const words of configKey(key)) errors.push(fieldError.invalid(`data[${key}]`, key, words))
    if (Object.hasOwn(binaryData, key)) {
      errors.push(fieldError.invalid(`data[${key}]`, key, 'duplicate of key present in binaryData'))
    }
    size += Buffer.byteLength(data[key] ?? '')
  }
  for (const key in binaryData) {
    for (const words of configKey(key)) errors.push(fieldError.invalid(`binaryData[${key}]`, key, words))
    size += base64Bytes(binaryData[key] ?? '')
  }
  if (size > dataBytesMax) errors.push(fieldError.tooLong('[]', dataBytesMax))
  return errors
}

export const configMap = defineKind<ConfigMap>({
  resource: configMaps,
  message: 'core/v1.ConfigMap',
  description: 'Settings that pods read as files or environment.',
  shortNames: ['cm'],
  validate: validateConfigMap,
  validateUpdate(next, old) {
    const errors: FieldError[] = []
    if (old.immutable) {
      if (!next.immutable) errors.push(fieldError.forbidden('immutable', immutableWords))
      for (const field of ['data', 'binaryData'] as const) {
        if (!sameJson(next[field] ?? {}, old[field] ?? {})) errors.push(fieldError.forbidden(field, immutableWords))
      }
    }
    return [...errors, ...validateConfigMap(next)]
  },
  columns: [
    nameColumn,
    column(
      'Data',
      'How many entries it has.',
      ({ data = {}, binaryData = {} }) => Object.keys(data).length + Object.keys(binaryData).length,
      'string',
    ),
    ageColumn,
  ],
})
