import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { configMap, startTrial } from '#apiserver/trial.ts'
import { openLmdbStore } from '#store/lmdb/lmdb.ts'

const maps = '/api/v1/namespaces/default/configmaps'

test('on a full disk writes say so, reads go on, and with room again writes work again, also after a restart', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'weft-disk-full-'))
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=6m', 'weft-test', directory])
  const pad = join(directory, 'pad')
  try {
    writeFileSync(pad, Buffer.alloc(2_000_000))
    const data = { pad: 'x'.repeat(50_000) }
    let made = 0
    {
      await using trial = await startTrial({ store: openLmdbStore(join(directory, 'store')) })
      let refused = await trial.call('POST', maps, configMap('m-0', { data }))
      while (refused.status === 201) refused = await trial.call('POST', maps, configMap(`m-${++made}`, { data }))
      t.is(refused.status, 503)
      t.is(refused.object.reason, 'ServiceUnavailable')
      t.regex(refused.object.message ?? '', /no space left on the disk of .*: make room, then writes work again/)
      t.true(made > 10)
      t.is((await trial.call('GET', `${maps}/m-0`)).status, 200)
      t.is((await trial.call('GET', maps)).object.items?.length, made)
      t.is((await trial.call('GET', '/livez')).status, 200)
      t.is((await trial.call('GET', '/readyz')).status, 500)
      t.is((await trial.call('POST', maps, configMap('again', { data }))).status, 503)
      rmSync(pad)
      t.is((await trial.call('POST', maps, configMap('again', { data }))).status, 201)
      t.is((await trial.call('GET', '/readyz')).status, 200)
    }
    await using trial = await startTrial({ store: openLmdbStore(join(directory, 'store')) })
    t.is((await trial.call('GET', maps)).object.items?.length, made + 1)
  } finally {
    execFileSync('umount', [directory])
    rmSync(directory, { recursive: true })
  }
})
