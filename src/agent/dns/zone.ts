import type { AnswerRow, RowType } from '#kernel/names.ts'
import { type NamedRecord, primaryOf } from './records.ts'
import { encodeName, encodeRecord, headerBytes, type Rr, rcodes, types } from './wire.ts'

/** How long a pod may believe an answer, and a "no": the objects change at any time. */
export const ttlSeconds = 5
/** What one answer may hold: the most that TCP takes, less header, question and OPT. */
const bodyBytesMax = 65_000
/** The addresses of more targets than this are asked for when they are needed. */
const helpMax = 16

export interface TableChange {
  readonly puts: readonly AnswerRow[]
  readonly removals: readonly { readonly name: Uint8Array; readonly type: RowType }[]
}

export interface ZoneOptions {
  /** `cluster.local` */
  readonly domain: string
  /** Zones of reverse names for which this resolver alone speaks. */
  readonly reverseZones: readonly string[]
  /** Names at which somebody else answers, and everything below them. */
  readonly askBelow: readonly string[]
  readonly serial: number
}

interface Entry {
  /** Who says that the name is there, and what it has. */
  readonly parts: Map<string, readonly Rr[]>
  /** Names right below this one that are there. */
  children: number
  /** What the table has now, by a sum of it: the rows themselves are there, not here. */
  rows: ReadonlyMap<RowType, number>
}

/**
 * All names of the cluster with their records, from many contributors (a Service, a namespace) that may speak of the
 * same name, and what that comes to as rows of the table. Pure but for what it remembers.
 */
export class Zone {
  readonly #options: ZoneOptions
  readonly #zones: readonly string[]
  readonly #entries = new Map<string, Entry>()
  readonly #contributions = new Map<string, ReadonlyMap<string, readonly Rr[]>>()

  constructor(options: ZoneOptions) {
    this.#options = options
    this.#zones = [options.domain, ...options.reverseZones]
  }

  /** What holds without any record: where a "no" comes from, and where somebody else is asked. */
  start(): TableChange {
    const below = this.#zones.flatMap((zone) => this.#below(zone))
    const asks = this.#options.askBelow.flatMap((name) => this.#row(name, 'below', { mode: 'ask' }))
    // The zone itself is there with whatever it has.
    return { puts: [...below, ...asks, ...this.#zones.flatMap((zone) => this.#rows(zone))], removals: [] }
  }

  get names(): number {
    return this.#entries.size
  }

  has(name: string): boolean {
    return this.#entries.has(name)
  }

  /** In no order; empty too where the name is not there. */
  records(name: string): readonly Rr[] {
    return [...(this.#entries.get(name)?.parts.values() ?? [])].flat()
  }

  /** The zone that a name is in, its apex included. */
  zoneOf(name: string): string | undefined {
    return this.#zones.find((zone) => name === zone || name.endsWith(`.${zone}`))
  }

  soa(zone: string): { readonly owner: string; readonly rr: Rr } {
    const { domain, serial } = this.#options
    return { owner: zone, rr: { type: 'SOA', primary: primaryOf(domain), mailbox: `hostmaster.${domain}`, serial } }
  }

  /** What `contributor` says from now on, in the place of all it said before; nothing: it is gone. */
  set(contributor: string, records: readonly NamedRecord[]): TableChange {
    const next = Map.groupBy(records, (record) => record.name)
    const before = this.#contributions.get(contributor) ?? new Map<string, readonly Rr[]>()
    const after = new Map([...next].map(([name, of]) => [name, of.flatMap(({ rr }) => (rr === undefined ? [] : [rr]))]))
    if (after.size === 0) this.#contributions.delete(contributor)
    else this.#contributions.set(contributor, after)
    const touched = new Set<string>()
    for (const [name, rrs] of after) {
      if (same(before.get(name), rrs)) continue
      this.#enter(name, contributor, rrs, touched)
    }
    for (const name of before.keys()) if (!after.has(name)) this.#leave(name, contributor, touched)
    // The addresses of targets go along with those who point to them.
    if (touched.size > 0) for (const [name, rrs] of after) if (rrs.some((rr) => rr.type === 'SRV')) touched.add(name)
    const changes = [...touched].map((name) => this.#touch(name))
    return { puts: changes.flatMap((c) => c.puts), removals: changes.flatMap((c) => c.removals) }
  }

  #enter(name: string, contributor: string, rrs: readonly Rr[], touched: Set<string>): void {
    touched.add(name)
    this.#entry(name, touched).parts.set(contributor, rrs)
  }

  /** The entry of a name; with it all names above it are there, as far as the zone goes. */
  #entry(name: string, touched: Set<string>): Entry {
    const known = this.#entries.get(name)
    if (known !== undefined) return known
    const entry: Entry = { parts: new Map(), children: 0, rows: new Map() }
    this.#entries.set(name, entry)
    touched.add(name)
    const above = this.#above(name)
    if (above !== undefined) this.#entry(above, touched).children++
    return entry
  }

  #leave(name: string, contributor: string, touched: Set<string>): void {
    touched.add(name)
    this.#entries.get(name)?.parts.delete(contributor)
    this.#prune(name, touched)
  }

  #prune(name: string, touched: Set<string>): void {
    const entry = this.#entries.get(name)
    if (entry === undefined || entry.parts.size > 0 || entry.children > 0) return
    const above = this.#above(name)
    const parent = above === undefined ? undefined : this.#entries.get(above)
    touched.add(name)
    // Its rows are taken away by `#touch`, which no longer finds records.
    if (parent === undefined || above === undefined) return
    parent.children--
    entry.children = -1
    this.#prune(above, touched)
  }

  /** The next name above, within the zone. */
  #above(name: string): string | undefined {
    const zone = this.zoneOf(name)
    return zone === undefined || zone === name ? undefined : name.slice(name.indexOf('.') + 1)
  }

