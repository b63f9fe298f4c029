import { createPrivateKey as keyOf, X509Certificate } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Certificate, Fault, Listener } from '#gateway/engine.ts'
import { type Cli, EngineError, payloadBytesMax } from './cli.ts'
import { type Capacity, crtListPath, type TlsClass, tlsClasses } from './config.ts'
import { hashOf } from './program.ts'

/** One bind of HAProxy with a list of certificates of its own. */
export interface Slot {
  readonly kind: TlsClass
  readonly number: number
}

/** Listeners that share addresses and a port, and so a slot. */
interface Group {
  readonly key: string
  readonly kind: TlsClass
  readonly listeners: readonly Listener[]
}

/** Lines of a slot's list by certificate file; the first of a `lax` slot is its default. */
interface SlotContent {
  /** File and the names that choose it. */
  readonly lines: ReadonlyMap<string, string>
  readonly pems: ReadonlyMap<string, string>
  readonly defaultPem: string
}

/** What HAProxy takes as one certificate: leaf, chain and key, without the empty line that would end a command. */
const bundleOf = ({ certPem, keyPem }: Certificate): string =>
  `${certPem}\n${keyPem}`
    .split(/\r?\n/)
    .map((line) => line.trim())
    .filter((line) => line !== '')
    .join('\n')

/** Throws with a sentence for a condition: not PEM, key and certificate that do not belong together, too large. */
function checkCertificate(certificate: Certificate): void {
  const leaf = new X509Certificate(certificate.certPem)
  if (!leaf.checkPrivateKey(keyOf(certificate.keyPem))) throw new Error('the key is not the certificate’s')
  if (Buffer.byteLength(bundleOf(certificate)) > payloadBytesMax - 200) throw new Error('the chain is too large')
}

/**
 * TLS listeners in HAProxy's slots: which group has which slot, what is in its list, and the commands that make it so.
 * Certificates are files by name and content at run time; on disk they are only read when a process starts.
 */
export class Certificates {
  readonly #root: string
  readonly #dir: string
  readonly #placeholder: string
  readonly #slots = new Map<string, Slot>()
  #content = new Map<string, SlotContent>()
  /** What HAProxy has: content by file, lines by list. */
  #files = new Map<string, string>()
  #lists = new Map<string, Map<string, string>>()
  #capacity: Capacity['tlsSlots'] = { strict: 0, lax: 0 }

  /** `placeholder` stands where a slot has no certificate yet. */
  constructor(dir: string, placeholder: string) {
    this.#root = dir
    this.#dir = join(dir, 'tls')
    this.#placeholder = placeholder
  }

  set capacity(capacity: Capacity['tlsSlots']) {
    this.#capacity = capacity
  }

  /** Slot of a listener with TLS, by its id; for steering. */
  slotOf(listener: Listener): Slot | undefined {
    return this.#slots.get(groupKey(listener))
  }

