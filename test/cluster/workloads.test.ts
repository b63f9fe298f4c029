import test from 'ava'
import type { DaemonSet, Deployment, ReplicaSet } from '#api/gen/apps-v1.ts'
import type { Namespace, Node, Pod } from '#api/gen/core-v1.ts'
import { daemonSets, deployments, namespaces, nodes, pods, replicaSets } from '#api/gen/resources.ts'
import { findCondition, isConditionTrue } from '#api/meta/conditions.ts'
import { eventually } from '#base/async/eventually.ts'
import { findCgroups, isPopulated } from '#kernel/cgroup.ts'
import { TestCluster } from './cluster.ts'
import { isReady, Watched } from './watched.ts'

/** Workloads on real nodes: roll out, roll back, give up, and go: with a namespace, with an owner, with a node. */
let cluster: TestCluster
let api: Watched
let orphan: Pod
const limits = { withinMs: 30_000, pauseMs: 50 }
/** The collector looks every 20 s, and a node must be missing for 40 s: two looks round that, and some. */
const collectedMs = 100_000

test.before(async () => {
  cluster = TestCluster.up('t-work', 3)
  api = await Watched.start(cluster)
  // The third node dies and is deleted now: what becomes of its pod takes the collector a minute to decide.
  await api.create('orphan', { nodeName: 'node-3', containers: [{ name: 'c', image: 'weft.local/echo:1' }] })
  orphan = await api.until('orphan', isReady)
  if ((await cluster.kill('node-3/agent')) === undefined) throw new Error('node-3 had no agent to kill')
  await api.client.delete(nodes, { name: 'node-3' })
})

test.after.always(async () => {
  await api?.[Symbol.asyncDispose]()
  cluster?.down()
})

const workload = (kind: string, name: string, spec: string, version = '1', image = 'weft.local/echo:1'): string => `
apiVersion: apps/v1
kind: ${kind}
metadata: { name: ${name} }
spec:
  ${spec}
  selector: { matchLabels: { app: ${name} } }
  template:
    metadata: { labels: { app: ${name}, version: "v${version}" } }
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{ name: c, image: "${image}" }]
`
const podsOf = async (app: string, namespace = 'default'): Promise<readonly Pod[]> =>
  (await api.client.list(pods, { namespace, labelSelector: `app=${app}` })).items
const key = (name: string) => ({ namespace: 'default', name })
const isThere = async (check: Promise<unknown>): Promise<boolean> =>
  check.then(
    () => true,
    (error: { code?: number }) => {
      if (error.code !== 404) throw error
      return false
    },
  )

test.serial('a DaemonSet is rolled out node by node, and back', async (t) => {
  const rollOut = () => cluster.kubectl('rollout', 'status', 'daemonset/every', '--timeout=30s')
  cluster.apply(workload('DaemonSet', 'every', 'minReadySeconds: 0'))
  rollOut()
  const first = await podsOf('every')
  t.deepEqual(first.map((p) => p.spec.nodeName).toSorted(), ['node-1', 'node-2'])
  cluster.apply(workload('DaemonSet', 'every', 'minReadySeconds: 0', '2'))
  rollOut()
  const second = await podsOf('every')
  t.deepEqual(
    second.map((p) => p.metadata.labels?.version),
    ['v2', 'v2'],
  )
  // One at a time: the last of the old ones is told to go only when the first of the new ones is ready.
  const version = (p: Pod | undefined) => Number(p?.metadata.resourceVersion)
  const told = first.map(({ metadata }) =>
    version(api.history(metadata.name).find((p) => p.metadata.uid === metadata.uid && p.metadata.deletionTimestamp)),
  )
  const came = second.map(({ metadata }) => version(api.history(metadata.name).find(isReady)))
  t.true(Math.max(...told) > Math.min(...came), `${told} ${came}`)
  t.regex(cluster.kubectl('rollout', 'history', 'daemonset/every'), /\n1 .*\n2 /)
  cluster.kubectl('rollout', 'undo', 'daemonset/every')
  rollOut()
  t.deepEqual(
    (await podsOf('every')).map((p) => p.metadata.labels?.version),
    ['v1', 'v1'],
  )
  t.regex(cluster.kubectl('rollout', 'history', 'daemonset/every'), /\n2 .*\n3 /)
  const set = await api.client.get<DaemonSet>(daemonSets, key('every'))
  t.like(set.status, { desiredNumberScheduled: 2, numberReady: 2, updatedNumberScheduled: 2 })
})

