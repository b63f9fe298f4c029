import { type Command, InvalidArgumentError } from 'commander'

const many = (value: string, before: string[] = []): string[] => [...before, ...value.split(',')]

/** Flag, the query's field, what it is. In the order of the help. */
const filters = [
  ['--pod <[namespace/]pod>', 'pod', 'either side; the beginning of the name is enough'],
  ['--from-pod <[namespace/]pod>', 'fromPod', 'the sender'],
  ['--to-pod <[namespace/]pod>', 'toPod', 'the receiver'],
  ['-n, --namespace <namespace>', 'namespace', 'either side'],
  ['--from-namespace <namespace>', 'fromNamespace', 'the sender'],
  ['--to-namespace <namespace>', 'toNamespace', 'the receiver'],
  ['--from-label <selector>', 'fromLabel', 'the sender'],
  ['--to-label <selector>', 'toLabel', 'the receiver'],
  ['--ip <address or network>', 'ip', 'either side'],
  ['--from-ip <address or network>', 'fromIp', 'the sender'],
  ['--to-ip <address or network>', 'toIp', 'the receiver'],
  ['--port <port>', 'port', 'either side'],
  ['--from-port <port>', 'fromPort', 'the sender'],
  ['--to-port <port>', 'toPort', 'the receiver'],
  ['--identity <identity>', 'identity', 'either side: a number, host, world, remote-node, unknown'],
  [
    '--service <[namespace/]service>',
    'service',
    'whose address a packet asked for; what a socket asks for is a backend’s by then',
  ],
  ['--protocol <protocol>', 'protocol', 'tcp, udp, sctp, icmp, icmpv4, icmpv6, http (with -f)'],
  ['--verdict <verdict>', 'verdict', 'FORWARDED or DROPPED'],
  ['--drop-reason-desc <reason>', 'dropReasonDesc', 'as POLICY_DENIED'],
  ['--traffic-direction <direction>', 'trafficDirection', 'ingress or egress, as the pod sees it'],
  ['--node-name <node>', 'nodeName', 'where it was seen'],
] as const

export function addFlows(program: Command): void {
  const command = program
    .command('flows')
    .description('connections and drops, with their names, as the nodes saw them')
    .option('--name <name>', 'the cluster', 'weft')
    .option('-f, --follow', 'go on with what happens from now on')
    .option('--last <n>', 'the newest so many of each node', count, 20)
    .option('--since <duration or time>', 'nothing older: 30s, 5m, 2026-01-01T00:00:00Z')
    .option('-o, --output <format>', 'compact, or json: one object a line, in Hubble’s form', 'compact')
    // A selector has commas of its own.
    .option('-l, --label <selector>', 'either side', (value: string, before: string[] = []) => [...before, value])
  for (const [flag, , help] of filters) command.option(flag, help, many)
  command.action(async (options: Record<string, unknown>) => {
    const { runFlows } = await import('./flows/run.ts')
    const query = Object.fromEntries(
      ['label', ...filters.map(([, field]) => field)].flatMap((field) => {
        const values = options[field]
        return values === undefined ? [] : [[field, values as string[]]]
      }),
    )
    await runFlows({
      cluster: String(options.name),
      query,
      follow: options.follow === true,
      last: options.last as number,
      since: options.since as string | undefined,
      output: String(options.output),
    })
  })
}

function count(text: string): number {
  if (!/^\d+$/.test(text) || Number(text) === 0) throw new InvalidArgumentError('use a whole number above 0')
  return Number(text)
}
