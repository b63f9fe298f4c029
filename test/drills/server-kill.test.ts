import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import test from 'ava'
import { configMaps } from '#api/gen/resources.ts'
import { StatusError } from '#api/meta/status.ts'
import { delay } from '#base/async/delay.ts'
import { eventually } from '#base/async/eventually.ts'
import { Scope } from '#base/async/scope.ts'
import type { Client } from '#client/client.ts'
import { createHttpClient } from '#client/http.ts'
import { httpOptionsOf, parseKubeconfig } from '#client/kubeconfig.ts'
import { freePort } from '../free-port.ts'

const kills = 100
const writers = 8
const namespace = 'default'

/** What one writer was told. */
interface Told {
  /** Name -> uid of each object whose creation was acknowledged. */
  readonly created: Map<string, string>
  /** The last acknowledged value of its counter. */
  counted: number
  /** A write was under way when the server died: it may have happened or not, once. */
  inDoubt: boolean
}

/** Creates objects and counts up by compare-and-put, until the signal; what fails because the server died is tried anew. */
async function write(client: Client, id: number, told: Told, broken: string[], signal: AbortSignal): Promise<void> {
  const counter = `counter-${id}`
  for (let i = 0; !signal.aborted; i++) {
    const name = `w${id}-${String(i).padStart(6, '0')}`
    try {
      const { metadata } = await client.create(configMaps, { metadata: { namespace, name } })
      told.created.set(name, metadata.uid)
      const present = await client.get(configMaps, { namespace, name: counter })
      const value = Number(present.data?.value)
      const most = told.counted + (told.inDoubt ? 1 : 0)
      if (value < told.counted || value > most) broken.push(`${counter} is ${value}, told was ${told.counted}`)
      told.counted = value
      told.inDoubt = true
      await client.update(configMaps, { ...present, data: { value: String(value + 1) } })
      told.counted = value + 1
      told.inDoubt = false
    } catch (error) {
      // Nothing here can meet another's write, so the server's own answers are all wrong ones, except while it starts.
      if (error instanceof StatusError && error.code !== 503 && error.code !== 504) broken.push(error.message)
      await delay(20, signal).catch(() => {})
    }
  }
}

test(`kill -9 of the server ${kills} times under writes: every acknowledged write is there, none twice`, async (t) => {
  t.timeout(400_000)
  const directory = mkdtempSync(join(tmpdir(), 'weft-server-kill-'))
  const port = await freePort()
  const flags = {
    'data-dir': directory,
    'advertise-address': '192.0.2.1',
    'bind-address': '127.0.0.1',
    port: String(port),
    'external-url': `https://127.0.0.1:${port}`,
    'cluster-cidr': '10.244.0.0/16',
    'service-cidr': '10.96.0.0/16',
    'log-level': 'error',
  }
  const main = resolve(import.meta.dirname, '../../src/cli/main.ts')
  const args = Object.entries(flags).flatMap(([name, value]) => [`--${name}`, value])
  const start = (): ChildProcess =>
    spawn(process.execPath, [main, 'server', ...args], { stdio: ['ignore', 'ignore', 'inherit'] })
  let server = start()
  try {
    const text = await eventually(() => readFileSync(join(directory, 'admin.kubeconfig'), 'utf8'), { withinMs: 20_000 })
    const options = httpOptionsOf(await parseKubeconfig(text))
    using client = createHttpClient(options)
    const ready = () => eventually(() => client.raw('GET', '/readyz'), { withinMs: 20_000, pauseMs: 20 })
    await ready()
    const tolds: Told[] = []
    for (let id = 0; id < writers; id++) {
      await client.create(configMaps, { metadata: { namespace, name: `counter-${id}` }, data: { value: '0' } })
      tolds.push({ created: new Map(), counted: 0, inDoubt: false })
    }
    const broken: string[] = []
    await using scope = new Scope()
    for (const [id, told] of tolds.entries()) {
      scope.start((signal) => write(client, id, told, broken, signal))
    }
    const acknowledged = (): number => tolds.reduce((sum, told) => sum + told.created.size, 0)
    for (let round = 0; round < kills; round++) {
      const before = acknowledged()
      // Never in the same place: after a few acknowledged writes, and then at any moment of the next ones.
      await eventually(() => acknowledged() > before + (round % 10), { withinMs: 20_000, pauseMs: 1 })
      const gone = once(server, 'exit')
      server.kill('SIGKILL')
      await gone
      server = start()
      await ready()
    }
    scope.stop()
    await scope.done()
    t.deepEqual(broken, [])
    const listed = await client.list(configMaps, { namespace })
    const uids = new Map(listed.items.map(({ metadata }) => [metadata.name, metadata.uid]))
    t.is(uids.size, listed.items.length)
    for (const told of tolds) {
      for (const [name, uid] of told.created) if (uids.get(name) !== uid) broken.push(`${name} is lost, or another`)
    }
    t.deepEqual(broken, [])
    t.log(`${acknowledged()} creations acknowledged over ${kills} kills`)
    t.true(acknowledged() > kills)
  } finally {
    server.kill('SIGKILL')
    rmSync(directory, { recursive: true, force: true })
  }
})
