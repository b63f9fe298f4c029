import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { parseAddress } from '#base/net/address.ts'
import { checkResult, hasCode } from './errno.ts'
import { Fd } from './fd.ts'
import * as ffi from './ffi.ts'

/** Where ip-netns(8) keeps named namespaces too. */
export const namespaceDir = '/run/netns'

/** Makes a namespace by that name; the caller stays where it is. Throws `KernelError`, EEXIST where there is one. */
export function createNamespace(name: string): void {
  checkResult(ffi.netnsCreate(join(namespaceDir, name)), `create network namespace ${name}`)
}

/** Takes the name away; the namespace ends with its last process. Nothing to do is fine. */
export function deleteNamespace(name: string): void {
  try {
    checkResult(ffi.netnsDelete(join(namespaceDir, name)), `delete network namespace ${name}`)
  } catch (error) {
    if (!hasCode(error, 'ENOENT')) throw error
  }
}

export const namespaceExists = (name: string): boolean => existsSync(join(namespaceDir, name))

/** A network namespace held open. Everything that can be done inside one is done by a synchronous C call. */
export class Namespace extends Fd {
  readonly path: string

  private constructor(path: string) {
    super(checkResult(ffi.netnsOpen(path), `open network namespace ${path}`))
    this.path = path
  }

  /** A name below /run/netns, or a path. Throws `KernelError`, ENOENT where there is none. */
  static open(nameOrPath: string): Namespace {
    return new Namespace(nameOrPath.includes('/') ? nameOrPath : join(namespaceDir, nameOrPath))
  }

  /** The namespace that this thread is in: what `/proc/self` shows is the main thread's. */
  static own(): Namespace {
    return new Namespace('/proc/thread-self/ns/net')
  }

  /** Two descriptors are of one namespace when this is equal. */
  get id(): string {
    const out = new BigUint64Array(2)
    checkResult(ffi.netnsId(this.number, out), `identify network namespace ${this.path}`)
    return out.join(':')
  }

  /** Throws `KernelError`, ENODEV where there is no such device. */
  ifindex(device: string): number {
    return checkResult(ffi.ifindexOf(this.number, device), `find device ${device} in ${this.path}`)
  }

  /** True where the device is there. */
  has(device: string): boolean {
    try {
      return this.ifindex(device) > 0
    } catch (error) {
      if (hasCode(error, 'ENODEV')) return false
      throw error
    }
  }

  /** `net/ipv4/ip_forward`, as below /proc/sys. Throws `KernelError`. */
  setSysctl(path: string, value: string | number): void {
    checkResult(ffi.sysctlWrite(this.number, path, `${value}`), `set sysctl ${path} to ${value} in ${this.path}`)
  }

  getSysctl(path: string): string {
    const out = Buffer.alloc(256)
    const length = checkResult(
      ffi.sysctlRead(this.number, path, out, out.length),
      `read sysctl ${path} in ${this.path}`,
    )
    return out.toString('utf8', 0, length).trim()
  }

  /** The number that programs in the kernel know the namespace by (Linux 5.14). */
  get cookie(): bigint {
    const out = new BigUint64Array(1)
    checkResult(ffi.netnsCookie(this.number, out), `read the cookie of ${this.path}`)
    return out[0] ?? 0n
  }

  /**
   * Ends every TCP or UDP socket of the namespace whose peer is one of these; its owner gets ECONNABORTED. Resolves with how
   * many there were. Throws `KernelError`.
   */
  async destroySockets(protocol: 'TCP' | 'UDP', peers: readonly SocketPeer[]): Promise<number> {
    const targets = Buffer.concat(peers.map(encodeTarget))
    const result = await ffi.destroySockets(this.number, protocol === 'TCP' ? 6 : 17, targets, peers.length)
    return checkResult(result, `end ${protocol} sockets in ${this.path}`)
  }

  /** One whole Ethernet frame, out by the device. Throws `KernelError`, ENETDOWN where the device is down. */
  sendFrame(ifindex: number, frame: Uint8Array): void {
    checkResult(
      ffi.sendFrame(this.number, ifindex, frame, frame.length),
      `send a frame by device ${ifindex} in ${this.path}`,
    )
  }

  /** Checksum, segmentation and receive offloads of a device. */
  setOffloads(device: string, offloads: 'on' | 'off'): void {
    checkResult(
      ffi.offloads(this.number, device, offloads === 'on' ? 1 : 0),
      `turn offloads of ${device} ${offloads} in ${this.path}`,
    )
  }

  /**
   * A socket bound, and for TCP listening, in this namespace. Hand the number to `net.Server.listen({ fd })`, which then
   * owns it. Throws `KernelError`, EADDRINUSE where the port is taken.
   */
  listen(address: string, port: number, protocol: 'tcp' | 'udp' = 'tcp', backlog = 511): Fd {
    const bytes = addressBytes(address)
    const type = protocol === 'tcp' ? 1 : 2
    return new Fd(
      checkResult(
        ffi.listenSocket(this.number, bytes, bytes.length, port, type, backlog),
        `listen on ${address} port ${port}/${protocol} in ${this.path}`,
      ),
    )
  }

  /**
   * Runs `open` with this thread inside. For synchronous work that makes a socket and nothing else: anything
   * asynchronous begun there leaves Node's pool threads behind in this namespace.
   */
  within<T>(open: () => T): T {
    using home = Namespace.own()
    checkResult(ffi.netnsEnter(this.number), `enter network namespace ${this.path}`)
    try {
      return open()
    } finally {
      // To go on in the wrong namespace would be worse than to end.
      if (ffi.netnsEnter(home.number) !== 0) process.abort()
    }
  }
}

export interface SocketPeer {
  readonly address: string
  readonly port: number
}

function encodeTarget({ address, port }: SocketPeer): Buffer {
  const bytes = addressBytes(address)
  const mapped = bytes.length === 4 ? Buffer.concat([Buffer.from('00000000000000000000ffff', 'hex'), bytes]) : bytes
  return Buffer.concat([mapped, Buffer.from([port >> 8, port & 255])])
}

/** Network byte order, 4 or 16 bytes. Throws a RangeError for what is no address. */
export function addressBytes(text: string): Buffer {
  const address = parseAddress(text)
  if (address === undefined) throw new RangeError(`${JSON.stringify(text)} is not an IP address`)
  const hex = address.value.toString(16).padStart(address.family === 4 ? 8 : 32, '0')
  return Buffer.from(hex, 'hex')
}
