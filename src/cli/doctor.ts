import type { Command } from 'commander'

export function addDoctor(program: Command): void {
  program
    .command('doctor')
    .description('look whether this machine can be a node, and whether the nodes on it work; ends with 1 where not')
    .option('--name <name>', 'the cluster', 'weft')
    .option('-o, --output <format>', 'text or json', 'text')
    .action(async ({ name, output }: { name: string; output: string }) => {
      if (output !== 'text' && output !== 'json') throw new RangeError(`--output ${output}: use text or json`)
      const { formatChecks } = await import('./doctor/check.ts')
      const { examine } = await import('./doctor/examine.ts')
      const checks = await examine(name)
      process.stdout.write(output === 'json' ? `${JSON.stringify(checks, null, 2)}\n` : formatChecks(checks))
      if (checks.some((check) => check.outcome === 'fault')) process.exitCode = 1
    })
}