  /** Plans slots and their content. `enough` is false where there are too few slots, with what would do. */
  plan(
    listeners: Iterable<Listener>,
    faults: Map<string, Fault>,
  ): { readonly enough: boolean; readonly capacity: Capacity['tlsSlots'] } {
    const groups = groupsOf(listeners, faults)
    const keys = new Set(groups.map((g) => g.key))
    for (const key of [...this.#slots.keys()]) if (!keys.has(key)) this.#slots.delete(key)
    const wanted: Record<TlsClass, number> = { strict: 0, lax: 0 }
    let enough = true
    for (const { key, kind } of groups) {
      wanted[kind]++
      if (this.#slots.get(key)?.kind === kind) continue
      this.#slots.delete(key)
      const number = this.#freeSlot(kind)
      if (number === undefined) enough = false
      else this.#slots.set(key, { kind, number })
    }
    const capacity = { ...this.#capacity }
    for (const kind of tlsClasses)
      while (capacity[kind] < wanted[kind]) capacity[kind] = Math.max(4, capacity[kind] * 2)
    if (!enough) return { enough, capacity }
    this.#content = new Map(
      groups.flatMap((group) => {
        const slot = this.#slots.get(group.key)
        return slot === undefined ? [] : [[this.#listPath(slot), this.#contentOf(group)] as const]
      }),
    )
    return { enough, capacity: this.#capacity }
  }

  #freeSlot(kind: TlsClass): number | undefined {
    const taken = new Set([...this.#slots.values()].filter((s) => s.kind === kind).map((s) => s.number))
    for (let i = 0; i < this.#capacity[kind]; i++) if (!taken.has(i)) return i
    return undefined
  }

  #listPath = (slot: Slot): string => crtListPath(this.#root, slot.kind, slot.number)
  #defaultFile = (list: string): string => list.replace(/\.list$/, '.pem')

  #contentOf(group: Group): SlotContent {
    const lines = new Map<string, string>()
    const pems = new Map<string, string>()
    let defaultPem: string | undefined
    for (const listener of group.listeners) {
      for (const certificate of listener.tls?.certificates ?? []) {
        const file = join(this.#dir, `${hashOf(certificate.id)}-${hashOf(listener.hostname ?? '')}.pem`)
        pems.set(file, bundleOf(certificate))
        lines.set(file, listener.hostname === undefined ? file : `${file} ${listener.hostname}`)
        defaultPem ??= bundleOf(certificate)
      }
    }
    return { lines, pems, defaultPem: defaultPem ?? this.#placeholder }
  }

  /** Everything on disk, for a process that is about to start. */
  write(): void {
    mkdirSync(this.#dir, { recursive: true, mode: 0o700 })
    this.#files = new Map()
    this.#lists = new Map()
    const file = (path: string, text: string): void => {
      writeFileSync(path, `${text}\n`, { mode: 0o600 })
      this.#files.set(path, text)
    }
    for (const kind of tlsClasses)
      for (let number = 0; number < this.#capacity[kind]; number++) {
        const list = this.#listPath({ kind, number })
        const content = this.#content.get(list)
        file(this.#defaultFile(list), content?.defaultPem ?? this.#placeholder)
        for (const [path, pem] of content?.pems ?? []) file(path, pem)
        const lines = new Map(content?.lines ?? [])
        this.#lists.set(list, lines)
        writeFileSync(list, `${[this.#defaultFile(list), ...lines.values()].join('\n')}\n`, { mode: 0o600 })
      }
  }

  /** Reads what a process of an earlier agent has. Contents are compared by fingerprint. */
  async adopt(cli: Cli): Promise<void> {
    this.#files = new Map()
    this.#lists = new Map()
    for (const kind of tlsClasses)
      for (let number = 0; number < this.#capacity[kind]; number++) {
        const list = this.#listPath({ kind, number })
        const reply = await cli.command(`show ssl crt-list ${list}`)
        const lines = reply.split('\n').filter((line) => line !== '' && !line.startsWith('#'))
        this.#lists.set(
          list,
          new Map(lines.flatMap((l) => (fileOf(l) === this.#defaultFile(list) ? [] : [[fileOf(l), l]]))),
        )
        for (const path of lines.map(fileOf)) await this.#adoptFile(cli, path)
      }
  }

  async #adoptFile(cli: Cli, path: string): Promise<void> {
    const shown = await cli.command(`show ssl cert ${path}`)
    const fingerprint = /^SHA1 FingerPrint: ([0-9A-F]+)$/m.exec(shown)?.[1] ?? ''
    const wanted = this.#wantedPem(path)
    // Another certificate than the one that is wanted is as good as none: it is written again.
    const same = wanted !== undefined && fingerprintOf(wanted) === fingerprint
    this.#files.set(path, same ? wanted : '')
  }

  #wantedPem(path: string): string | undefined {
    for (const [list, { pems, defaultPem }] of this.#content) {
      const pem = this.#defaultFile(list) === path ? defaultPem : pems.get(path)
      if (pem !== undefined) return pem
    }
    return undefined
  }

  /** Brings HAProxy to the plan: new certificates before what points to them, old ones last. */
  async apply(cli: Cli): Promise<void> {
    for (const [list, content] of this.#content) {
      await this.#setFile(cli, this.#defaultFile(list), content.defaultPem)
      for (const [path, pem] of content.pems) await this.#setFile(cli, path, pem)
      const present = this.#lists.get(list) ?? new Map<string, string>()
      this.#lists.set(list, present)
      for (const [path, line] of content.lines) {
        if (present.has(path)) continue
        const reply = await cli.payload(`add ssl crt-list ${list}`, [line])
        if (!reply.includes('Success!')) throw new EngineError(`HAProxy did not add a certificate to ${list}: ${reply}`)
        present.set(path, line)
      }
    }
    for (const [list, present] of this.#lists) {
      const wanted = this.#content.get(list)?.lines
      for (const path of [...present.keys()]) {
        if (wanted?.has(path)) continue
        const reply = await cli.command(`del ssl crt-list ${list} ${path}`)
        if (!reply.includes('deleted'))
          throw new EngineError(`HAProxy did not take a certificate out of ${list}: ${reply}`)
        present.delete(path)
      }
    }
    const used = new Set([...this.#lists].flatMap(([list, lines]) => [this.#defaultFile(list), ...lines.keys()]))
    for (const path of [...this.#files.keys()]) {
      if (used.has(path)) continue
      const reply = await cli.command(`del ssl cert ${path}`)
      if (!reply.includes('deleted')) throw new EngineError(`HAProxy did not delete certificate ${path}: ${reply}`)
      this.#files.delete(path)
    }
  }

  async #setFile(cli: Cli, path: string, pem: string): Promise<void> {
    const now = this.#files.get(path)
    if (now === pem) return
    if (now === undefined) {
      const made = await cli.command(`new ssl cert ${path}`)
      if (!made.includes('New empty certificate store')) throw new EngineError(`HAProxy made no certificate: ${made}`)
      this.#files.set(path, '')
    }
    const set = await cli.payload(`set ssl cert ${path}`, pem.split('\n'))
    if (!/Transaction (created|updated)/.test(set)) {
      await cli.command(`abort ssl cert ${path}`)
      throw new EngineError(`HAProxy did not take a certificate: ${set}`)
    }
    const committed = await cli.command(`commit ssl cert ${path}`)
    if (!committed.includes('Success!')) throw new EngineError(`HAProxy did not commit a certificate: ${committed}`)
    this.#files.set(path, pem)
  }
}

const fileOf = (line: string): string => line.split(' ')[0] ?? line

function fingerprintOf(pem: string): string {
  return new X509Certificate(pem).fingerprint.replaceAll(':', '')
}

/** Why nothing listens there at all: to serve without what was asked for would be worse. */
function unsupported({ protocol, tls }: Listener): string | undefined {
  if (tls?.mode === 'passthrough' || protocol === 'TLS') return 'TLS is not passed through by this engine'
  if (tls?.clientAuthority !== undefined) return 'clients’ certificates are not verified by this engine'
  return undefined
}

const groupKey = ({ addresses, port }: Listener): string => `${addresses.toSorted().join(' ')} ${port}`

function groupsOf(listeners: Iterable<Listener>, faults: Map<string, Fault>): Group[] {
  const groups = new Map<string, Listener[]>()
  for (const listener of listeners) {
    const refused = unsupported(listener)
    if (refused !== undefined) faults.set(listener.id, { of: 'listener', message: refused })
    if (listener.tls?.mode !== 'terminate' || refused !== undefined) continue
    const certificates = listener.tls.certificates.filter((certificate) => {
      try {
        checkCertificate(certificate)
        return true
      } catch (error) {
        const message = `certificate ${certificate.id}: ${error instanceof Error ? error.message : String(error)}`
        faults.set(listener.id, { of: 'listener', message })
        return false
      }
    })
    if (certificates.length === 0) continue
    const list = groups.get(groupKey(listener)) ?? []
    list.push({ ...listener, tls: { ...listener.tls, certificates } })
    groups.set(groupKey(listener), list)
  }
  return [...groups].map(([key, members]) => ({
    key,
    listeners: members,
    kind: members.every((l) => l.hostname !== undefined && !l.hostname.startsWith('*.')) ? 'strict' : 'lax',
  }))
}
