import type { Command } from 'commander'

/** The word that users of such dataplanes type, and what it shows. */
const maps = {
  endpoint: 'the pods of a node: device, policy sets',
  ipcache: 'who has which address',
  lb: 'Services: frontends and backends',
  ct: 'connections',
  nat: 'connections whose addresses are exchanged packet by packet',
  address: 'addresses of nodes and load balancers, and which this node announces',
  policy: 'what each policy set allows, and which element of which policy says so',
  metrics: 'packets and bytes by reason and direction',
  network: 'networks that policies name, and the number that stands for each',
  epoch: 'how often policies, and who has which address, have changed',
  range: 'sources that a load balancer’s Service lets in',
  affinity: 'which backend a client had last',
  member: 'backends that such a client may come back to',
  stale: 'backends that are gone, until the next sweep',
  exclusion: 'networks that pods talk to under their own addresses',
  fragment: 'ports of datagrams that came in parts',
  datagram: 'whom a datagram socket asked for, by who answers',
  answer: 'refusals that were answered, by the device of the pod',
  share: 'connections by pod',
  'nat-share': 'connections by pod whose addresses are exchanged packet by packet',
  flood: 'when a connection last met the map of floods',
  listener: 'sockets of the gateway that take what comes for its addresses',
  lost: 'flow records for which there was no room',
} as const

export function addBpf(program: Command): void {
  const list = Object.entries(maps)
    .map(([name, what]) => `  ${name.padEnd(10)}${what}`)
    .join('\n')
  program
    .command('bpf')
    .description('what the nodes have in the kernel, with names')
    .argument('<map>', 'one of those below')
    .option('--name <name>', 'the cluster', 'weft')
    .option('--node-name <node>', 'this node only')
    .option('-o, --output <format>', 'text or json', 'text')
    .addHelpText('after', `\nMaps:\n${list}`)
    .action(async (map: string, { name, nodeName, output }: { name: string; nodeName?: string; output: string }) => {
      if (output !== 'text' && output !== 'json') throw new RangeError(`--output ${output}: use text or json`)
      const { agentSockets, ask, sparingTheDead } = await import('./agents/ask.ts')
      const agents = agentSockets(name, nodeName)
      const told = sparingTheDead(agents, 'maps')
      const found = await Promise.all(
        agents.map((agent) => told(async () => ({ node: agent.node, ...(await ask<Dump>(agent, `/v1/bpf/${map}`)) }))),
      )
      const dumps = found.filter((dump) => dump !== undefined)
      if (output === 'json') process.stdout.write(`${JSON.stringify(dumps, null, 2)}\n`)
      else for (const { node, columns, rows } of dumps) process.stdout.write(formatTable(node, columns, rows))
    })
}

interface Dump {
  readonly map: string
  readonly columns: readonly string[]
  readonly rows: readonly (readonly string[])[]
}

function formatTable(node: string, columns: readonly string[], rows: readonly (readonly string[])[]): string {
  const table = [['NODE', ...columns], ...rows.map((row) => [node, ...row])]
  const widths = table[0]?.map((_, i) => Math.max(...table.map((row) => row[i]?.length ?? 0))) ?? []
  return table
    .map(
      (row) =>
        `${row
          .map((cell, i) => cell.padEnd(widths[i] ?? 0))
          .join('  ')
          .trimEnd()}\n`,
    )
    .join('')
}
