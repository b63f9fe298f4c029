import koffi from 'koffi'
import type { Namespace } from '#kernel/netns.ts'

/** Frames put on a device and taken from it by a packet socket, with what a device may still have to do about them. */

const libc = koffi.load('libc.so.6')
const socket = libc.func('int socket(int domain, int type, int protocol)')
const bind = libc.func('int bind(int fd, const void *address, uint length)')
const setsockopt = libc.func('int setsockopt(int fd, int level, int name, const int *value, uint length)')
const send = libc.func('long send(int fd, const void *data, ulong size, int flags)')
const recv = libc.func('long recv(int fd, void *data, ulong size, int flags)')
const close = libc.func('int close(int fd)')

const family = 17
const raw = 3
const dontWait = 0x40
/** SOL_PACKET; PACKET_VNET_HDR: struct virtio_net_hdr before each frame; PACKET_IGNORE_OUTGOING. */
const level = 263
const options = { header: 15, ignoreOutgoing: 23 } as const
const again = 11
const noBuffer = 105
const headerBytes = 10

/** What is left to the device: to make the checksum at `at`, over everything from `start` on, and to cut the data up. */
export interface Left {
  readonly start: number
  readonly at: number
  /** Into pieces of so many bytes; `headers` goes before each. */
  readonly pieces?: { readonly kind: 'tcp4' | 'tcp6' | 'udp'; readonly bytes: number; readonly headers: number }
}
const pieceKinds = { tcp4: 1, tcp6: 4, udp: 5 } as const

export interface Taken {
  readonly frame: Buffer
  readonly left: Left | undefined
}

/** One device's frames. Those that were sent by it are not taken from it. */
export class Wire implements Disposable {
  readonly #fd: number
  readonly #in = Buffer.alloc(70_000)
  readonly #out = Buffer.alloc(70_000)

  constructor(namespace: Namespace, device: string) {
    const ifindex = namespace.ifindex(device)
    const fd = namespace.within(() => socket(family, raw, 0) as number)
    if (fd < 0) throw failed('open a packet socket')
    this.#fd = fd
    const one = [1]
    for (const option of Object.values(options))
      if (setsockopt(fd, level, option, one, 4) !== 0) throw failed(`set option ${option} of a packet socket`)
    const address = Buffer.alloc(20)
    address.writeUInt16LE(family, 0)
    // Of every protocol.
    address.writeUInt16BE(3, 2)
    address.writeInt32LE(ifindex, 4)
    if (bind(fd, address, address.length) !== 0) throw failed(`look at ${device}`)
  }

  send(frame: Uint8Array, left?: Left): void {
    const out = this.#out
    out.fill(0, 0, headerBytes)
    if (left !== undefined) {
      out[0] = 1
      out.writeUInt16LE(left.start, 6)
      out.writeUInt16LE(left.at - left.start, 8)
      if (left.pieces !== undefined) {
        out[1] = pieceKinds[left.pieces.kind]
        out.writeUInt16LE(left.pieces.headers, 2)
        out.writeUInt16LE(left.pieces.bytes, 4)
      }
    }
    out.set(frame, headerBytes)
    const sent = send(this.#fd, out, headerBytes + frame.length, 0) as number
    // A program on its way out has dropped it: that is counted.
    if (sent < 0 && koffi.errno() === noBuffer) return
    if (sent !== headerBytes + frame.length) throw failed(`send a frame of ${frame.length} bytes`)
  }

  /** The next that has come; undefined: none now. */
  take(): Taken | undefined {
    const length = recv(this.#fd, this.#in, this.#in.length, dontWait) as number
    if (length < 0) {
      if (koffi.errno() === again) return undefined
      throw failed('take a frame')
    }
    const frame = Buffer.from(this.#in.subarray(headerBytes, length))
    if (((this.#in[0] ?? 0) & 1) === 0) return { frame, left: undefined }
    const start = this.#in.readUInt16LE(6)
    return { frame, left: { start, at: start + this.#in.readUInt16LE(8) } }
  }

  [Symbol.dispose](): void {
    close(this.#fd)
  }
}

function failed(action: string): Error {
  const errno = koffi.errno()
  return new Error(`Cannot ${action}: errno ${errno}`)
}