  /** Compares what the table has of a name with what it should have. */
  #touch(name: string): TableChange {
    const entry = this.#entries.get(name)
    const gone = entry === undefined || (entry.parts.size === 0 && entry.children <= 0)
    const apex = this.#zones.includes(name)
    const wanted = gone && !apex ? [] : this.#rows(name)
    const rows = new Map(wanted.map((row) => [row.type, sumOf(row)]))
    const had = entry?.rows ?? new Map<RowType, number>()
    const puts = wanted.filter((row) => had.get(row.type) !== rows.get(row.type))
    const wire = encodeName(name)
    const removals =
      wire === undefined ? [] : [...had.keys()].filter((type) => !rows.has(type)).map((type) => ({ name: wire, type }))
    if (gone) this.#entries.delete(name)
    else entry.rows = rows
    return { puts, removals }
  }

  #rows(name: string): AnswerRow[] {
    const entry = this.#entries.get(name)
    const found = this.records(name)
    // One contributor says nothing twice.
    const rrs = entry !== undefined && entry.parts.size > 1 ? unique(found) : found
    const zone = this.zoneOf(name)
    if (rrs.some((rr) => rr.type === 'CNAME')) return this.#row(name, 'any', { mode: 'ask' })
    const byType = Map.groupBy(rrs, (rr) => rr.type)
    const answers = [...byType].flatMap(([type, of]) => this.#answer(name, type, of))
    if (zone === undefined) return [...answers, ...this.#row(name, 'any', { mode: 'ask' })]
    const soa = this.#soaRecord(headerBytes + offsetOf(name, zone))
    if (name !== zone) return [...answers, ...this.#row(name, 'any', { authorities: [soa] })]
    const own = this.#row(name, types.SOA, { answers: [soa] })
    return [...answers, ...own, ...this.#row(name, 'any', { authorities: [soa] })]
  }

  #answer(name: string, type: Rr['type'], rrs: readonly Rr[]): AnswerRow[] {
    const answers = rrs.map((rr) => encodeRecord(headerBytes, rr, ttlSeconds))
    const rotate = (type === 'A' || type === 'AAAA') && answers.length > 1
    const additionals = type === 'SRV' ? this.#help(rrs) : []
    return this.#row(name, types[type], { answers, additionals, mode: rotate ? 'rotate' : 'fixed' })
  }

  /** The addresses of the targets, for those who would ask for them next. */
  #help(rrs: readonly Rr[]): Buffer[] {
    const targets = [...new Set(rrs.flatMap((rr) => (rr.type === 'SRV' ? [rr.target] : [])))]
    if (targets.length > helpMax) return []
    const isAddress = (rr: Rr): boolean => rr.type === 'A' || rr.type === 'AAAA'
    return targets.flatMap((target) =>
      unique(this.records(target))
        .filter(isAddress)
        .map((rr) => encodeRecord(target, rr, ttlSeconds)),
    )
  }

  /** The SOA that goes with a "no". */
  #soaRecord(owner: number): Buffer {
    return encodeRecord(owner, this.soa('').rr, ttlSeconds)
  }

  /** The table puts the zone's place in the question where this says 12. */
  #below(zone: string): AnswerRow[] {
    return this.#row(zone, 'below', { rcode: rcodes.NXDOMAIN, authorities: [this.#soaRecord(headerBytes)] })
  }

  #row(
    name: string,
    type: RowType,
    parts: {
      readonly mode?: AnswerRow['mode']
      readonly rcode?: number
      readonly answers?: readonly Buffer[]
      readonly authorities?: readonly Buffer[]
      readonly additionals?: readonly Buffer[]
    },
  ): AnswerRow[] {
    const wire = encodeName(name)
    // A name that DNS cannot express nobody can ask for.
    if (wire === undefined) return []
    const answers = fitting(parts.answers ?? [], bodyBytesMax)
    const { mode = 'fixed', rcode = rcodes.NOERROR, authorities = [], additionals = [] } = parts
    const help = answers.length < (parts.answers ?? []).length ? [] : fitting(additionals, bodyBytesMax - size(answers))
    const body = Buffer.concat([...answers, ...authorities, ...help])
    return [
      {
        name: wire,
        type,
        mode,
        rcode,
        answers: answers.length,
        authorities: authorities.length,
        additionals: help.length,
        body,
      },
    ]
  }
}

