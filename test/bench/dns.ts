import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { promisify } from 'node:util'
import { encodeQuery } from '#agent/dns/wire.ts'
import { eventually } from '#base/async/eventually.ts'
import { libraryEnv, unpackPackages } from '../distribution.ts'
import { median, type Row } from './row.ts'

/**
 * The node's resolver beside the distribution's unbound and dnsmasq, with the same thousand names, on one CPU each, the
 * asker on another. Cases take turns in short runs, three passes; a ratio is the median of theirs. Rate: 64 questions
 * under way; time: one.
 */
const names = 1000
const runMs = 400
const rounds = 5
const passes = 3
const window = 64
const [askerCpu, serverCpu] = [0, 1]
const load = resolve(import.meta.dirname, '../../native/build/dnsload')
const exec = promisify(execFile)

interface Server {
  readonly name: 'ours' | 'unbound' | 'dnsmasq'
  readonly port: number
}
const servers: readonly Server[] = [
  { name: 'ours', port: 15_301 },
  { name: 'unbound', port: 15_302 },
  { name: 'dnsmasq', port: 15_303 },
]
const others = ['unbound', 'dnsmasq'] as const
type Measured = Record<Server['name'], { rate: number[]; us: number[] }>

export async function run(): Promise<Row[]> {
  const dir = mkdtempSync(join(tmpdir(), 'weft-dns-'))
  const children: ChildProcess[] = []
  try {
    const zone = Array.from({ length: names }, (_, i) => ({
      name: `service-${i}.namespace-${i % 20}.svc.cluster.local`,
      address: `10.96.${i >> 8}.${i & 255}`,
    }))
    writeFileSync(join(dir, 'names'), `${zone.map((z) => z.name).join('\n')}\n`)
    writeFileSync(join(dir, 'table'), `${zone.map((z) => `${z.name} ${z.address}`).join('\n')}\n`)
    writeFileSync(join(dir, 'hosts'), `${zone.map((z) => `${z.address} ${z.name}`).join('\n')}\n`)
    writeFileSync(join(dir, 'unbound.conf'), unboundConfig(dir, zone))
    const root = unpackPackages('unbound', 'dnsmasq-base', 'libprotobuf-c1', 'libnetfilter-conntrack3', 'libnfnetlink0')
    const commands: Record<Server['name'], readonly string[]> = {
      ours: [process.execPath, resolve(import.meta.dirname, 'dns-server.ts'), join(dir, 'table'), '15301'],
      unbound: [join(root, 'usr/sbin/unbound'), '-d', '-p', '-c', join(dir, 'unbound.conf')],
      dnsmasq: [
        join(root, 'usr/sbin/dnsmasq'),
        ...['--keep-in-foreground', '--conf-file=/dev/null', '--no-resolv', '--no-hosts', '--user=root', '--pid-file='],
        ...['--port=15303', '--listen-address=127.0.0.1', '--bind-interfaces', '--cache-size=10000'],
        ...[`--addn-hosts=${join(dir, 'hosts')}`, '--local=/cluster.local/', '--local-ttl=5'],
      ],
    }
    for (const { name } of servers) {
      const child = spawn('taskset', ['-c', String(serverCpu), ...commands[name]], {
        stdio: ['pipe', 'ignore', 'inherit'],
        env: name === 'ours' ? process.env : libraryEnv(root),
      })
      children.push(child)
    }
    await Promise.all(servers.map(({ port }) => answers(port, zone[0]?.name ?? '')))
    return await measure(join(dir, 'names'))
  } finally {
    for (const child of children) child.kill('SIGKILL')
    rmSync(dir, { recursive: true, force: true })
  }
}

async function measure(namesFile: string): Promise<Row[]> {
  const ratios = others.flatMap((other) => [
    { other, what: 'rate' as const, values: [] as number[] },
    { other, what: 'us' as const, values: [] as number[] },
  ])
  for (let pass = 0; pass < passes; pass++) {
    const found: Measured = { ours: { rate: [], us: [] }, unbound: { rate: [], us: [] }, dnsmasq: { rate: [], us: [] } }
    for (let round = 0; round < rounds; round++) {
      for (const { name, port } of servers) {
        found[name].rate.push((await ask(port, window, namesFile)).rate)
        found[name].us.push((await ask(port, 1, namesFile)).us)
      }
    }
    for (const { other, what, values } of ratios) values.push(median(found.ours[what]) / median(found[other][what]))
    const cells = servers.map(
      ({ name }) => `${name} ${(median(found[name].rate) / 1e3).toFixed(0)} k/s ${median(found[name].us)} us`,
    )
    process.stderr.write(`  pass ${pass + 1}: ${cells.join(', ')}\n`)
  }
  return ratios.map(({ other, what, values }) => ({
    name: what === 'rate' ? `answers/s of ${other}` : `p50 of one question, of ${other}`,
    ratio: median(values),
    goal: 1,
    ...(what === 'us' ? { atMost: true } : {}),
  }))
}

async function ask(port: number, under: number, namesFile: string): Promise<{ rate: number; us: number }> {
  const args = ['--cpu', String(askerCpu), '127.0.0.1', String(port), String(runMs), String(under), namesFile]
  const { stdout } = await exec(load, args)
  const [rate = 0, us = 0, bad = 0] = stdout.trim().split(' ').map(Number)
  // A machine that is busy may hold a server up for longer than the asker waits: one window of questions.
  if (bad > under + (rate * runMs) / 1e6)
    throw new Error(`${bad} questions to port ${port} were lost or answered wrongly`)
  return { rate, us }
}

/** Until a server has its names. */
async function answers(port: number, name: string): Promise<void> {
  const socket = createSocket('udp4')
  let heard = false
  socket.on('message', () => {
    heard = true
  })
  socket.on('error', () => {})
  try {
    await eventually(
      () => {
        if (!heard) socket.send(encodeQuery(1, name, 1), port, '127.0.0.1')
        return heard
      },
      { withinMs: 10_000 },
    )
  } finally {
    socket.close()
  }
}

function unboundConfig(dir: string, zone: readonly { readonly name: string; readonly address: string }[]): string {
  return [
    'server:',
    '  num-threads: 1',
    '  interface: 127.0.0.1@15302',
    '  username: ""',
    '  chroot: ""',
    `  directory: "${dir}"`,
    '  pidfile: ""',
    '  use-syslog: no',
    `  logfile: "${dir}/unbound.log"`,
    '  do-daemonize: no',
    '  module-config: "iterator"',
    '  access-control: 127.0.0.0/8 allow',
    '  local-zone: "cluster.local." static',
    ...zone.map(({ name, address }) => `  local-data: "${name}. 5 IN A ${address}"`),
    'remote-control:',
    '  control-enable: no',
    '',
  ].join('\n')
}
