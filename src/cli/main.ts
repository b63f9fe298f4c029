#!/usr/bin/env node
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Command, Help } from 'commander'
import { addAgent } from './agent.ts'
import { addBpf } from './bpf.ts'
import { addDoctor } from './doctor.ts'
import { addDown } from './down.ts'
import { addFlows } from './flows.ts'
import { addImage } from './image.ts'
import { addKubeconfig } from './kubeconfig.ts'
import { addOperator } from './operator.ts'
import { addServer } from './server.ts'
import { addStatus } from './status.ts'
import { addUp } from './up.ts'
import { addWhy } from './why.ts'

const { version } = JSON.parse(readFileSync(join(import.meta.dirname, '../../package.json'), 'utf8')) as {
  readonly version: string
}
const program = new Command('weft')
  .description('A Kubernetes in which the network is the first citizen')
  .version(version)
  // That an option may be left out is no default worth telling of.
  .configureHelp({
    optionDescription: (option) => new Help().optionDescription(option).replace(/ \(default: \[\]\)$/, ''),
  })
  .showHelpAfterError('(weft --help lists the commands)')
for (const add of [
  addUp,
  addDown,
  addStatus,
  addDoctor,
  addKubeconfig,
  addWhy,
  addFlows,
  addBpf,
  addImage,
  addServer,
  addAgent,
  addOperator,
])
  add(program)

// `weft bpf ct | head`: whoever read has enough.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error
  process.exit()
})
try {
  await program.parseAsync()
} catch (error) {
  // What went wrong, one line; the stack is for `WEFT_DEBUG=1`.
  process.stderr.write(`weft: ${describe(error)}\n`)
  if (process.env.WEFT_DEBUG) process.stderr.write(`${(error as Error).stack}\n`)
  process.exitCode ??= 1
}

function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const cause =
    error.cause instanceof Error && !error.message.includes(error.cause.message) ? `: ${describe(error.cause)}` : ''
  return `${error.message}${cause}`
}