const size = (records: readonly Buffer[]): number => records.reduce((sum, record) => sum + record.length, 0)

/** More does not go into one message, whatever the transport: the rest is left out. */
function fitting(records: readonly Buffer[], bytesMax: number): readonly Buffer[] {
  let used = 0
  const end = records.findIndex((record) => {
    used += record.length
    return used > bytesMax
  })
  return end < 0 ? records : records.slice(0, end)
}

/** Bytes of the name before the zone: labels, each with its length. */
function offsetOf(name: string, zone: string): number {
  return name === zone ? 0 : Buffer.byteLength(name) - Buffer.byteLength(zone)
}

/** The same text for the same record. */
function textOf(rr: Rr): string {
  switch (rr.type) {
    case 'A':
    case 'AAAA':
      return rr.address
    case 'CNAME':
    case 'PTR':
    case 'NS':
      return `${rr.type} ${rr.target}`
    case 'SRV':
      return `${rr.priority} ${rr.weight} ${rr.port} ${rr.target}`
    default:
      return JSON.stringify(rr)
  }
}

function unique(rrs: readonly Rr[]): Rr[] {
  return [...new Map(rrs.map((rr) => [textOf(rr), rr])).values()]
}

const same = (a: readonly Rr[] | undefined, b: readonly Rr[]): boolean =>
  a !== undefined &&
  a.length === b.length &&
  a.every((rr, i) => textOf(rr) === textOf(b[i] ?? rr) && b[i] !== undefined)

/** 52 bits of what a row is: two rows of one name and type that differ have the same in one of 10^15 cases. */
function sumOf({ mode, rcode, answers, authorities, additionals, body }: AnswerRow): number {
  let [a, b] = [0x811c9dc5, 0x9747b28c]
  const add = (byte: number): void => {
    a = Math.imul(a ^ byte, 0x01000193)
    b = Math.imul(b ^ byte, 0x01000193) ^ (b >>> 15)
  }
  for (const part of [mode.length, rcode, answers, answers >> 8, authorities, additionals, additionals >> 8]) add(part)
  for (const byte of body) add(byte)
  return (a >>> 0) * 2 ** 20 + ((b >>> 0) & 0xfffff)
}
