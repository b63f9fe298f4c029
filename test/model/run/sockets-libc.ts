import { constants } from 'node:os'
import koffi from 'koffi'
import type { Namespace } from '#kernel/netns.ts'
import { addressBytes, addressText } from '../address.ts'
import { type End, endText } from './sockets-rules.ts'

/** Socket calls one by one and at once, as a process makes them: Node's own sockets ask the kernel when they please. */

const libc = koffi.load('libc.so.6')
const call = {
  socket: libc.func('int socket(int domain, int type, int protocol)'),
  bind: libc.func('int bind(int fd, const void *to, uint length)'),
  listen: libc.func('int listen(int fd, int backlog)'),
  accept: libc.func('int accept4(int fd, void *from, void *length, int flags)'),
  connect: libc.func('int connect(int fd, const void *to, uint length)'),
  send: libc.func('long sendto(int fd, const void *data, ulong size, int flags, const void *to, uint length)'),
  receive: libc.func('long recvfrom(int fd, void *data, ulong size, int flags, void *from, void *length)'),
  sendMessage: libc.func('long sendmsg(int fd, const void *message, int flags)'),
  receiveMessage: libc.func('long recvmsg(int fd, void *message, int flags)'),
  nameOf: libc.func('int getsockname(int fd, void *name, void *length)'),
  peerOf: libc.func('int getpeername(int fd, void *name, void *length)'),
  get: libc.func('int getsockopt(int fd, int level, int name, void *value, void *length)'),
  set: libc.func('int setsockopt(int fd, int level, int name, const void *value, uint length)'),
  poll: libc.func('int poll(void *fds, ulong count, int milliseconds)'),
  close: libc.func('int close(int fd)'),
}

const families = { 4: 2, 6: 10 } as const
const types = { TCP: 1, UDP: 2 } as const
const closeOnExec = 0o2000000
const level = { socket: 1, ipv6: 41 } as const
const option = {
  error: 4,
  linger: 13,
  receiveTimeout: 20,
  sendTimeout: 21,
  only6: 26,
  packetInfo: 49,
  transparent: 75,
} as const
const packetInfo = 50
const unspecified = 0
const nothing = Buffer.alloc(0)

export type SocketFamily = 4 | 6

/** `ECONNREFUSED` for its number. */
const errorNames = new Map(Object.entries(constants.errno).map(([name, number]) => [number, name]))
const lastError = (): string => {
  const number = koffi.errno()
  return errorNames.get(number) ?? `errno ${number}`
}

function checked(result: number, what: string): number {
  if (result < 0) throw new Error(`Cannot ${what}: ${lastError()}`)
  return result
}

const v4Prefix = '::ffff:'
const mapped = (bytes: Uint8Array): Buffer => Buffer.concat([Buffer.from('00000000000000000000ffff', 'hex'), bytes])
const bytes16 = (address: string): Buffer => {
  if (address.startsWith(v4Prefix)) return mapped(addressBytes(address.slice(v4Prefix.length)))
  return address.includes(':') ? Buffer.from(addressBytes(address)) : mapped(addressBytes(address))
}
const text16 = (bytes: Buffer): string =>
  bytes.subarray(0, 12).equals(mapped(nothing)) ? v4Prefix + addressText(bytes.subarray(12, 16)) : addressText(bytes)

const names = new Map<string, Buffer>()

/** struct sockaddr_in or sockaddr_in6. The kernel must not write into it, which the callers look after. */
function encode(family: SocketFamily, end: End): Buffer {
  const key = `${family} ${endText(end)}`
  const known = names.get(key)
  if (known !== undefined) return known
  const out = Buffer.alloc(family === 4 ? 16 : 28)
  out.writeUInt16LE(families[family], 0)
  out.writeUInt16BE(end.port, 2)
  if (family === 4) out.set(addressBytes(end.address), 4)
  else bytes16(end.address).copy(out, 8)
  names.set(key, out)
  return out
}

function decode(name: Buffer): End {
  const port = name.readUInt16BE(2)
  if (name.readUInt16LE(0) === families[4]) return { address: addressText(name.subarray(4, 8)), port }
  return { address: text16(name.subarray(8, 24)), port }
}

const name = Buffer.alloc(28)
const nameLength = Buffer.alloc(4)
const withName = (): Buffer => {
  nameLength.writeUInt32LE(name.length)
  return nameLength
}
const byte = Buffer.alloc(1)
/** struct timeval. */
const patience = Buffer.alloc(16)
patience.writeBigInt64LE(5n)

export interface OpenOptions {
  readonly family: SocketFamily
  readonly protocol: 'TCP' | 'UDP'
}

/** A socket of that namespace, and of the cgroup that this process is in now. Calls wait. */
export class Socket implements Disposable {
  readonly fd: number
  readonly family: SocketFamily

  private constructor(fd: number, family: SocketFamily) {
    this.fd = fd
    this.family = family
  }

  static open(namespace: Namespace, { family, protocol }: OpenOptions): Socket {
    const type = types[protocol] | closeOnExec
    const fd = namespace.within(() => checked(call.socket(families[family], type, 0), 'open a socket'))
    // Whatever is waited for has come already; a call that would wait for ever says EAGAIN.
    for (const which of [option.receiveTimeout, option.sendTimeout])
      checked(call.set(fd, level.socket, which, patience, patience.length), 'limit how long a call may take')
    return new Socket(fd, family)
  }

