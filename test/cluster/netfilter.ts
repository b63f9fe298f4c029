import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { pathToFileURL } from 'node:url'
import { RawNetlinkSocket } from 'netlink'

/** The kernel's own answer to "which rules are there": tables of nftables by netlink, of iptables by /proc. */
const netfilter = 12
const nftables = 10
const message = { error: 2, done: 3, batchBegin: 16, batchEnd: 17 } as const
const newTable = (nftables << 8) | 0
const getTable = (nftables << 8) | 1
const flag = { request: 0x1, ack: 0x4, dump: 0x300, create: 0x400 } as const
const headerBytes = 16
/** `struct nfgenmsg`: family, version, and a number in network order. */
const aboutBytes = 4
const tableName = 1
const ipv4 = 2
/** A kernel without nftables: nobody can have made a rule. */
const notThere: ReadonlySet<number> = new Set([22 /* EINVAL */, 93 /* EPROTONOSUPPORT */, 95 /* EOPNOTSUPP */])

/** Tables in a network namespace that has a name (nftables' and iptables', IPv4's and IPv6's). Rules are in tables only. */
export function tablesIn(netns: string): string[] {
  return run('nsenter', `--net=/run/netns/${netns}`)
}

/** The same after a table has been made in a namespace that ends with the question: shows that one would be seen; `no nftables here` alone where the kernel has none. */
export function tablesAfterOne(): string[] {
  return run('unshare', '--net', 'one')
}

function run(program: string, where: string, ...args: string[]): string[] {
  const command = [where, process.execPath, '--disable-warning=ExperimentalWarning', import.meta.filename, ...args]
  return JSON.parse(execFileSync(program, command, { encoding: 'utf8', timeout: 30_000 })) as string[]
}

function encode(type: number, flags: number, family: number, subsystem: number, name?: string): Buffer {
  const text = name === undefined ? Buffer.alloc(0) : Buffer.from(`${name}\0`)
  const attribute = text.length === 0 ? Buffer.alloc(0) : Buffer.alloc(Math.ceil((4 + text.length) / 4) * 4)
  if (text.length > 0) {
    attribute.writeUInt16LE(4 + text.length, 0)
    attribute.writeUInt16LE(tableName, 2)
    text.copy(attribute, 4)
  }
  const head = Buffer.alloc(headerBytes + aboutBytes)
  head.writeUInt32LE(head.length + attribute.length, 0)
  head.writeUInt16LE(type, 4)
  head.writeUInt16LE(flags, 6)
  head.writeUInt8(family, headerBytes)
  head.writeUInt16BE(subsystem, headerBytes + 2)
  return Buffer.concat([head, attribute])
}

/** Each message of an answer until it is over. Throws with the number of the kernel's error; zero is none. */
async function ask(sent: Buffer, take: (type: number, body: Buffer) => void): Promise<void> {
  const socket = new RawNetlinkSocket(netfilter)
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  socket.on('error', reject)
  socket.on('message', (bytes) => {
    for (let at = 0; at + headerBytes <= bytes.length; ) {
      const length = bytes.readUInt32LE(at)
      const type = bytes.readUInt16LE(at + 4)
      const body = bytes.subarray(at + headerBytes, at + length)
      if (type === message.done) resolve()
      else if (type !== message.error) take(type, body)
      else if (body.readInt32LE(0) === 0) resolve()
      else reject(Object.assign(new Error(`netlink answered ${body.readInt32LE(0)}`), { number: -body.readInt32LE(0) }))
      at += Math.ceil(length / 4) * 4
    }
  })
  socket.send(sent)
  await promise.finally(() => socket.close())
}

async function nftTables(): Promise<string[]> {
  const names: string[] = []
  await unlessAbsent(() =>
    ask(encode(getTable, flag.request | flag.dump, 0, 0), (type, body) => {
      if (type !== newTable) return
      for (let at = aboutBytes; at + 4 <= body.length; ) {
        const length = body.readUInt16LE(at)
        if (body.readUInt16LE(at + 2) === tableName) names.push(`nft ${body.toString('utf8', at + 4, at + length - 1)}`)
        at += Math.max(4, Math.ceil(length / 4) * 4)
      }
    }),
  )
  return names
}

/** False: this kernel has no nftables. */
async function unlessAbsent(work: () => Promise<void>): Promise<boolean> {
  try {
    await work()
    return true
  } catch (error) {
    if (notThere.has((error as { number?: number }).number ?? 0)) return false
    throw error
  }
}

function iptablesTables(): string[] {
  return ['ip', 'ip6'].flatMap((family) => {
    try {
      const names = readFileSync(`/proc/net/${family}_tables_names`, 'utf8')
      return names
        .split('\n')
        .filter((name) => name !== '')
        .map((name) => `${family}tables ${name}`)
    } catch (error) {
      // The kernel has no iptables of that family.
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
      throw error
    }
  })
}

/** Inside the namespace that is asked about. */
async function main(args: readonly string[]): Promise<void> {
  if (args.includes('one')) {
    const table = encode(newTable, flag.request | flag.create | flag.ack, ipv4, 0, 'seen')
    const batch = [encode(message.batchBegin, flag.request, 0, nftables), table]
    const whole = Buffer.concat([...batch, encode(message.batchEnd, flag.request, 0, nftables)])
    if (!(await unlessAbsent(() => ask(whole, () => {})))) return void process.stdout.write('["no nftables here"]\n')
  }
  process.stdout.write(`${JSON.stringify([...(await nftTables()), ...iptablesTables()])}\n`)
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) await main(process.argv.slice(2))
