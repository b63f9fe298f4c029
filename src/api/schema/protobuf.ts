import { Buffer } from 'node:buffer'
import { DecodeError } from './conform.ts'
import { Reader } from './protobuf-reader.ts'
import { Writer } from './protobuf-writer.ts'
import { findMessage } from './table.ts'

/**
 * The protobuf form of the API: four magic bytes, then `runtime.Unknown` {typeMeta, raw, contentEncoding, contentType},
 * whose raw bytes are the message by the field numbers of the table. Decoding gives the JSON form, not yet conformed.
 */
export const protobufType = 'application/vnd.kubernetes.protobuf'
const magic = Uint8Array.of(0x6b, 0x38, 0x73, 0x00)

export const isEnvelope = (bytes: Uint8Array): boolean =>
  bytes.length >= magic.length && magic.every((b, i) => bytes[i] === b)

export interface Envelope {
  readonly apiVersion: string
  readonly kind: string
  readonly raw: Uint8Array
}

/** Throws DecodeError for anything that is not the envelope. */
export function openEnvelope(bytes: Uint8Array): Envelope {
  if (!isEnvelope(bytes))
    throw new DecodeError('provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]')
  let apiVersion = ''
  let kind = ''
  let raw: Uint8Array = new Uint8Array()
  const reader = new Reader(bytes.subarray(4))
  while (reader.more()) {
    const { number, wire } = reader.tag()
    if (number === 1 && wire === 2) {
      const inner = new Reader(reader.bytes())
      while (inner.more()) {
        const tag = inner.tag()
        if (tag.number === 1 && tag.wire === 2) apiVersion = inner.string()
        else if (tag.number === 2 && tag.wire === 2) kind = inner.string()
        else inner.skip(tag.wire)
      }
    } else if (number === 2 && wire === 2) raw = reader.bytes()
    else reader.skip(wire)
  }
  return { apiVersion, kind, raw }
}

export function closeEnvelope(apiVersion: string, kind: string, raw: Uint8Array): Uint8Array {
  const meta = new Writer()
  meta.string(1, apiVersion)
  meta.string(2, kind)
  const out = new Writer()
  out.bytes(1, meta.finish())
  out.bytes(2, raw)
  out.string(3, '')
  out.string(4, '')
  return Buffer.concat([magic, out.finish()])
}

/** `apps/v1`, `Deployment` -> `apps/v1.Deployment`: the table's name, or undefined. */
export function messageOfKind(apiVersion: string, kind: string): string | undefined {
  const [group = '', version = ''] = apiVersion.includes('/') ? apiVersion.split('/') : ['', apiVersion]
  const short = group === '' ? 'core' : (group.split('.')[0] ?? group)
  const alias = aliases[group] ?? short
  const name = `${alias}/${version}.${kind}`
  if (findMessage(name) !== undefined) return name
  const meta = `meta/v1.${kind}`
  return findMessage(meta) !== undefined ? meta : undefined
}

/** Groups whose Go package is not the first word of the group. */
const aliases: Readonly<Record<string, string>> = { 'flowcontrol.apiserver.k8s.io': 'flowcontrol' }
