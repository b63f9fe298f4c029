/** One member of an archive. Directories end in `/`. */
export type TarEntry =
  | { readonly path: string; readonly type: 'file'; readonly mode: number; readonly data: Uint8Array }
  | { readonly path: string; readonly type: 'directory'; readonly mode: number }
  | { readonly path: string; readonly type: 'symlink'; readonly target: string }

const block = 512
const typeFlag = { file: '0', symlink: '2', directory: '5' } as const

/**
 * A POSIX ustar archive (IEEE 1003.1) of the entries, in their order; owner 0:0 and time 0, so that equal input gives
 * equal bytes and so equal digests. Throws a RangeError for a path that cannot be cut at a slash into 155 and 100 bytes,
 * and for a link's target of more than 100.
 */
export function writeTar(entries: readonly TarEntry[]): Uint8Array {
  const parts: Uint8Array[] = []
  for (const entry of entries) {
    const data = entry.type === 'file' ? entry.data : new Uint8Array()
    parts.push(header(entry, data.length), data, new Uint8Array((block - (data.length % block)) % block))
  }
  parts.push(new Uint8Array(2 * block))
  return Buffer.concat(parts)
}

const nameMax = 100
const prefixMax = 155

/** A long path goes into two fields, cut at a slash that belongs to neither. */
function splitPath(path: string): { readonly prefix: string; readonly name: string } {
  if (Buffer.byteLength(path) <= nameMax) return { prefix: '', name: path }
  for (let cut = path.indexOf('/'); cut >= 0; cut = path.indexOf('/', cut + 1)) {
    const [prefix, name] = [path.slice(0, cut), path.slice(cut + 1)]
    if (name !== '' && Buffer.byteLength(name) <= nameMax && Buffer.byteLength(prefix) <= prefixMax)
      return { prefix, name }
  }
  throw new RangeError(
    `Cannot archive ${JSON.stringify(path)}: longer than ${nameMax} bytes, or ${prefixMax} before a slash`,
  )
}

function header(entry: TarEntry, size: number): Uint8Array {
  const out = Buffer.alloc(block)
  const { prefix, name } = splitPath(entry.path)
  if (entry.type === 'symlink' && Buffer.byteLength(entry.target) > nameMax)
    throw new RangeError(`Cannot archive a link to ${JSON.stringify(entry.target)}: longer than ${nameMax} bytes`)
  const octal = (value: number, width: number) => `${value.toString(8).padStart(width - 1, '0')}\0`
  out.write(name, 0)
  out.write(octal(entry.type === 'symlink' ? 0o777 : entry.mode, 8), 100)
  out.write(octal(0, 8), 108)
  out.write(octal(0, 8), 116)
  out.write(octal(size, 12), 124)
  out.write(octal(0, 12), 136)
  out.write('        ', 148)
  out.write(typeFlag[entry.type], 156)
  if (entry.type === 'symlink') out.write(entry.target, 157)
  out.write('ustar\0', 257)
  out.write('00', 263)
  out.write(prefix, 345)
  const sum = out.reduce((a, b) => a + b, 0)
  out.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148)
  return out
}
