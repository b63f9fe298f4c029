import type { Command } from 'commander'
import { layoutCluster, nodesMax } from './cluster/layout.ts'
import { lockCluster } from './cluster/lock.ts'

export function addDown(program: Command): void {
  program
    .command('down')
    .description('end a cluster of this machine and take away everything of it')
    .option('--name <name>', 'the cluster', 'weft')
    .action(async ({ name }: { name: string }) => {
      // As many nodes as there could be: what an earlier, larger cluster left goes too.
      const { exists, takeDown } = await import('./cluster/down.ts')
      const layout = layoutCluster(name, nodesMax)
      if (!exists(layout)) {
        process.stdout.write(`there is no cluster ${JSON.stringify(name)}\n`)
        return
      }
      if (process.getuid?.() !== 0)
        throw new Error('weft down ends processes and unmounts: run it as root (sudo npx weft down)')
      using _lock = await lockCluster(name, 'down')
      await takeDown(layout)
      process.stdout.write(`cluster ${JSON.stringify(name)} is gone\n`)
    })
}
