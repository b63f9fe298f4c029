import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { ensureCgroup, findCgroups, weightOfShares } from './cgroup.ts'
import { checkResult, errnoName, hasCode, KernelError } from './errno.ts'
import { Fd } from './fd.ts'
import { requireFeatures } from './features.ts'
import { structSizes } from './ffi.ts'
import { attribute, parseAttributes } from './netlink/attributes.ts'
import { formatMac, parseMac } from './netlink/netlink.ts'
import { addressBytes } from './netns.ts'

test('a failed call is an error with the action, the name of its errno, and what to do', (t) => {
  t.is(checkResult(7, 'do it'), 7)
  const error = t.throws(() => checkResult(-1, 'attach a program to eth0'), { instanceOf: KernelError })
  t.is(error?.code, 'EPERM')
  t.regex(error?.message ?? '', /^Cannot attach a program to eth0: EPERM, .*\(root is needed/)
  t.true(hasCode(error, 'EACCES', 'EPERM'))
  t.is(errnoName(2), 'ENOENT')
  t.is(errnoName(524), 'ENOTSUPP')
  t.is(errnoName(9999), 'errno 9999')
})

test('the verifier’s words are in the error', (t) => {
  t.throws(() => checkResult(-22, 'load BPF object x', () => 'R1 is a scalar'), {
    message: /EINVAL.*\nR1 is a scalar$/s,
  })
})

test('structs of the FFI have the sizes that the C compiler asserts', (t) => {
  // native/{program,link,map}.c hold the same numbers against sizeof.
  t.deepEqual(structSizes, { weft_program_info: 32, weft_link_info: 32, weft_map_info: 40, weft_test_run: 56 })
})

test('a closed descriptor is not handed out again', (t) => {
  const fd = new Fd(1_000_000)
  t.is(fd.release(), 1_000_000)
  t.throws(() => fd.number, { message: /closed/ })
})

test('netlink attributes come back as they were written, padded to four bytes', (t) => {
  const bytes = Buffer.concat([attribute(1, 'veth'), attribute(2, 7), attribute(3, Uint8Array.of(1, 2, 3))])
  t.is(bytes.length % 4, 0)
  const found = parseAttributes(bytes)
  t.is(found.get(1)?.toString(), 'veth\0')
  t.is(found.get(2)?.readUInt32LE(), 7)
  t.deepEqual([...(found.get(3) ?? [])], [1, 2, 3])
  t.is(parseAttributes(Buffer.from([1, 0, 0, 0])).size, 0, 'a length of one is no attribute')
})

test('MAC and IP addresses parse, and what is none is refused', (t) => {
  t.is(formatMac(parseMac('02:AB:00:00:00:ff')), '02:ab:00:00:00:ff')
  t.throws(() => parseMac('02:ab:00:00:00'), { instanceOf: RangeError })
  t.deepEqual([...addressBytes('10.0.0.1')], [10, 0, 0, 1])
  t.is(addressBytes('fd00::1').toString('hex'), 'fd000000000000000000000000000001')
  t.throws(() => addressBytes('10.0.0'), { instanceOf: RangeError })
})

test('L14: a kernel that lacks what is needed is refused with names and versions', (t) => {
  const feature = { name: 'tcx', since: '6.6', required: true, cost: '', available: false, reason: 'EINVAL' }
  t.throws(() => requireFeatures([feature]), { message: /tcx \(EINVAL; Linux 6\.6 has it\).*6\.8 or later/ })
  t.notThrows(() => requireFeatures([{ ...feature, required: false }]))
})

test('L13: findCgroups tells a hybrid machine from one with cgroup v2 alone', (t) => {
  const v2 = 'proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw,relatime 0 0\n'
  t.deepEqual(findCgroups(v2), { unified: '/sys/fs/cgroup', legacy: [] })
  const hybrid = 'cgroup /sys/fs/cgroup/cpu cgroup rw,cpu,cpuacct 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n'
  t.deepEqual(findCgroups(hybrid), {
    unified: '/sys/fs/cgroup/unified',
    legacy: [{ path: '/sys/fs/cgroup/cpu', controllers: ['cpu', 'cpuacct'] }],
  })
  t.throws(() => findCgroups('proc /proc proc rw 0 0\n'), { message: /cgroup2/ })
})

test('ensureCgroup on cgroup v2 hands controllers down at every level, then sets the limits', (t) => {
  const unified = mkdtempSync(join(tmpdir(), 'weft-cgroup-'))
  t.teardown(() => rmSync(unified, { recursive: true }))
  const levels = ['', 'weft', 'weft/pods'].map((level) => join(unified, level))
  for (const dir of levels) {
    mkdirSync(dir, { recursive: true })
    writeFileSync(join(dir, 'cgroup.controllers'), 'cpu memory misc\n')
    writeFileSync(join(dir, 'cgroup.subtree_control'), dir.endsWith('pods') ? '' : 'cpu\n')
  }
  ensureCgroup({ unified, legacy: [] }, 'weft/pods/a', { cpuShares: 1024, memoryLimitBytes: 4096, pidsMax: 9 })
  const read = (file: string) => readFileSync(join(unified, file), 'utf8')
  t.is(read('weft/cgroup.subtree_control'), '+memory')
  t.is(read('weft/pods/cgroup.subtree_control'), '+cpu +memory')
  t.is(read('weft/pods/a/memory.max'), '4096')
  t.is(read('weft/pods/a/pids.max'), '9')
  t.is(read('weft/pods/a/cpu.weight'), String(weightOfShares(1024)))
  t.deepEqual([weightOfShares(2), weightOfShares(262_144)], [1, 10_000])
})
