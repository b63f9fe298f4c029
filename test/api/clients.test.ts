import test from 'ava'
import { clientConformance } from '#client/conformance.ts'
import { startApi } from './server.ts'

/** The suite of src/client, against the real API server, over every way to reach it. */
const api = await startApi()
test.after.always(() => api[Symbol.asyncDispose]())

const ways = { direct: api.direct(), port: api.port(), http: api.http() }
for (const [way, client] of Object.entries(ways))
  for (const { name, run } of clientConformance)
    test(`${way}: ${name}`, async (t) => {
      await t.notThrowsAsync(run(client))
    })
