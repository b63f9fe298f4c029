import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { bpfDir, compile } from './compile.ts'
import { testDatapath } from './conformance.ts'
import { FakeDatapath, FakeKernel } from './fake.ts'
import { encodeConfig } from './object.ts'

testDatapath(test, 'fake', async () => {
  const kernel = new FakeKernel()
  return { datapath: new FakeDatapath(kernel), devices: [5, 6], reopen: async () => new FakeDatapath(kernel) }
})

test('encodeConfig() masks networks as the programs compare them', (t) => {
  const network = encodeConfig({
    serviceCidrs: ['fd00:10:96::/112', '10.96.0.0/16'],
    gatewayMac: '02:00:00:00:00:01',
    uplinkMac: '02:00:00:00:00:01',
  })
  t.is(network.get('cfg_service_network4')?.toString('hex'), `${'0'.repeat(20)}ffff0a600000${'f'.repeat(28)}0000`)
  t.is(network.get('cfg_service_network6')?.toString('hex'), `fd00001000960000${'0'.repeat(16)}${'f'.repeat(28)}0000`)
})

test('compile() takes objects from the cache, also where there is no clang, and says what is missing', async (t) => {
  const objects = await compile({ cacheDir: '/var/cache/weft/bpf' })
  t.deepEqual(
    (await compile({ cacheDir: '/var/cache/weft/bpf', clang: 'clang-that-is-not-there' })).map((o) => o.hash),
    objects.map((o) => o.hash),
  )
  await t.throwsAsync(compile({ cacheDir: '/nonexistent', clang: 'clang-that-is-not-there' }), {
    message: /install clang/,
  })
})

/** Calls of the kernel's helpers by number, as they stand in the code of an object: ELF64, little-endian (include/uapi/linux/bpf.h). */
function helperCalls(elf: Buffer): Map<number, number> {
  const calls = new Map<number, number>()
  const [sections, size, count] = [Number(elf.readBigUInt64LE(0x28)), elf.readUInt16LE(0x3a), elf.readUInt16LE(0x3c)]
  for (let at = sections; at < sections + count * size; at += size) {
    const isCode = (elf.readUInt32LE(at + 8) & 0x4) !== 0
    const [first, length] = [Number(elf.readBigUInt64LE(at + 0x18)), Number(elf.readBigUInt64LE(at + 0x20))]
    for (let i = first; isCode && i < first + length; i += 8) {
      // BPF_JMP | BPF_CALL, and a helper rather than a function of ours. A 64-bit constant takes two places.
      if (elf[i] === 0x18) i += 8
      else if (elf[i] === 0x85 && ((elf[i + 1] ?? 0) & 0xf0) === 0)
        calls.set(elf.readInt32LE(i + 4), (calls.get(elf.readInt32LE(i + 4)) ?? 0) + 1)
    }
  }
  return calls
}

test('L5: no program goes on in another by a tail call, so no array of programs can be empty under one', async (t) => {
  const [lookup, tailCall] = [1, 12]
  for (const { name, elf } of await compile({ cacheDir: '/var/cache/weft/bpf' })) {
    const calls = helperCalls(elf)
    t.true(calls.size > 0, `${name} calls helpers at all`)
    if (name === 'from_container') t.true((calls.get(lookup) ?? 0) > 10, 'and looks into maps')
    t.is(calls.get(tailCall), undefined, name)
  }
})

test('L1: a connection is looked for where another version may have left it, too', (t) => {
  // flow.h and nat.h look there; before.h is that look. The short way leaves what it does not find to the long one.
  const look = /map_lookup_elem\(&(flows|translations)_v\d+, &pkt->tuple\)|map_lookup_elem\(&flows_v\d+, &place/g
  const found = readdirSync(join(bpfDir, 'lib')).flatMap((file) =>
    [...readFileSync(join(bpfDir, 'lib', file), 'utf8').matchAll(look)].map(([text]) => `${file}: ${text}`),
  )
  t.deepEqual(found, [
    // After an insertion that said that it is there.
    'embryo.h: map_lookup_elem(&flows_v1, &place',
    'express.h: map_lookup_elem(&flows_v1, &place',
  ])
})