  /** The name of the error, or nothing. */
  bind(end: End): string | undefined {
    const to = encode(this.family, end)
    return call.bind(this.fd, to, to.length) === 0 ? undefined : lastError()
  }

  connect(end: End): string | undefined {
    const to = encode(this.family, end)
    return call.connect(this.fd, to, to.length) === 0 ? undefined : lastError()
  }

  /** A datagram socket's peer is forgotten. */
  disconnect(): void {
    const to = Buffer.alloc(16)
    to.writeUInt16LE(unspecified)
    checked(call.connect(this.fd, to, to.length), 'disconnect')
  }

  /** One byte, to the peer or to an address. */
  send(end?: End): string | undefined {
    const to = end === undefined ? null : encode(this.family, end)
    return call.send(this.fd, byte, 1, 0, to, to?.length ?? 0) === 1 ? undefined : lastError()
  }

  /** Who sent what has come, as the socket is told it; or the name of the error, EAGAIN where nothing comes. */
  receive(): End | string {
    if (call.receive(this.fd, byte, 1, 0, name, withName()) < 0) return lastError()
    return decode(name)
  }

  get peer(): End {
    checked(call.peerOf(this.fd, name, withName()), 'ask for the peer')
    return decode(name)
  }

  get own(): End {
    checked(call.nameOf(this.fd, name, withName()), 'ask for the own name')
    return decode(name)
  }

  accept(): Socket {
    return new Socket(checked(call.accept(this.fd, null, null, closeOnExec), 'accept'), this.family)
  }

  /** What has become of it, told once; nothing where nothing has. */
  get error(): string | undefined {
    nameLength.writeUInt32LE(4)
    checked(call.get(this.fd, level.socket, option.error, name, nameLength), 'ask for the error')
    const number = name.readInt32LE(0)
    return number === 0 ? undefined : errorNames.get(number)
  }

  /** Ends a connection by a reset: no port is kept for a minute. */
  reset(): void {
    const linger = Buffer.alloc(8)
    linger.writeInt32LE(1)
    call.set(this.fd, level.socket, option.linger, linger, linger.length)
    this[Symbol.dispose]()
  }

  [Symbol.dispose](): void {
    call.close(this.fd)
  }

  #set(number: number, value: number): void {
    const out = Buffer.alloc(4)
    out.writeInt32LE(value)
    checked(call.set(this.fd, level.ipv6, number, out, out.length), `set option ${number}`)
  }

  /** At any address of the namespace, of both families, by this port. It can be told which address was asked. */
  static listen(namespace: Namespace, protocol: 'TCP' | 'UDP', port: number): Socket {
    const socket = Socket.open(namespace, { family: 6, protocol })
    socket.#set(option.only6, 0)
    socket.#set(option.transparent, 1)
    if (protocol === 'UDP') socket.#set(option.packetInfo, 1)
    const error = socket.bind({ address: '::', port })
    if (error !== undefined) throw new Error(`Cannot listen on ${port}/${protocol}: ${error}`)
    if (protocol === 'TCP') checked(call.listen(socket.fd, 64), 'listen')
    return socket
  }
}

/** struct msghdr with one name, one byte and room for an address, and pointers to them. */
const control = Buffer.alloc(40)
const vector = Buffer.alloc(16)
const message = Buffer.alloc(56)
vector.writeBigUInt64LE(koffi.address(byte), 0)
vector.writeBigUInt64LE(1n, 8)

function prepareMessage(): void {
  message.writeBigUInt64LE(koffi.address(name), 0)
  message.writeUInt32LE(name.length, 8)
  message.writeBigUInt64LE(koffi.address(vector), 16)
  message.writeBigUInt64LE(1n, 24)
  message.writeBigUInt64LE(koffi.address(control), 32)
  message.writeBigUInt64LE(BigInt(control.length), 40)
}

/** Takes a datagram and says to which address it came; the answer comes from there, and goes where it came from. */
export function echo(socket: Socket, port: number, answers: boolean): End {
  prepareMessage()
  checked(call.receiveMessage(socket.fd, message, 0), 'receive a datagram')
  if (control.readInt32LE(8) !== level.ipv6 || control.readInt32LE(12) !== packetInfo)
    throw new Error('Cannot say to which address a datagram came')
  const address = text16(control.subarray(16, 32))
  if (answers) {
    // By whatever device leads there.
    control.writeUInt32LE(0, 32)
    message.writeBigUInt64LE(40n, 40)
    checked(call.sendMessage(socket.fd, message, 0), `answer from ${address} ${port}`)
  }
  return { address, port }
}

/** Sockets that are waited for together. */
export class Poll {
  readonly #sockets: readonly Socket[]
  readonly #fds: Buffer

  constructor(sockets: readonly Socket[]) {
    this.#sockets = sockets
    this.#fds = Buffer.alloc(8 * sockets.length)
    for (const [i, socket] of sockets.entries()) {
      this.#fds.writeInt32LE(socket.fd, 8 * i)
      this.#fds.writeInt16LE(1, 8 * i + 4)
    }
  }

  /** Which of them have something. */
  ready(milliseconds: number): number[] {
    if (checked(call.poll(this.#fds, this.#sockets.length, milliseconds), 'poll') === 0) return []
    return this.#sockets.flatMap((_, i) => (this.#fds.readInt16LE(8 * i + 6) === 0 ? [] : [i]))
  }
}
