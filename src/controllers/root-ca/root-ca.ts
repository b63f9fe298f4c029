import type { ConfigMap } from '#api/gen/core-v1.ts'
import { configMaps, namespaces } from '#api/gen/resources.ts'
import { isStatus } from '#api/meta/status.ts'
import { awaitChange } from '#reconcile/controller.ts'
import { isNamespaceTerminating } from '#reconcile/errors.ts'
import { createLoop, type LoopContext } from '#reconcile/loop.ts'
import type { Part } from '#reconcile/manager.ts'
import { planRootCa, rootCaName } from './plan.ts'

const description = 'The authority that signed the API server’s certificate, for pods that talk to the API server.'

/** Keeps the ConfigMap `kube-root-ca.crt` right in every namespace. Keys are names of namespaces. */
export const rootCaController =
  (rootCa: string) =>
  (context: LoopContext): Part => {
    const { client, informers } = context
    // Only these maps: nobody needs a copy of every ConfigMap there is.
    const maps = informers.of(configMaps, { fieldSelector: `metadata.name=${rootCaName}` })
    return createLoop(context, {
      reads: [namespaces],
      copies: [maps],
      begin({ controller, signal }) {
        const allNamespaces = informers.of(namespaces)
        controller.watch(allNamespaces, signal)
        controller.watch(maps, signal, ({ metadata }) => [metadata.namespace])
        return async (key, look) => {
          const map = maps.get(`${key}/${rootCaName}`)
          const action = planRootCa(allNamespaces.get(key), map, rootCa)
          if (action.do === 'nothing') return awaitChange
          const metadata = {
            name: rootCaName,
            namespace: key,
            annotations: { 'kubernetes.io/description': description },
          }
          try {
            if (map === undefined) {
              await client.create(configMaps, { metadata, data: { ...action.data } }, { signal: look.signal })
            } else {
              const right: ConfigMap = { ...map, data: { ...action.data } }
              await client.update(configMaps, right, { signal: look.signal })
            }
          } catch (error) {
            const settled = isStatus(error, 'AlreadyExists') || isStatus(error, 'NotFound')
            if (!settled && !isNamespaceTerminating(error)) throw error
          }
          return awaitChange
        }
      },
    })
  }
