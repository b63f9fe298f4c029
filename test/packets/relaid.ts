import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Attachments } from '#datapath/attach.ts'
import { bpfDir, type CompiledObject, compile } from '#datapath/compile.ts'
import { load, prunePrograms } from '#datapath/load.ts'
import { describeNode } from '#datapath/node.ts'
import { encodeConfig, gatewayMac } from '#datapath/object.ts'
import { attachAll, Succession } from '#datapath/succession.ts'
import { tickNanoseconds } from '#kernel/bpf/program.ts'
import { podCidrs, serviceCidrs, type TestNode } from './topology.ts'

const relaidMaps = /\b(flows|embryonic|shares|translations|affinity)_v1\b/g

/** Our programs as another version would have them: the same work, with other structs in maps of other names. */
export async function otherVersion(): Promise<CompiledObject[]> {
  const dir = mkdtempSync(join(tmpdir(), 'weft-other-'))
  try {
    cpSync(bpfDir, dir, { recursive: true })
    for (const file of readdirSync(dir, { recursive: true, encoding: 'utf8' })) {
      if (!/\.[ch]$/.test(file)) continue
      const path = join(dir, file)
      writeFileSync(path, readFileSync(path, 'utf8').replace(relaidMaps, '$1_v7'))
    }
    // Members are elsewhere, longer, new.
    edit(join(dir, 'maps/flows.h'), [
      [/(struct flow \{)(.*?)(\t__u64 packets\[2\];[^\n]*\n\t__u64 bytes\[2\];\n)(\};)/s, '$1\n\t__u32 more;\n$3$2$4'],
    ])
    edit(join(dir, 'maps/translations.h'), [
      [/(struct rewrite \{\n)(.*?)(\n\};)/s, '$1\t__u64 more[3];\n$2$3'],
      [/\t__u32 seen;(.*)/, '\t__u64 seen;$1'],
    ])
    edit(join(dir, 'maps/services.h'), [[/(struct affinity \{\n)/, '$1\t__u64 more;\n']])
    return await compile({ cacheDir: '/var/cache/weft/bpf', sourceDir: dir })
  } finally {
    rmSync(dir, { recursive: true })
  }
}

function edit(file: string, changes: readonly (readonly [RegExp, string])[]): void {
  let text = readFileSync(file, 'utf8')
  for (const [from, to] of changes) {
    const changed = text.replace(from, to)
    if (changed === text) throw new Error(`${file}: there is no ${from} to change`)
    text = changed
  }
  writeFileSync(file, text)
}

/** What an agent with those programs does first. Returns what it took over, by the maps' names. */
export async function installOther(
  node: TestNode,
  all: readonly CompiledObject[],
): Promise<Readonly<Record<string, number>>> {
  const objects = all.filter(({ name }) => !['overlay', 'xdp_entry'].includes(name))
  const uplink = await node.netlink.link('eth0')
  if (uplink === undefined) throw new Error('there is no uplink')
  const { namespace, pinDir, cgroupPath } = node
  const described = await describeNode(node.netlink, uplink, { namespace, usesCable: true })
  const globals = encodeConfig({ serviceCidrs, podCidrs, gatewayMac, tickNanoseconds: tickNanoseconds(), ...described })
  const place = { uplink: uplink.index, tunnel: undefined, xdp: 'off', cgroupPath } as const
  using succession = await Succession.begin({ objects, pinDir, namespace }, globals, place)
  using held = new DisposableStack()
  const { programs } = load(objects, globals, pinDir)
  for (const program of programs.values()) held.use(program)
  await attachAll(new Attachments(pinDir, programs, namespace), place)
  prunePrograms(objects, globals, pinDir)
  succession?.finish()
  return succession?.carried ?? {}
}
