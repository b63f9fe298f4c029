import { existsSync, mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import type { CompiledObject } from '#datapath/compile.ts'
import { decodeAddress, encodeAddress } from '#datapath/maps/address.ts'
import { BpfMap } from '#kernel/bpf/map.ts'
import { BpfObject } from '#kernel/bpf/object.ts'
import { Link, openPin, type Program } from '#kernel/bpf/program.ts'
import { hasCode } from '#kernel/errno.ts'
import type { Fd } from '#kernel/fd.ts'
import { Namespace } from '#kernel/netns.ts'

/** An address and port of a Gateway, and the slot of the socket that it leads to. */
export interface Listening {
  readonly address: string
  readonly port: number
  readonly slot: number
}

const tcp = 6
const keySize = 20
/** struct listener of bpf/maps/listeners.h. */
function encodeListener({ address, port }: Pick<Listening, 'address' | 'port'>): Buffer {
  const out = Buffer.alloc(keySize)
  encodeAddress(address).copy(out)
  out.writeUInt16LE(port, 16)
  out.writeUInt16LE(tcp, 18)
  return out
}

const nameOf = ({ address, port }: Pick<Listening, 'address' | 'port'>): string => `${address} ${port}`

/**
 * Which of the engine's sockets an address and port of this node leads to: sk_lookup on the node's namespace. Link and
 * maps are pinned, so that all stays as it is when the agent dies; sockets stay while anybody has them open.
 */
export class Steering implements Disposable {
  readonly #listeners: BpfMap
  readonly #sockets: BpfMap

  private constructor(listeners: BpfMap, sockets: BpfMap) {
    this.#listeners = listeners
    this.#sockets = sockets
  }

  /** Throws with the verifier's words. Another program of ours that is attached already is exchanged in place. */
  static open(object: CompiledObject, pinDir: string, namespace?: Namespace): Steering {
    const mapDir = join(pinDir, 'maps')
    // Not among the datapath's own links: whoever comes back takes away what it does not know there.
    const linkDir = join(pinDir, 'gateway-links')
    for (const dir of [mapDir, linkDir]) mkdirSync(dir, { recursive: true, mode: 0o700 })
    using loading = BpfObject.open(object.name, object.elf, mapDir)
    loading.load()
    using program = loading.program('gateway_lookup')
    const path = join(linkDir, 'namespace-gateway_lookup')
    using own = namespace === undefined ? Namespace.own() : undefined
    const target = namespace ?? own
    if (target === undefined) throw new Error('Cannot attach gateway_lookup: there is no namespace')
    using known = Link.openPin(path)
    if (known === undefined || !updated(known, program)) {
      if (existsSync(path)) rmSync(path)
      using link = Link.attachNamespace(program, 'skLookup', target)
      link.pin(path)
    }
    return new Steering(openMap(mapDir, 'listeners_v1'), openMap(mapDir, 'listener_sockets_v1'))
  }

  setSocket(slot: number, socket: Fd): void {
    const key = Buffer.alloc(4)
    key.writeUInt32LE(slot)
    const value = Buffer.alloc(8)
    value.writeBigUInt64LE(BigInt(socket.number))
    this.#sockets.update(key, value)
  }

  /** What is in force. */
  listening(): Listening[] {
    return this.#listeners.entries().map(({ key, value }) => ({
      address: decodeAddress(key),
      port: key.readUInt16LE(16),
      slot: value.readUInt32LE(0),
    }))
  }

  /** New and changed ones are there when this returns, and no others. */
  set(wanted: readonly Listening[]): void {
    const present = new Map(this.listening().map((l) => [nameOf(l), l]))
    const names = new Set(wanted.map(nameOf))
    for (const listening of wanted) {
      if (present.get(nameOf(listening))?.slot === listening.slot) continue
      const value = Buffer.alloc(4)
      value.writeUInt32LE(listening.slot)
      this.#listeners.update(encodeListener(listening), value)
    }
    for (const [name, listening] of present) if (!names.has(name)) this.#listeners.delete(encodeListener(listening))
  }

  [Symbol.dispose](): void {
    this.#listeners[Symbol.dispose]()
    this.#sockets[Symbol.dispose]()
  }
}

/** False where the link is of a namespace that has gone. */
function updated(link: Link, program: Program): boolean {
  try {
    link.update(program)
    return true
  } catch (error) {
    if (hasCode(error, 'ENOLINK')) return false
    throw error
  }
}

function openMap(dir: string, name: string): BpfMap {
  const path = join(dir, name)
  const fd = openPin(path)
  if (fd === undefined) throw new Error(`Cannot open map ${name}: nothing is pinned at ${path}`)
  return new BpfMap(fd)
}