test.serial(
  'a Deployment whose image is not there misses its deadline, and says why; undo brings it back',
  async (t) => {
    cluster.apply(workload('Deployment', 'stuck', 'replicas: 2\n  progressDeadlineSeconds: 3'))
    cluster.kubectl('rollout', 'status', 'deployment/stuck', '--timeout=30s')
    cluster.apply(
      workload('Deployment', 'stuck', 'replicas: 2\n  progressDeadlineSeconds: 3', '2', 'weft.local/absent:1'),
    )
    const { code, stderr } = cluster.try(['rollout', 'status', 'deployment/stuck', '--timeout=30s'])
    t.is(code, 1)
    t.regex(stderr, /error: deployment "stuck" exceeded its progress deadline/)
    const found = await api.client.get<Deployment>(deployments, key('stuck'))
    const set = (await api.client.list(replicaSets, { namespace: 'default', labelSelector: 'app=stuck,version=v2' }))
      .items[0]
    t.like(findCondition(found.status.conditions, 'Progressing'), {
      status: 'False',
      reason: 'ProgressDeadlineExceeded',
      message: `ReplicaSet "${set?.metadata.name}" has timed out progressing.`,
    })
    t.true(isConditionTrue(found.status.conditions, 'Available'), 'the old pods serve on')
    const [bad] = (await podsOf('stuck')).filter((p) => p.metadata.labels?.version === 'v2')
    const name = bad?.metadata.name ?? ''
    const reasonOf = (p: Pod) => p.status.containerStatuses?.[0]?.state?.waiting
    const pull = await api.until(name, (p) => reasonOf(p)?.reason === 'ErrImagePull')
    t.regex(reasonOf(pull)?.message ?? '', /failed to pull.* image "weft\.local\/absent:1"/)
    const backOff = await api.until(name, (p) => reasonOf(p)?.reason === 'ImagePullBackOff')
    t.regex(reasonOf(backOff)?.message ?? '', /^Back-off pulling image "weft\.local\/absent:1": ErrImagePull: /)
    await eventually(async () => {
      const told = (await api.events(name)).map((e) => `${e.type} ${e.reason}: ${e.message}`)
      return [
        'Normal Pulling: Pulling image "weft.local/absent:1"',
        'Warning Failed: Error: ErrImagePull',
        'Normal BackOff: Back-off pulling image "weft.local/absent:1"',
        'Warning Failed: Error: ImagePullBackOff',
      ].every((line) => told.includes(line))
    }, limits)
    cluster.kubectl('rollout', 'undo', 'deployment/stuck')
    cluster.kubectl('rollout', 'status', 'deployment/stuck', '--timeout=30s')
    t.is(
      cluster.kubectl(
        'get',
        'deployment',
        'stuck',
        '-o',
        'jsonpath={.status.conditions[?(@.type=="Progressing")].reason}',
      ),
      'NewReplicaSetAvailable',
    )
  },
)

