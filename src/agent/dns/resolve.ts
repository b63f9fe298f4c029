import { parseAddress } from '#base/net/address.ts'
import type { NameTable } from '#kernel/names.ts'
import type { Forwarder } from './forward.ts'
import {
  encodeAnswer,
  encodeQuery,
  encodeRaw,
  encodeRecord,
  headerBytes,
  parseAnswers,
  parseQuestion,
  type Question,
  type Rr,
  rcodes,
  types,
} from './wire.ts'
import { ttlSeconds, type Zone } from './zone.ts'

type Alias = Extract<Rr, { type: 'CNAME' | 'PTR' | 'NS' }>

export interface ResolverParts {
  readonly domain: string
  readonly zone: Zone
  readonly table: Pick<NameTable, 'answer'>
  readonly forwarder: Forwarder
  readonly namespaces: { get(name: string): unknown }
}

/** An external name that leads to another, and so on: after this many it leads nowhere. */
const chainMax = 8

/**
 * What the table does not know by heart: pods by address, external names, "any", and everything that is not of the
 * cluster. Answers always: SERVFAIL where nobody can be asked.
 */
export async function resolve(
  query: Buffer,
  transport: 'udp' | 'tcp',
  parts: ResolverParts,
  signal: AbortSignal,
): Promise<Buffer | undefined> {
  const question = parseQuestion(query)
  if (question === undefined) return undefined
  const { name, type } = question
  const { zone, domain, forwarder } = parts
  const say = (answer: Parameters<typeof encodeAnswer>[2]) => encodeAnswer(query, question, answer, transport)
  const no = (rcode: number): Buffer => {
    const { owner, rr } = zone.soa(zone.zoneOf(name) ?? domain)
    return say({ rcode, authoritative: true, answers: [], authorities: [encodeRecord(owner, rr, ttlSeconds)] })
  }
  const fail = (): Buffer => say({ rcode: rcodes.SERVFAIL, authoritative: false, answers: [] })

  const pod = podOf(name, domain)
  if (pod !== undefined) {
    if (pod.rr === undefined || parts.namespaces.get(pod.namespace) === undefined) return no(rcodes.NXDOMAIN)
    if (type !== types[pod.rr.type] && type !== types.ANY) return no(rcodes.NOERROR)
    return say({ rcode: rcodes.NOERROR, authoritative: true, answers: [encodeRecord(headerBytes, pod.rr, ttlSeconds)] })
  }
  if (zone.zoneOf(name) === undefined) return (await forwarder.ask(query, transport, signal)) ?? fail()
  const alias = aliasOf(zone, name)
  if (alias === undefined) return answerAny(question, parts, say, no)
  const chain = await follow(alias, question, transport, parts, signal)
  return chain === undefined ? fail() : say({ rcode: chain.rcode, authoritative: true, answers: chain.answers })
}

/** "Any" is answered with one kind of what there is (RFC 8482). */
function answerAny(
  { name, type }: Question,
  { zone }: ResolverParts,
  say: (answer: Parameters<typeof encodeAnswer>[2]) => Buffer,
  no: (rcode: number) => Buffer,
): Buffer {
  const [first] = zone.records(name)
  if (!zone.has(name)) return no(rcodes.NXDOMAIN)
  if (first === undefined || type !== types.ANY) return no(rcodes.NOERROR)
  const rrs = zone.records(name).filter((rr) => rr.type === first.type)
  return say({
    rcode: rcodes.NOERROR,
    authoritative: true,
    answers: rrs.map((rr) => encodeRecord(headerBytes, rr, ttlSeconds)),
  })
}

interface Chain {
  readonly rcode: number
  readonly answers: readonly Buffer[]
}

/** An external name, and what it leads to. Undefined where nobody can say. */
async function follow(
  alias: Alias,
  question: Question,
  transport: 'udp' | 'tcp',
  { zone, table, forwarder, domain, namespaces }: ResolverParts,
  signal: AbortSignal,
): Promise<Chain | undefined> {
  const answers = [encodeRecord(headerBytes, alias, ttlSeconds)]
  if (question.type === types.CNAME || question.type === types.ANY) return { rcode: rcodes.NOERROR, answers }
  let target = alias.target
  const seen = new Set([question.name])
  while (seen.size < chainMax && !seen.has(target)) {
    seen.add(target)
    const next = aliasOf(zone, target)
    if (next !== undefined) {
      answers.push(encodeRecord(target, next, ttlSeconds))
      target = next.target
      continue
    }
    const query = encodeQuery(question.id, target, question.type, { udpBytes: 1232 })
    const pod = podOf(target, domain)
    const found =
      pod === undefined && zone.zoneOf(target) !== undefined
        ? table.answer(query, 'tcp')
        : pod === undefined
          ? await forwarder.ask(query, transport, signal)
          : await resolve(query, 'tcp', { zone, table, forwarder, domain, namespaces }, signal)
    const records = found === undefined || found === 'none' ? undefined : parseAnswers(found)
    if (found === undefined || found === 'none' || records === undefined) return undefined
    const more = records.map(({ owner, type, ttlSeconds: ttl, data }) => encodeRaw(owner, type, ttl, data))
    return { rcode: (found[3] ?? 0) & 15, answers: [...answers, ...more] }
  }
  // It leads back to itself: what is known is said, and no more.
  return { rcode: rcodes.SERVFAIL, answers: [] }
}

const aliasOf = (zone: Zone, name: string): Alias | undefined =>
  zone.records(name).find((rr): rr is Alias => rr.type === 'CNAME')

/** Section 2.6 of the specification: the name says the address. Undefined for a name of another form. */
function podOf(name: string, domain: string): { readonly namespace: string; readonly rr: Rr | undefined } | undefined {
  const suffix = `.pod.${domain}`
  if (!name.endsWith(suffix)) return undefined
  const labels = name.slice(0, -suffix.length).split('.')
  const [label = '', namespace] = labels
  if (namespace === undefined) return undefined
  if (labels.length !== 2) return { namespace, rr: undefined }
  const v4 = parseAddress(label.replaceAll('-', '.'))
  if (v4?.family === 4) return { namespace, rr: { type: 'A', address: label.replaceAll('-', '.') } }
  const v6 = parseAddress(label.replaceAll('-', ':'))
  return { namespace, rr: v6 === undefined ? undefined : { type: 'AAAA', address: label.replaceAll('-', ':') } }
}
