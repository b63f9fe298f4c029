import type { Command } from 'commander'

export function addWhy(program: Command): void {
  program
    .command('why')
    .description('may SRC connect to DST, and which element of which policy says so: asked of the programs themselves')
    .argument('<src>', '[namespace/]pod, node/NAME, an address, or outside: who lives on the nodes’ own network')
    .argument(
      '<dst>',
      '[namespace/]pod, svc/[namespace/]name, gateway/[namespace/]name, node/NAME, an address, or outside',
    )
    .argument('<port>', 'PORT[/PROTOCOL] or icmp: 80, 53/udp, or a port’s name')
    // Whoever asks in a script must tell a refused connection from a question that was wrong.
    .exitOverride(({ exitCode }) => process.exit(exitCode === 0 ? 0 : 2))
    .option('--name <name>', 'the cluster', 'weft')
    .option('-6, --ipv6', 'between their IPv6 addresses')
    .option('--by <node>', 'by which it comes in from outside (the one that answers for the address, else the first)')
    .option('-o, --output <format>', 'text or json', 'text')
    .addHelpText(
      'after',
      '\nEnds with 0 where the connection is let through, 1 where it is not, 2 where that cannot be told.',
    )
    .action(async (source: string, destination: string, port: string, flags: WhyFlags) => {
      const { name, ipv6 = false, output, by } = flags
      if (output !== 'text' && output !== 'json') {
        process.exitCode = 2
        throw new RangeError(`--output ${output}: use text or json`)
      }
      const { askWhy } = await import('./why/ask.ts')
      const { formatWhy } = await import('./why/format.ts')
      const answer = await askWhy({
        ...{ cluster: name, source, destination, port, ipv6 },
        ...(by === undefined ? {} : { by }),
      }).catch((error: unknown) => {
        process.exitCode = 2
        throw error
      })
      process.stdout.write(output === 'json' ? `${JSON.stringify(answer, null, 2)}\n` : formatWhy(answer))
      process.exitCode = answer.isAllowed ? 0 : 1
    })
}

interface WhyFlags {
  readonly name: string
  readonly ipv6?: boolean
  readonly by?: string
  readonly output: string
}
