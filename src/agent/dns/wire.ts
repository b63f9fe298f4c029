import { addressBytes } from '#kernel/netns.ts'

/** Numbers of RFC 1035, 2782, 3596, 6891, 8482. */
export const types = {
  A: 1,
  NS: 2,
  CNAME: 5,
  SOA: 6,
  PTR: 12,
  HINFO: 13,
  MX: 15,
  TXT: 16,
  AAAA: 28,
  SRV: 33,
  OPT: 41,
  ANY: 255,
} as const

export const rcodes = { NOERROR: 0, FORMERR: 1, SERVFAIL: 2, NXDOMAIN: 3, NOTIMP: 4, REFUSED: 5 } as const

/** What a name has. Names are lower case and without a last dot. */
export type Rr =
  | { readonly type: 'A' | 'AAAA'; readonly address: string }
  | { readonly type: 'CNAME' | 'PTR' | 'NS'; readonly target: string }
  | {
      readonly type: 'SRV'
      readonly priority: number
      readonly weight: number
      readonly port: number
      readonly target: string
    }
  | { readonly type: 'TXT'; readonly text: string }
  | { readonly type: 'SOA'; readonly primary: string; readonly mailbox: string; readonly serial: number }
  | { readonly type: 'HINFO'; readonly cpu: string; readonly os: string }

export const headerBytes = 12
const labelBytesMax = 63
const nameBytesMax = 255
const dot = 0x2e
const classIn = 1
/** One name, six numbers and another name: how long a SOA says that a "no" may be kept is its last number. */
const soaTimes = { refresh: 7200, retry: 1800, expire: 86_400 }

/** Wire form of `a.b.c`; undefined where it has no such form. */
export function encodeName(name: string): Buffer | undefined {
  if (name === '') return Buffer.from([0])
  // The text with a byte before it: then each dot, and that byte, is where a length belongs.
  const out = Buffer.from(`.${name}.`, 'utf8')
  if (out.length > nameBytesMax) return undefined
  let start = 0
  for (let i = 1; i < out.length; i++) {
    if (out[i] !== dot) continue
    const length = i - start - 1
    if (length === 0 || length > labelBytesMax) return undefined
    out[start] = length
    start = i
  }
  out[out.length - 1] = 0
  return out
}

/** The name at `offset` of a message, lower case, and where it ends; undefined where it is not well formed. */
export function decodeName(
  message: Buffer,
  offset: number,
): { readonly name: string; readonly end: number } | undefined {
  const labels: string[] = []
  let at = offset
  let end: number | undefined
  let bytes = 1
  for (;;) {
    const length = message[at]
    if (length === undefined) return undefined
    if (length === 0) return { name: labels.join('.'), end: end ?? at + 1 }
    if (length >= 0xc0) {
      const low = message[at + 1]
      if (low === undefined) return undefined
      const to = ((length & 0x3f) << 8) | low
      end ??= at + 2
      // Only backwards: so it comes to an end.
      if (to >= at) return undefined
      at = to
      continue
    }
    bytes += 1 + length
    if (length > labelBytesMax || bytes > nameBytesMax || at + 1 + length > message.length) return undefined
    labels.push(message.toString('latin1', at + 1, at + 1 + length).toLowerCase())
    at += 1 + length
  }
}

export interface Question {
  readonly id: number
  readonly name: string
  readonly type: number
  /** Of the question in the message. */
  readonly end: number
  /** The largest answer that the asker takes over UDP. */
  readonly udpBytesMax: number
  readonly hasOpt: boolean
}

/** Of a query that the table of names has checked; undefined for what is none. */
export function parseQuestion(query: Buffer): Question | undefined {
  if (query.length < headerBytes || query.readUInt16BE(4) !== 1) return undefined
  const found = decodeName(query, headerBytes)
  if (found === undefined || found.end + 4 > query.length) return undefined
  const end = found.end + 4
  const opt = findOpt(query, end)
  return {
    id: query.readUInt16BE(0),
    name: found.name,
    type: query.readUInt16BE(found.end),
    end,
    udpBytesMax: opt === undefined ? 512 : Math.min(1232, Math.max(512, opt)),
    hasOpt: opt !== undefined,
  }
}

/** The size that the query's OPT record names. */
function findOpt(query: Buffer, from: number): number | undefined {
  let at = from
  for (let left = query.readUInt16BE(10); left > 0; left--) {
    const owner = decodeName(query, at)
    if (owner === undefined || owner.end + 10 > query.length) return undefined
    if (query.readUInt16BE(owner.end) === types.OPT) return query.readUInt16BE(owner.end + 2)
    at = owner.end + 10 + query.readUInt16BE(owner.end + 8)
  }
  return undefined
}

/** A query for one name, as a resolver of ours sends it. Throws a RangeError for what is no name. */
export function encodeQuery(
  id: number,
  name: string,
  type: number,
  { udpBytes }: { readonly udpBytes?: number } = {},
): Buffer {
  const wire = encodeName(name)
  if (wire === undefined) throw new RangeError(`${JSON.stringify(name)} cannot be a domain name`)
  const header = Buffer.from([id >> 8, id & 255, 1, 0, 0, 1, 0, 0, 0, 0, 0, udpBytes === undefined ? 0 : 1])
  return Buffer.concat([header, wire, u16(type, classIn), ...(udpBytes === undefined ? [] : [encodeOpt(udpBytes)])])
}

const encodeOpt = (udpBytes: number): Buffer => Buffer.concat([Buffer.from([0]), u16(types.OPT, udpBytes, 0, 0, 0)])

