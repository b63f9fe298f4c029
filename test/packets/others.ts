import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import koffi from 'koffi'
import { BpfObject } from '#kernel/bpf/object.ts'
import type { Program } from '#kernel/bpf/program.ts'
import { addressBytes } from '#kernel/netns.ts'
import type { TestPod } from './topology.ts'

const libc = koffi.load('libc.so.6')
const socket = libc.func('int socket(int domain, int type, int protocol)')
const setsockopt = libc.func('int setsockopt(int fd, int level, int name, const int *value, uint length)')
const sendto = libc.func('long sendto(int fd, const void *data, ulong size, int flags, const void *to, uint length)')
const close = libc.func('int close(int fd)')

/** A datagram whose socket has a mark (SO_MARK), as a process with CAP_NET_RAW may ask for. */
export function sendMarked(pod: TestPod, mark: number, to: string, port: number): void {
  pod.namespace.within(() => {
    const fd = socket(2, 2, 0) as number
    const place = Buffer.concat([Buffer.from([2, 0, port >> 8, port & 255]), addressBytes(to), Buffer.alloc(8)])
    const done = [setsockopt(fd, 1, 36, [mark | 0], 4), sendto(fd, Buffer.from('x'), 1, 0, place, place.length)]
    close(fd)
    if (done[0] !== 0 || done[1] !== 1) throw new Error(`the datagram was not sent: ${done.join()}`)
  })
}

/** One that only looks on: it leaves each packet to the next. And one that has it pass, whatever others would say. */
const onlooker = `
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 8192); __type(key, __u32); __type(value, __u64); }
	churned SEC(".maps");
SEC("tc") int onlooker(struct __sk_buff *skb) { __u32 k = 0; bpf_map_lookup_elem(&churned, &k); return -1; }
SEC("tc") int bypass(struct __sk_buff *skb) { return 0; }
char LICENSE[] SEC("license") = "GPL";
`

/** Loads one of them, with its map beside ours. The caller's to dispose. */
export function loadOnlooker(pinDir: string, name: 'onlooker' | 'bypass' = 'onlooker'): Program {
  const dir = mkdtempSync(join(tmpdir(), 'weft-onlooker-'))
  try {
    writeFileSync(join(dir, 'onlooker.c'), onlooker)
    const machine = process.arch === 'arm64' ? 'aarch64' : 'x86_64'
    const flags = ['-O2', '-g', '-target', 'bpf', `-I/usr/include/${machine}-linux-gnu`]
    execFileSync('clang', [...flags, '-c', join(dir, 'onlooker.c'), '-o', join(dir, 'onlooker.o')])
    using object = BpfObject.open('onlooker', readFileSync(join(dir, 'onlooker.o')), join(pinDir, 'maps'))
    object.load()
    return object.program(name)
  } finally {
    rmSync(dir, { recursive: true })
  }
}
