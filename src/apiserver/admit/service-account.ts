import type { Container, Pod, ServiceAccount, Volume } from '#api/gen/core-v1.ts'
import { namespaces, pods, serviceAccounts } from '#api/gen/resources.ts'
import { randomSuffix } from '#api/meta/generate-name.ts'
import type { Clock } from '#base/clock.ts'
import type { Registry } from '../step.ts'
import { type AdmissionStep, isAbout, objectOf, refusal } from './step.ts'

export const mirrorAnnotation = 'kubernetes.io/config.mirror'
const tokenPath = '/var/run/secrets/kubernetes.io/serviceaccount'
/** Upstream's: a little over an hour, by which the token handler knows it for the one in every pod. */
const tokenSeconds = 3607
const defaultMode = 0o644
/** A namespace gets its default account a moment after itself; who creates a pod meanwhile waits this long at most. */
const accountWaitMs = 2500

/** Every pod runs as an account: the account must exist, and its token, the cluster's authority and the namespace are mounted. */
export function serviceAccount(registry: Registry, clock: Clock): AdmissionStep {
  const waiting = waiters(registry, clock)
  return {
    name: 'ServiceAccount',
    prepare(request) {
      if (request.operation !== 'CREATE' || !isAbout(request, pods)) return undefined
      const pod = objectOf(request, pods)
      const { namespace } = request.attributes
      if (pod === undefined || isMirror(pod) || (pod.spec.serviceAccountName ?? 'default') !== 'default')
        return undefined
      const present = registry.get(serviceAccounts, namespace, 'default')
      return present || !registry.get(namespaces, '', namespace) ? undefined : waiting(namespace)
    },
    mutate(request) {
      if (request.operation !== 'CREATE' || !isAbout(request, pods)) return
      const pod = objectOf(request, pods)
      if (pod === undefined || isMirror(pod)) return
      const { spec } = pod
      spec.serviceAccountName ||= 'default'
      spec.serviceAccount = spec.serviceAccountName
      const { namespace } = request.attributes
      const account = registry.get(serviceAccounts, namespace, spec.serviceAccountName)
      if (account === undefined) {
        const name = spec.serviceAccountName
        throw refusal(
          request,
          `error looking up service account ${namespace}/${name}: serviceaccount "${name}" not found`,
        )
      }
      if (wantsToken(pod, account)) mountToken(pod)
      if (!spec.imagePullSecrets?.length && account.imagePullSecrets?.length) {
        spec.imagePullSecrets = structuredClone(account.imagePullSecrets)
      }
    },
    validate(request) {
      if (request.operation !== 'CREATE' || !isAbout(request, pods)) return
      const pod = objectOf(request, pods)
      if (pod === undefined || !isMirror(pod)) return
      if (pod.spec.serviceAccountName) throw refusal(request, 'a mirror pod may not reference service accounts')
      const tokens = pod.spec.volumes?.some((v) => v.projected?.sources?.some((s) => s.serviceAccountToken))
      if (tokens) throw refusal(request, 'a mirror pod may not use ServiceAccountToken volume projections')
    },
  }
}

export const isMirror = ({ metadata }: Pod): boolean => metadata.annotations?.[mirrorAnnotation] !== undefined

const wantsToken = ({ spec }: Pod, account: ServiceAccount): boolean =>
  spec.automountServiceAccountToken ?? account.automountServiceAccountToken ?? true

/** Mounts at the well-known path wherever a container has nothing there yet. */
function mountToken({ spec }: Pod): void {
  const lacking = [...(spec.initContainers ?? []), ...spec.containers].filter(
    (c: Container) => !c.volumeMounts?.some((m) => m.mountPath === tokenPath),
  )
  if (lacking.length === 0) return
  const present = spec.volumes?.find((v) => v.name.startsWith('kube-api-access-'))
  const volume = present ?? tokenVolume(`kube-api-access-${randomSuffix(5)}`)
  if (present === undefined) spec.volumes = [...(spec.volumes ?? []), volume]
  for (const container of lacking) {
    const mount = { name: volume.name, readOnly: true, mountPath: tokenPath }
    container.volumeMounts = [...(container.volumeMounts ?? []), mount]
  }
}

const tokenVolume = (name: string): Volume => ({
  name,
  projected: {
    defaultMode,
    sources: [
      { serviceAccountToken: { expirationSeconds: tokenSeconds, path: 'token' } },
      { configMap: { name: 'kube-root-ca.crt', items: [{ key: 'ca.crt', path: 'ca.crt' }] } },
      {
        downwardAPI: {
          items: [{ path: 'namespace', fieldRef: { apiVersion: 'v1', fieldPath: 'metadata.namespace' } }],
        },
      },
    ],
  },
})

/** A promise per call that settles when the namespace's default account appears, or when the wait is over. */
function waiters(registry: Registry, clock: Clock): (namespace: string) => Promise<void> {
  const byNamespace = new Map<string, Set<() => void>>()
  registry.onChange(serviceAccounts, (next) => {
    if (next?.metadata.name !== 'default') return
    for (const wake of byNamespace.get(next.metadata.namespace) ?? []) wake()
  })
  return (namespace) =>
    new Promise((resolve) => {
      const set = byNamespace.get(namespace) ?? new Set<() => void>()
      byNamespace.set(namespace, set)
      const wake = (): void => {
        cancel()
        set.delete(wake)
        if (set.size === 0) byNamespace.delete(namespace)
        resolve()
      }
      const cancel = clock.schedule(accountWaitMs, wake)
      set.add(wake)
    })
}
