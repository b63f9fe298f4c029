import type { Backend, Endpoint } from '#gateway/engine.ts'
import { type Cli, EngineError } from './cli.ts'
import {
  type Capacity,
  hostPort,
  type PoolClass,
  poolClasses,
  poolName,
  type ServerLine,
  serverName,
  serverOptions,
} from './config.ts'
import { hashOf } from './program.ts'

interface Pool {
  readonly name: string
  readonly kind: PoolClass
  /** Hash of the backend's id: what the map of names says of the pool. */
  readonly of: string
}

const poolClassOf = (backend: Backend): PoolClass => backend.protocol

/** A server that gets no new requests and goes when it has none left. */
interface Leaving {
  readonly pool: string
  readonly server: string
}

/**
 * The pools of HAProxy's configuration, which of our backends has which, and the servers in them. The plan (what is
 * wanted) and what HAProxy has are kept apart, so that a failure half-way is mended by the next try.
 */
export class Pools {
  /** By backend id. */
  readonly #pools = new Map<string, Pool>()
  readonly #taken = new Map<string, string>()
  /** Servers that HAProxy has and that take requests, by pool. */
  readonly #servers = new Map<string, Set<string>>()
  readonly #leaving = new Map<string, Leaving>()
  #capacity: Capacity['pools'] = { h1: 0, h2c: 0 }

  nameOf(backend: string): string | undefined {
    return this.#pools.get(backend)?.name
  }

