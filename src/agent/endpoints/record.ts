import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

/** What the agent remembers of a sandbox while it is on this node; a restart begins with these. */
export interface EndpointRecord {
  readonly containerId: string
  /** Device in the pod. */
  readonly ifname: string
  readonly netns: string
  readonly pod: { readonly namespace: string; readonly name: string; readonly uid: string }
  readonly addresses: readonly string[]
  readonly hostDevice: string
  readonly mac: string
  /** Host end's index; 0 while the device is only being made. */
  readonly ifindex: number
  /** Milliseconds since the epoch: of two sandboxes with one address, the later has it. */
  readonly createdAt: number
}

/** Same sandbox and device, same text. */
export const recordName = ({ containerId, ifname }: Pick<EndpointRecord, 'containerId' | 'ifname'>): string =>
  `${containerId}-${ifname}`

/** Records, one file each, below a directory that a reboot empties: the namespaces do not survive it either. */
export class Records {
  readonly #dir: string
  readonly #records = new Map<string, EndpointRecord>()

  /** Reads what is there. A file that is not a record (a crash while it was written) is taken away. */
  constructor(dir: string) {
    this.#dir = dir
    mkdirSync(dir, { recursive: true, mode: 0o700 })
    for (const file of readdirSync(dir)) {
      const record = file.endsWith('.json') ? parseRecord(readFileSync(join(dir, file), 'utf8')) : undefined
      if (record === undefined) rmSync(join(dir, file), { force: true })
      else this.#records.set(recordName(record), record)
    }
  }

  get(containerId: string, ifname: string): EndpointRecord | undefined {
    return this.#records.get(recordName({ containerId, ifname }))
  }

  /** The oldest first. */
  list(): EndpointRecord[] {
    return [...this.#records.values()].toSorted((a, b) => a.createdAt - b.createdAt)
  }

  /** Whole or not at all, whenever the agent dies. */
  put(record: EndpointRecord): void {
    const path = this.#path(recordName(record))
    writeFileSync(`${path}.new`, JSON.stringify(record), { mode: 0o600 })
    renameSync(`${path}.new`, path)
    this.#records.set(recordName(record), record)
  }

  remove(record: EndpointRecord): void {
    const path = this.#path(recordName(record))
    if (existsSync(path)) rmSync(path)
    this.#records.delete(recordName(record))
  }

  #path(name: string): string {
    return join(this.#dir, `${name}.json`)
  }
}

function parseRecord(text: string): EndpointRecord | undefined {
  try {
    const value = JSON.parse(text) as Partial<EndpointRecord>
    const complete =
      typeof value.containerId === 'string' &&
      typeof value.ifname === 'string' &&
      typeof value.hostDevice === 'string' &&
      typeof value.ifindex === 'number' &&
      Array.isArray(value.addresses)
    return complete ? (value as EndpointRecord) : undefined
  } catch {
    return undefined
  }
}
