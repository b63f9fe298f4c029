import { strict as assert } from 'node:assert'
import type { Pod, PodTemplateSpec } from '#api/gen/core-v1.ts'
import { daemonSets, deployments, namespaces, pods, replicaSets, serviceAccounts } from '#api/gen/resources.ts'
import type { KubeObject, Resource } from '#api/meta/resource.ts'
import { isStatus } from '#api/meta/status.ts'
import { formatTime } from '#api/meta/time.ts'
import { eventually } from '#base/async/eventually.ts'
import { Scope } from '#base/async/scope.ts'
import { FakeClock } from '#base/clock.ts'
import { silentLog } from '#base/log/log.ts'
import type { Client, Draft } from '#client/client.ts'
import { FakeClient } from '#client/fake.ts'
import { Informers } from '#client/informer.ts'
import type { LoopContext } from '#reconcile/loop.ts'
import type { Part } from '#reconcile/manager.ts'

/**
 * Scenarios: what the control loops do, told from outside through the API. They take nothing but a client factory, so
 * that the same ones run over the fake, the in-process and the http client. All clients of one factory see one API;
 * without a user it gives an administrator's.
 */
export type ClientFactory = (user?: string) => Promise<Client>

export interface Scenario {
  readonly name: string
  run(factory: ClientFactory): Promise<void>
}

export type PartFactory = (context: LoopContext) => Part

/** A loop under the identity that it has in a cluster, so that a scenario proves its rights too. */
export interface Loop {
  /** Its service account in kube-system, or a user (`system:kube-scheduler`); undefined: an administrator. */
  readonly account: string | undefined
  readonly create: PartFactory
}

export interface World {
  readonly client: Client
  /** A namespace of this scenario's own, with its default service account. */
  readonly namespace: string
  /** The loops' clock: it moves only when the scenario says so. */
  readonly clock: FakeClock
  create<K extends KubeObject>(resource: Resource<K>, draft: Draft<K>): Promise<K>
  get<K extends KubeObject>(resource: Resource<K>, name: string): Promise<K>
  list<K extends KubeObject>(resource: Resource<K>): Promise<readonly K[]>
  patch<K extends KubeObject>(resource: Resource<K>, name: string, patch: unknown, subresource?: string): Promise<K>
  /** Waits until `check` no longer throws. */
  until<T>(check: () => Promise<T>): Promise<T>
}

let serial = 0

/** A scenario in a namespace of its own, with `loops` running; all of it ends with the scenario. */
export function scenario(name: string, loops: readonly Loop[], body: (world: World) => Promise<void>): Scenario {
  return {
    name,
    async run(factory) {
      const client = await factory()
      // Real time to begin with: a server's own time stamps lie beside those of the loops.
      const clock = new FakeClock(Date.now())
      const namespace = `scenario-${process.pid}-${++serial}`
      await client.create(namespaces, { metadata: { name: namespace } })
      await client
        .create(serviceAccounts, { metadata: { name: 'default', namespace } })
        .catch((error: unknown) => assert.ok(isStatus(error, 'AlreadyExists'), String(error)))
      try {
        await play(loops, factory, client, clock, () => body(world(client, namespace, clock)))
      } finally {
        // Pods that are left would be news to the next scenario's loops.
        for (const resource of [deployments, replicaSets, daemonSets, pods])
          await client.deleteCollection(resource as Resource, { namespace, gracePeriodSeconds: 0 })
      }
    },
  }
}

/** Runs the loops for as long as `body` takes. */
async function play(
  loops: readonly Loop[],
  factory: ClientFactory,
  client: Client,
  clock: FakeClock,
  body: () => Promise<void>,
): Promise<void> {
  await using scope = new Scope()
  await using informers = new Informers({ client })
  for (const { account, create } of loops) {
    const user = account?.includes(':') === false ? `system:serviceaccount:kube-system:${account}` : account
    const own = user === undefined ? client : await factory(user)
    const { run } = create({ name: account ?? 'node', client: own, informers, clock, log: silentLog })
    await new Promise<void>((started, failed) => {
      scope.start((signal) =>
        run(signal, started).catch((error: unknown) => {
          failed(error)
          throw error
        }),
      )
    })
  }
  await body()
}

function world(client: Client, namespace: string, clock: FakeClock): World {
  return {
    client,
    namespace,
    clock,
    create: (resource, draft) =>
      client.create(resource, { ...draft, metadata: { ...draft.metadata, namespace } } as typeof draft),
    get: (resource, name) => client.get(resource, { namespace, name }),
    list: async (resource) => (await client.list(resource, { namespace })).items,
    patch: (resource, name, patch, subresource) =>
      client.patch(resource, { namespace, name }, 'merge', patch, subresource === undefined ? {} : { subresource }),
    until: (check) => eventually(check, { withinMs: 10_000 }) as Promise<Awaited<ReturnType<typeof check>>>,
  }
}

/** A template of one container; `version` is what a rollout changes. */
export const template = (app: string, version = '1'): PodTemplateSpec => ({
  metadata: { labels: { app } },
  spec: { containers: [{ name: 'main', image: `example.com/app:${version}`, resources: {} }] },
})

/** What a node would report of a pod that works. */
export const readyStatus = (now: number): Pick<Pod['status'], 'phase' | 'conditions'> => ({
  phase: 'Running',
  conditions: [{ type: 'Ready', status: 'True', lastTransitionTime: formatTime(now) }],
})

/** Plays the node for pods that `isGood` says work: they are ready at once. */
export const readyPods = (isGood: (pod: Pod) => boolean = () => true): Loop => ({
  account: undefined,
  create: ({ client, informers, clock }) => ({
    name: 'ready-pods',
    async run(signal, started) {
      const informer = informers.of(pods)
      await informer.whenSynced(signal)
      await using scope = new Scope(signal)
      informer.onChange((pod) => {
        if (pod === undefined || pod.status.phase !== 'Pending' || pod.metadata.deletionTimestamp || !isGood(pod))
          return
        const patch = { status: readyStatus(clock.now()) }
        scope.start(async () => {
          await client
            .patch(pods, pod.metadata, 'merge', patch, { subresource: 'status' })
            .catch((error: unknown) => assert.ok(isStatus(error, 'NotFound'), String(error)))
        })
      }, signal)
      started()
      await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }))
    },
  }),
})

/** The fake as a factory: a fresh API, seen by everybody. */
export function fakeFactory(): ClientFactory {
  const admin = new FakeClient()
  return async (user) => (user === undefined ? admin : admin.as(user))
}
