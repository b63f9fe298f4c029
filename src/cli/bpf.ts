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
} as const

export function addBpf(program: Command): void {
  const list = Object.entries(maps)
    .map(([name, what]) => `  ${name.padEnd(10)}${what}`)
    .join('\n')
  program
    .command('bpf')
    .description('what the nodes have in the kernel, with names')
    .argument('<map>', 'endpoint, ipcache, lb, ct, nat, address, policy or metrics')
    .option('--name <name>', 'the cluster', 'weft')
    .option('--node-name <node>', 'this node only')
    .option('-o, --output <format>', 'text or json', 'text')
    .addHelpText('after', `\nMaps:\n${list}`)
    .action(async (map: string, { name, nodeName, output }: { name: string; nodeName?: string; output: string }) => {
      if (output !== 'text' && output !== 'json') throw new RangeError(`--output ${output}: use text or json`)
      const { agentSockets, ask } = await import('./agents/ask.ts')
      const dumps = await Promise.all(
        agentSockets(name, nodeName).map(async (agent) => ({
          node: agent.node,
          ...(await ask<{ map: string; columns: string[]; rows: string[][] }>(agent, `/v1/bpf/${map}`)),
        })),
      )
      if (output === 'json') process.stdout.write(`${JSON.stringify(dumps, null, 2)}\n`)
      else for (const { node, columns, rows } of dumps) process.stdout.write(formatTable(node, columns, rows))
    })
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
