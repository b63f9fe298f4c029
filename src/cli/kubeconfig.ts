import { accessSync, constants } from 'node:fs'
import type { Command } from 'commander'
import { layoutCluster } from './cluster/layout.ts'

export function addKubeconfig(program: Command): void {
  program
    .command('kubeconfig')
    .description("print the path of the administrator's kubeconfig: export KUBECONFIG=$(npx weft kubeconfig)")
    .option('--name <name>', 'the cluster', 'weft')
    .action(({ name }: { name: string }) => {
      const path = layoutCluster(name, 1).server.adminKubeconfig
      try {
        accessSync(path, constants.R_OK)
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'EACCES')
          throw new Error(`${path} is root's alone: work as root (sudo -Es)`)
        throw new Error(`there is no cluster ${JSON.stringify(name)}: run weft up --name ${name} first`)
      }
      process.stdout.write(`${path}\n`)
    })
}
