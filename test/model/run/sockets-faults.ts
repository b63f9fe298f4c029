import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { bpfDir, type CompiledObject } from '#datapath/compile.ts'

/** Faults that can be compiled into bpf/programs/sock.bpf.c (`FAULTY`, as of faults.ts): sockets must find each. */
export const socketFaults: readonly { readonly number: number; readonly what: string }[] = [
  { number: 61, what: "a pod's loopback is the node's" },
  { number: 62, what: '0.0.0.0 is whatever node port somebody has' },
  { number: 63, what: 'a client of both families has one choice' },
  { number: 64, what: 'a peer that is asked for by its own name keeps the name of a Service' },
  { number: 65, what: 'a socket that is connected anew keeps the name that it asked for before' },
  { number: 66, what: 'a socket that is connected no longer keeps the name that it asked for' },
  { number: 67, what: 'an IPv6 socket leaves its IPv4 peer when a Service comes' },
  { number: 68, what: 'who listens on all addresses takes an IPv4 node port' },
  { number: 69, what: 'a refusal says something else' },
  { number: 70, what: "a peer is known by its backend's port" },
]

const run = promisify(execFile)

/** The same objects with one fault in the socket hooks. Throws with clang's words. */
export async function withFault(objects: readonly CompiledObject[], fault: number): Promise<CompiledObject[]> {
  const dir = mkdtempSync(join(tmpdir(), 'weft-fault-'))
  try {
    const out = join(dir, 'sock.o')
    const machine = { x64: 'x86_64-linux-gnu', arm64: 'aarch64-linux-gnu' }[process.arch as string]
    await run('clang', [
      ...['-O2', '-g', '-Wall', '-target', 'bpf', '-mcpu=v3', `-I${bpfDir}`, `-DFAULT=${fault}`],
      ...(machine === undefined ? [] : [`-I/usr/include/${machine}`]),
      ...['-c', join(bpfDir, 'programs/sock.bpf.c'), '-o', out],
    ])
    const elf = readFileSync(out)
    const hash = createHash('sha256').update(elf).digest('hex')
    return objects.map((object) => (object.name === 'sock' ? { name: 'sock', elf, hash } : object))
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}
