import test from 'ava'
import { compile } from './compile.ts'
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
