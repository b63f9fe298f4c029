import type { Command } from 'commander'

export function addStatus(program: Command): void {
  program
    .command('status')
    .description('what works, what is wrong and what to do, what this kernel lacks')
    .option('--name <name>', 'the cluster', 'weft')
    .option('-o, --output <format>', 'text or json', 'text')
    .action(async ({ name, output }: { name: string; output: string }) => {
      if (output !== 'text' && output !== 'json') throw new RangeError(`--output ${output}: use text or json`)
      const { readStatus } = await import('./status/read.ts')
      const { faultsOf } = await import('./status/faults.ts')
      const { formatStatus } = await import('./status/format.ts')
      const status = await readStatus(name)
      const faults = faultsOf(status)
      process.stdout.write(
        output === 'json' ? `${JSON.stringify({ ...status, faults }, null, 2)}\n` : formatStatus(status),
      )
      if (faults.length > 0) process.exitCode = 1
    })
}
