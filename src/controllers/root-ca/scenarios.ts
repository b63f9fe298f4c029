import { strict as assert } from 'node:assert'
import { configMaps } from '#api/gen/resources.ts'
import { type Loop, scenario } from '../workload/scenario.ts'
import { rootCaController } from './root-ca.ts'

const controller: Loop = { account: 'root-ca-cert-publisher', create: rootCaController('CA') }

/** What the publisher of the root certificate does, seen through the API. */
export const rootCaScenarios = [
  scenario(
    'every namespace has the root certificate, also after somebody changed or deleted it',
    [controller],
    async ({ get, patch, client, namespace, until }) => {
      const right = () =>
        until(async () => assert.deepEqual((await get(configMaps, 'kube-root-ca.crt')).data, { 'ca.crt': 'CA' }))
      await right()
      await patch(configMaps, 'kube-root-ca.crt', { data: { 'ca.crt': 'another', more: 'x' } })
      await right()
      await client.delete(configMaps, { namespace, name: 'kube-root-ca.crt' })
      await right()
    },
  ),
]
