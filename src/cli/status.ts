import type { Command } from 'commander'

export function addStatus(program: Command): void {
  program
    .command('status')
    .description('what runs, what this kernel can do and what it lacks')
    .option('--name <name>', 'the cluster', 'weft')
    .option('-o, --output <format>', 'text or json', 'text')
    .action(async ({ name, output }: { name: string; output: string }) => {
      if (output !== 'text' && output !== 'json') throw new RangeError(`--output ${output}: use text or json`)
      const { formatStatus, readStatus } = await import('./status/read.ts')
      const status = await readStatus(name)
      process.stdout.write(output === 'json' ? `${JSON.stringify(status, null, 2)}\n` : formatStatus(status))
      if (status.error !== null || status.processes.some((p) => p.pid === null) || status.nodes.some((n) => !n.ready))
        process.exitCode = 1
    })
}
