import { strict as assert } from 'node:assert'
import { namespaces, serviceAccounts } from '#api/gen/resources.ts'
import { type Loop, scenario } from '../workload/scenario.ts'
import { serviceAccountController } from './service-account.ts'

const controller: Loop = { account: 'service-account-controller', create: serviceAccountController }

/** What the keeper of default accounts does, seen through the API. */
export const serviceAccountScenarios = [
  scenario(
    'a new namespace gets its default account, and gets it again when it is deleted',
    [controller],
    async ({ client, namespace, until }) => {
      const name = `${namespace}-new`
      await client.create(namespaces, { metadata: { name } })
      const key = { namespace: name, name: 'default' }
      const first = await until(() => client.get(serviceAccounts, key))
      await client.delete(serviceAccounts, key)
      await until(async () =>
        assert.notEqual((await client.get(serviceAccounts, key)).metadata.uid, first.metadata.uid),
      )
    },
  ),
]
