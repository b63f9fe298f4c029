import { existsSync } from 'node:fs'
import type { Command } from 'commander'
import { layoutCluster } from './cluster/layout.ts'

export function addKubeconfig(program: Command): void {
  program
    .command('kubeconfig')
    .description("print the path of the administrator's kubeconfig: export KUBECONFIG=$(npx weft kubeconfig)")
    .option('--name <name>', 'the cluster', 'weft')
    .action(({ name }: { name: string }) => {
      const path = layoutCluster(name, 1).server.adminKubeconfig
      if (!existsSync(path))
        throw new Error(`there is no cluster ${JSON.stringify(name)}: run weft up --name ${name} first`)
      process.stdout.write(`${path}\n`)
    })
}
