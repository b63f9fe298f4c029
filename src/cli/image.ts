import type { Command } from 'commander'

export function addImage(program: Command): void {
  const image = program.command('image').description('images without a registry')
  image
    .command('build')
    .description('the image of the agent, weft.local/weft:1, as an OCI archive, from this checkout')
    .requiredOption('-o, --output <file>', 'where it goes')
    .action(async ({ output }: { output: string }) => {
      const [{ writeFileSync }, { buildWeftArchive, weftImage }, { installDir }] = await Promise.all([
        import('node:fs'),
        import('./images/weft.ts'),
        import('./cluster/commands.ts'),
      ])
      const archive = await buildWeftArchive(installDir)
      writeFileSync(output, archive)
      process.stdout.write(`${weftImage}: ${(archive.length / (1 << 20)).toFixed(0)} MiB in ${output}\n`)
    })
  image
    .command('load')
    .description('gives every node of a cluster on this machine the images of an archive')
    .argument('<archive>', 'OCI or Docker, as tar')
    .option('--name <name>', 'the cluster', 'weft')
    .action(async (archive: string, { name }: { name: string }) => {
      const [{ readdirSync, existsSync }, { join, resolve }, { importArchive }] = await Promise.all([
        import('node:fs'),
        import('node:path'),
        import('./images/weft.ts'),
      ])
      const runDir = `/run/weft/${name}`
      const sockets = (existsSync(runDir) ? readdirSync(runDir) : [])
        .map((node) => ({ node, socket: join(runDir, node, 'containerd.sock') }))
        .filter(({ socket }) => existsSync(socket))
      if (sockets.length === 0)
        throw new Error(`no node of a cluster "${name}" runs on this machine: weft up --name ${name} starts one`)
      for (const { node, socket } of sockets) {
        importArchive(socket, resolve(archive))
        process.stdout.write(`${node}: loaded ${archive}\n`)
      }
    })
}
