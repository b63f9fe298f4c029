import type { ServiceAccount } from '../gen/core-v1.ts'
import { serviceAccounts } from '../gen/resources.ts'
import { nameAndAge } from '../meta/columns.ts'
import { defineKind } from '../meta/define.ts'

export const serviceAccount = defineKind<ServiceAccount>({
  resource: serviceAccounts,
  message: 'core/v1.ServiceAccount',
  description: 'Who a pod is when it talks to the API.',
  shortNames: ['sa'],
  subresources: [
    { name: 'token', verbs: ['create'], kind: 'TokenRequest', group: 'authentication.k8s.io', version: 'v1' },
  ],
  columns: nameAndAge,
})