test.serial('the garbage collector: background, foreground and orphan', async (t) => {
  for (const name of ['background', 'foreground', 'orphaned'])
    cluster.apply(workload('Deployment', name, 'replicas: 2'))
  for (const name of ['background', 'foreground', 'orphaned'])
    cluster.kubectl('rollout', 'status', `deployment/${name}`, '--timeout=30s')
  const sets = async (app: string) =>
    (await api.client.list<ReplicaSet>(replicaSets, { namespace: 'default', labelSelector: `app=${app}` })).items
  const remove = (name: string, propagationPolicy: string) =>
    api.client.delete(deployments, key(name), { propagationPolicy })

  await remove('background', 'Background')
  t.false(await isThere(api.client.get(deployments, key('background'))), 'the owner goes at once')
  await eventually(async () => (await podsOf('background')).length + (await sets('background')).length === 0, limits)

  await remove('foreground', 'Foreground')
  const waiting = await api.client.get(deployments, key('foreground'))
  t.truthy(waiting.metadata.deletionTimestamp)
  t.deepEqual(waiting.metadata.finalizers, ['foregroundDeletion'])
  let podsLeft = -1
  await eventually(async () => {
    const left = (await podsOf('foreground')).length
    if (await isThere(api.client.get(deployments, key('foreground')))) return false
    podsLeft = left
    return true
  }, limits)
  t.is((await podsOf('foreground')).length, 0, `the owner goes last; ${podsLeft} were left before`)

  const [set] = await sets('orphaned')
  await remove('orphaned', 'Orphan')
  await eventually(async () => !(await isThere(api.client.get(deployments, key('orphaned')))), limits)
  const [left] = await sets('orphaned')
  t.is(left?.metadata.uid, set?.metadata.uid)
  t.deepEqual(left?.metadata.ownerReferences ?? [], [])
  t.is((await podsOf('orphaned')).length, 2)
  cluster.apply(workload('Deployment', 'orphaned', 'replicas: 2'))
  await eventually(async () => (await sets('orphaned'))[0]?.metadata.ownerReferences?.length === 1, limits)
  t.is((await sets('orphaned'))[0]?.metadata.uid, set?.metadata.uid, 'a new owner adopts what it finds')
})

test.serial('a deleted namespace takes everything along, and says what it waits for', async (t) => {
  cluster.kubectl('create', 'namespace', 'doomed')
  cluster.apply(
    workload('Deployment', 'd', 'replicas: 2').replace('{ name: d }', '{ name: d, namespace: doomed }') +
      `---
apiVersion: v1
kind: ConfigMap
metadata: { name: held, namespace: doomed, finalizers: [example.com/hold] }
---
apiVersion: v1
kind: Service
metadata: { name: d, namespace: doomed }
spec: { selector: { app: d }, ports: [{ port: 80 }] }
---
apiVersion: v1
kind: Secret
metadata: { name: s, namespace: doomed }
`,
  )
  cluster.kubectl('rollout', 'status', '-n', 'doomed', 'deployment/d', '--timeout=30s')
  cluster.kubectl('delete', 'namespace', 'doomed', '--wait=false')
  const held = await eventually(async () => {
    const found = await api.client.get<Namespace>(namespaces, { name: 'doomed' })
    const remaining = findCondition(found.status.conditions, 'NamespaceFinalizersRemaining')
    return remaining?.status === 'True' && (await podsOf('d', 'doomed')).length === 0 ? found : false
  }, limits)
  t.is(held.status.phase, 'Terminating')
  t.is(
    findCondition(held.status.conditions, 'NamespaceFinalizersRemaining')?.message,
    'Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances',
  )
  const refused = cluster.try(['create', 'configmap', 'late', '-n', 'doomed'])
  t.regex(refused.stderr, /unable to create new content in namespace doomed because it is being terminated/)
  cluster.kubectl(
    'patch',
    'configmap',
    'held',
    '-n',
    'doomed',
    '--type=merge',
    '-p',
    '{"metadata":{"finalizers":null}}',
  )
  await eventually(async () => !(await isThere(api.client.get(namespaces, { name: 'doomed' }))), limits)
  const kinds = cluster.kubectl('api-resources', '--namespaced', '--verbs=list', '-o', 'name').split('\n')
  t.true(kinds.length > 10)
  t.is(cluster.kubectl('get', kinds.join(','), '-n', 'doomed', '-o', 'name', '--ignore-not-found'), '')
})

test.serial('pods of a deleted node are collected; the node that comes back ends what is left of them', async (t) => {
  const last = await api.gone(orphan, collectedMs)
  t.is(last.status.phase, 'Failed')
  t.like(findCondition(last.status.conditions, 'DisruptionTarget'), { status: 'True', reason: 'DeletionByPodGC' })
  const cgroups = findCgroups()
  const cgroup = `${cluster.layout.nodes[2]?.cgroup}/pods/${orphan.metadata.uid}`
  t.true(isPopulated(cgroups, cgroup), 'nobody was there to end it')
  cluster.weftUp()
  t.true(isConditionTrue((await api.client.get<Node>(nodes, { name: 'node-3' })).status.conditions, 'Ready'))
  await eventually(() => isPopulated(cgroups, cgroup) === undefined, limits)
  await eventually(async () => (await podsOf('every')).filter(isReady).length === 3, limits)
})