export interface Answer {
  readonly rcode: number
  readonly authoritative: boolean
  /** Encoded with `encodeRecord()`. */
  readonly answers: readonly Buffer[]
  readonly authorities?: readonly Buffer[]
}

/** The whole message, cut to what the transport takes: whole records, and the mark that there is more. */
export function encodeAnswer(query: Buffer, question: Question, answer: Answer, transport: 'udp' | 'tcp'): Buffer {
  const opt = question.hasOpt ? encodeOpt(1232) : Buffer.alloc(0)
  const room = (transport === 'tcp' ? 65_535 : question.udpBytesMax) - question.end - opt.length
  const answers: Buffer[] = []
  let used = 0
  for (const record of answer.answers) {
    if (used + record.length > room) break
    used += record.length
    answers.push(record)
  }
  const truncated = answers.length < answer.answers.length
  const authorities = truncated ? [] : (answer.authorities ?? [])
  const out = Buffer.concat([query.subarray(0, question.end), ...answers, ...authorities, opt])
  const flags = query.readUInt16BE(2)
  out.writeUInt16BE(
    0x8080 | (flags & 0x7910) | (answer.authoritative ? 0x400 : 0) | (truncated ? 0x200 : 0) | answer.rcode,
    2,
  )
  out.writeUInt16BE(answers.length, 6)
  out.writeUInt16BE(authorities.length, 8)
  out.writeUInt16BE(question.hasOpt ? 1 : 0, 10)
  return out
}

/** The owner as a pointer to an offset of the message (12: the question's name), or in full. */
export function encodeRecord(owner: number | string, rr: Rr, ttlSeconds: number): Buffer {
  return encodeRaw(owner, types[rr.type], ttlSeconds, encodeData(rr, ttlSeconds))
}

export function encodeRaw(owner: number | string, type: number, ttlSeconds: number, data: Buffer): Buffer {
  const name = typeof owner === 'number' ? u16(0xc000 | owner) : nameOrThrow(owner)
  const fixed = Buffer.alloc(10)
  fixed.writeUInt16BE(type, 0)
  fixed.writeUInt16BE(classIn, 2)
  fixed.writeUInt32BE(ttlSeconds, 4)
  fixed.writeUInt16BE(data.length, 8)
  return Buffer.concat([name, fixed, data])
}

function encodeData(rr: Rr, ttlSeconds: number): Buffer {
  switch (rr.type) {
    case 'A':
    case 'AAAA':
      return rr.type === 'A' ? Buffer.from(rr.address.split('.').map(Number)) : addressBytes(rr.address)
    case 'CNAME':
    case 'PTR':
    case 'NS':
      return nameOrThrow(rr.target)
    case 'SRV':
      return Buffer.concat([u16(rr.priority, rr.weight, rr.port), nameOrThrow(rr.target)])
    case 'TXT':
      return string(rr.text)
    case 'HINFO':
      return Buffer.concat([string(rr.cpu), string(rr.os)])
    case 'SOA': {
      const { refresh, retry, expire } = soaTimes
      const numbers = Buffer.alloc(20)
      for (const [i, value] of [rr.serial, refresh, retry, expire, ttlSeconds].entries())
        numbers.writeUInt32BE(value, i * 4)
      return Buffer.concat([nameOrThrow(rr.primary), nameOrThrow(rr.mailbox), numbers])
    }
    default:
      return rr satisfies never
  }
}

/** A record of somebody's message, with a name in its data written out, so that it can go into another message. */
export interface ForeignRecord {
  readonly owner: string
  readonly type: number
  readonly ttlSeconds: number
  readonly data: Buffer
}

/** The answers of a message; undefined where it is not well formed. */
export function parseAnswers(message: Buffer): ForeignRecord[] | undefined {
  const question = parseQuestion(message)
  if (question === undefined) return undefined
  const out: ForeignRecord[] = []
  let at = question.end
  for (let left = message.readUInt16BE(6); left > 0; left--) {
    const owner = decodeName(message, at)
    if (owner === undefined || owner.end + 10 > message.length) return undefined
    const type = message.readUInt16BE(owner.end)
    const start = owner.end + 10
    const end = start + message.readUInt16BE(owner.end + 8)
    const data = end > message.length ? undefined : plainData(message, type, start, end)
    if (data === undefined) return undefined
    out.push({ owner: owner.name, type, ttlSeconds: message.readUInt32BE(owner.end + 4), data })
    at = end
  }
  return out
}

/** Bytes before the name in the data of those types that have one. */
const nameAt: Readonly<Record<number, number>> = {
  [types.NS]: 0,
  [types.CNAME]: 0,
  [types.PTR]: 0,
  [types.MX]: 2,
  [types.SRV]: 6,
}

function plainData(message: Buffer, type: number, start: number, end: number): Buffer | undefined {
  const before = nameAt[type]
  if (before === undefined) return message.subarray(start, end)
  const found = decodeName(message, start + before)
  const name = found?.end === end ? encodeName(found.name) : undefined
  return name === undefined ? undefined : Buffer.concat([message.subarray(start, start + before), name])
}

function u16(...values: number[]): Buffer {
  const out = Buffer.alloc(values.length * 2)
  for (const [i, value] of values.entries()) out.writeUInt16BE(value, i * 2)
  return out
}

function string(text: string): Buffer {
  const bytes = Buffer.from(text, 'utf8').subarray(0, 255)
  return Buffer.concat([Buffer.from([bytes.length]), bytes])
}

function nameOrThrow(name: string): Buffer {
  const wire = encodeName(name)
  if (wire === undefined) throw new RangeError(`${JSON.stringify(name)} cannot be a domain name`)
  return wire
}
