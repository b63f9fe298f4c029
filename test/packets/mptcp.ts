import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import koffi from 'koffi'

/**
 * `mptcp.ts CGROUP server|client ADDRESS PORT`: one end of a multipath connection (RFC 8684) in the network namespace that it is
 * started in. Says `ready` when it listens or is connected and heard, and stays until it is killed, or its input ends.
 */
const [cgroup = '', role, address = '', port] = process.argv.slice(2)
writeFileSync(join(cgroup, 'cgroup.procs'), `${process.pid}`)

const libc = koffi.load('libc.so.6')
const call = {
  socket: libc.func('int socket(int domain, int type, int protocol)'),
  bind: libc.func('int bind(int fd, const void *to, uint length)'),
  listen: libc.func('int listen(int fd, int backlog)'),
  accept: libc.func('int accept(int fd, void *from, void *length)'),
  connect: libc.func('int connect(int fd, const void *to, uint length)'),
  send: libc.func('long send(int fd, const void *data, ulong size, int flags)'),
  receive: libc.func('long recv(int fd, void *data, ulong size, int flags)'),
}
const checked = (result: number, what: string): number => {
  if (result < 0) throw new Error(`Cannot ${what}: errno ${koffi.errno()}`)
  return result
}

const family = 2
const stream = 1
/** IPPROTO_MPTCP. */
const multipath = 262
const fd = checked(call.socket(family, stream, multipath), 'open a multipath socket')
const name = Buffer.alloc(16)
name.writeUInt16LE(family, 0)
name.writeUInt16BE(Number(port), 2)
name.set(address.split('.').map(Number), 4)
const byte = Buffer.alloc(1)
if (role === 'server') {
  checked(call.bind(fd, name, name.length), 'bind')
  checked(call.listen(fd, 8), 'listen')
  process.stdout.write('ready\n')
  const connection = checked(call.accept(fd, null, null), 'accept')
  checked(call.receive(connection, byte, 1, 0), 'hear the client')
  checked(call.send(connection, byte, 1, 0), 'answer')
} else {
  checked(call.connect(fd, name, name.length), 'connect')
  checked(call.send(fd, byte, 1, 0), 'ask')
  // Data both ways: from now on either side may open more paths.
  checked(call.receive(fd, byte, 1, 0), 'hear the server')
  process.stdout.write('ready\n')
}
process.stdin.resume()