  /** Rows of the map of names: what an agent that comes back knows its pools by. */
  names(): Map<string, string> {
    return new Map([...this.#pools.values()].map(({ name, of }) => [name, of]))
  }

  set capacity(capacity: Capacity['pools']) {
    this.#capacity = capacity
  }

  /** Gives each of the backends a pool; false where there are too few, with what would do. */
  allocate(backends: ReadonlyMap<string, Backend>): { readonly enough: boolean; readonly capacity: Capacity['pools'] } {
    const wanted: Record<PoolClass, number> = { h1: 0, h2c: 0 }
    let enough = true
    const missing: Backend[] = []
    for (const backend of backends.values()) {
      const kind = poolClassOf(backend)
      wanted[kind]++
      const known = this.#pools.get(backend.id)
      if (known !== undefined && known.kind === kind) continue
      if (known !== undefined) this.release(backend.id)
      missing.push(backend)
    }
    for (const kind of poolClasses) if (wanted[kind] > this.#capacity[kind]) enough = false
    if (enough) {
      // A pool whose last servers are still leaving is taken only where there is no other.
      for (const backend of missing)
        if (!this.#take(backend, this.#busyPools()) && !this.#take(backend, new Set())) enough = false
    }
    if (enough) return { enough, capacity: this.#capacity }
    const capacity = { ...this.#capacity }
    for (const kind of poolClasses)
      while (capacity[kind] < wanted[kind] * 1.2) capacity[kind] = Math.max(16, capacity[kind] * 2)
    return { enough, capacity }
  }

  #busyPools(): Set<string> {
    return new Set([...this.#leaving.values()].map((l) => l.pool))
  }

  #next: Record<PoolClass, number> = { h1: 0, h2c: 0 }

  #take(backend: Backend, busy: ReadonlySet<string>): boolean {
    const kind = poolClassOf(backend)
    const size = this.#capacity[kind]
    // Round and round: a pool that was just given back is the last to be taken again.
    for (let i = 0; i < size; i++) {
      const number = (this.#next[kind] + i) % size
      const name = poolName(kind, number)
      if (this.#taken.has(name) || busy.has(name)) continue
      this.#next[kind] = (number + 1) % size
      this.#taken.set(name, backend.id)
      this.#pools.set(backend.id, { name, kind, of: hashOf(backend.id) })
      return true
    }
    return false
  }

  release(backend: string): string | undefined {
    const pool = this.#pools.get(backend)
    if (pool === undefined) return undefined
    this.#pools.delete(backend)
    this.#taken.delete(pool.name)
    return pool.name
  }

  /** Lines of the configuration for a process that starts with these backends. */
  lines(backends: ReadonlyMap<string, Backend>): Map<string, readonly ServerLine[]> {
    const lines = new Map<string, readonly ServerLine[]>()
    for (const backend of backends.values()) {
      const name = this.nameOf(backend.id)
      if (name !== undefined) lines.set(name, serverLines(backend.endpoints))
    }
    return lines
  }

  /** After a start with `lines`: that is what HAProxy has. */
  assume(lines: ReadonlyMap<string, readonly ServerLine[]>): void {
    this.#leaving.clear()
    this.#servers.clear()
    for (const [pool, servers] of lines) this.#servers.set(pool, new Set(servers.map((s) => s.name)))
  }

  /** Reads what HAProxy has: pools by the map of names, servers by their state. */
  async adopt(cli: Cli, names: ReadonlyMap<string, string>, backends: ReadonlyMap<string, Backend>): Promise<void> {
    const byHash = new Map([...backends.values()].map((b) => [hashOf(b.id), b]))
    for (const [name, hash] of names) {
      // Listeners are in that map too.
      if (!/^p[ab]\d+$/.test(name)) continue
      const backend = byHash.get(hash)
      if (backend === undefined || this.#taken.has(name) || this.#pools.has(backend.id)) continue
      this.#taken.set(name, backend.id)
      this.#pools.set(backend.id, { name, kind: poolClassOf(backend), of: hash })
    }
    await this.reread(cli)
  }

  async reread(cli: Cli): Promise<void> {
    this.#servers.clear()
    this.#leaving.clear()
    for (const { pool, server, ready } of await readServers(cli)) {
      if (ready) setOf(this.#servers, pool).add(server)
      else this.#leaving.set(`${pool}/${server}`, { pool, server })
    }
  }

  /** New endpoints first; those that are no longer wanted get no new requests from now on. */
  async setEndpoints(cli: Cli, backend: Backend): Promise<void> {
    const pool = this.#pools.get(backend.id)
    if (pool === undefined) return
    await this.#setServers(cli, pool.name, pool.kind, serverLines(backend.endpoints))
  }

  /** Of a pool that was released. */
  async empty(cli: Cli, pool: string): Promise<void> {
    if (!this.#taken.has(pool)) await this.#setServers(cli, pool, 'h1', [])
  }

  /** Pools with servers that no backend has. */
  stray(): string[] {
    return [...this.#servers].flatMap(([pool, servers]) => (servers.size > 0 && !this.#taken.has(pool) ? [pool] : []))
  }

  async #setServers(cli: Cli, pool: string, kind: PoolClass, lines: readonly ServerLine[]): Promise<void> {
    const present = setOf(this.#servers, pool)
    const wanted = new Set(lines.map((l) => l.name))
    for (const { name, address, port } of lines) {
      if (present.has(name)) continue
      const leaving = this.#leaving.delete(`${pool}/${name}`)
      if (!leaving) {
        const added = await cli.command(`add server ${pool}/${name} ${hostPort(address, port)} ${serverOptions(kind)}`)
        if (added !== 'New server registered.')
          throw new EngineError(`HAProxy did not add server ${name} to ${pool}: ${added}`)
      }
      await quiet(cli, `set server ${pool}/${name} state ready`)
      present.add(name)
    }
    for (const name of [...present]) {
      if (wanted.has(name)) continue
      await quiet(cli, `set server ${pool}/${name} state drain`)
      present.delete(name)
      this.#leaving.set(`${pool}/${name}`, { pool, server: name })
    }
  }

  get leaving(): number {
    return this.#leaving.size
  }

  /** Deletes servers that have nothing left to do. What is still in use waits for the next call. */
  async sweep(cli: Cli): Promise<void> {
    for (const [key, { pool, server }] of [...this.#leaving]) {
      if (!this.#leaving.has(key)) continue
      const [, used = ''] =
        new RegExp(`^${literal(`${pool}/${server}`)} \\S+ \\S+ \\S+ \\S+ \\S+ (\\d+)`, 'm').exec(
          await cli.command(`show servers conn ${pool}`),
        ) ?? []
      if (used !== '0') continue
      // The endpoint may have come back while we asked.
      if (!this.#leaving.has(key)) continue
      await quiet(cli, `set server ${key} state maint`)
      const reply = await cli.command(`del server ${key}`)
      if (reply === 'Server deleted.' || reply === 'No such server.') this.#leaving.delete(key)
      // A connection came between the question and the command: next time. It stays in maintenance and takes none.
    }
  }
}

const literal = (text: string): string => text.replaceAll(/[.[\]]/g, '\\$&')

async function quiet(cli: Cli, command: string): Promise<void> {
  const reply = await cli.command(command)
  if (reply !== '') throw new EngineError(`HAProxy refused "${command}": ${reply}`)
}

const serverLines = (endpoints: readonly Endpoint[]): ServerLine[] =>
  endpoints.map(({ address, port }) => ({ name: serverName(address, port), address, port }))

/** Names and states of `show servers state`; the format's version is its first line. */
async function readServers(cli: Cli): Promise<{ pool: string; server: string; ready: boolean }[]> {
  const [version, head = '', ...rows] = (await cli.command('show servers state')).split('\n')
  const columns = head.replace(/^# /, '').split(' ')
  const at = (name: string): number => columns.indexOf(name)
  if (version !== '1' || at('srv_admin_state') < 0)
    throw new EngineError('HAProxy shows its servers in a form that we do not know')
  return rows.flatMap((row) => {
    const cells = row.split(' ')
    const pool = cells[at('be_name')] ?? ''
    const server = cells[at('srv_name')] ?? ''
    if (!/^p[ab]\d+$/.test(pool)) return []
    // Any of: forced maintenance 1, forced drain 8.
    return [{ pool, server, ready: (Number(cells[at('srv_admin_state')]) & 0x09) === 0 }]
  })
}

function setOf(map: Map<string, Set<string>>, key: string): Set<string> {
  const found = map.get(key)
  if (found !== undefined) return found
  const made = new Set<string>()
  map.set(key, made)
  return made
}
