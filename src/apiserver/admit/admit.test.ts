import { webcrypto } from 'node:crypto'
import test from 'ava'
import type { CertificateSigningRequest } from '#api/gen/certificates-v1.ts'
import type { Node, Pod, PodSpec, Service } from '#api/gen/core-v1.ts'
import * as resources from '#api/gen/resources.ts'
import type { KubeObject, Resource } from '#api/meta/resource.ts'
import { Pkcs10CertificateRequestGenerator } from '#base/x509/x509.ts'
import type { User } from '../step.ts'
import { admissionSteps } from './admit.ts'
import { type Asked, account, meta, namespace, node, pod, request, setUp, verdict } from './trial.ts'

test('the order is upstream’s, then what upstream does in the registry', (t) => {
  const { registry, options } = setUp()
  t.deepEqual(
    admissionSteps(registry, options).map((s) => s.name),
    [
      'NamespaceLifecycle',
      'ServiceAccount',
      'NodeRestriction',
      'TaintNodesByCondition',
      'Priority',
      'DefaultTolerationSeconds',
      'OwnerReferencesPermissionEnforcement',
      'CertificateApproval',
      'CertificateSigning',
      'CertificateSubjectRestriction',
      'RoleEscalation',
      'ValidatingAdmissionPolicy',
      'CertificateRequester',
      'PodAddresses',
      'ServiceAddresses',
    ],
  )
})

test('a pod gets its account, the token volume, tolerations and a priority', (t) => {
  const all = setUp()
  const object = pod({ initContainers: [{ name: 'i', resources: {} }] })
  t.is(verdict(all, request(resources.pods, object)), 'admitted')
  const { spec } = object
  t.is(spec.serviceAccountName, 'default')
  t.deepEqual([spec.priority, spec.preemptionPolicy], [0, 'PreemptLowerPriority'])
  t.deepEqual(spec.tolerations, [
    { key: 'node.kubernetes.io/not-ready', operator: 'Exists', effect: 'NoExecute', tolerationSeconds: 300 },
    { key: 'node.kubernetes.io/unreachable', operator: 'Exists', effect: 'NoExecute', tolerationSeconds: 300 },
  ])
  const [volume] = spec.volumes ?? []
  t.regex(volume?.name ?? '', /^kube-api-access-[bcdfghjklmnpqrstvwxz2456789]{5}$/)
  t.deepEqual(volume?.projected, {
    defaultMode: 420,
    sources: [
      { serviceAccountToken: { expirationSeconds: 3607, path: 'token' } },
      { configMap: { name: 'kube-root-ca.crt', items: [{ key: 'ca.crt', path: 'ca.crt' }] } },
      {
        downwardAPI: {
          items: [{ path: 'namespace', fieldRef: { apiVersion: 'v1', fieldPath: 'metadata.namespace' } }],
        },
      },
    ],
  })
  const mount = { name: volume?.name, readOnly: true, mountPath: '/var/run/secrets/kubernetes.io/serviceaccount' }
  t.deepEqual(spec.containers[0]?.volumeMounts, [mount as never])
  t.deepEqual(spec.initContainers?.[0]?.volumeMounts, [mount as never])
})

test('no token where the pod, or its account, wants none; the pod’s word counts more', (t) => {
  const all = setUp()
  all.registry.put(
    resources.serviceAccounts,
    account('shy', { automountServiceAccountToken: false, imagePullSecrets: [{ name: 'pull' }] }),
  )
  const volumes = (spec: Partial<PodSpec>) => {
    const object = pod(spec)
    t.is(verdict(all, request(resources.pods, object)), 'admitted')
    return { count: object.spec.volumes?.length ?? 0, pull: object.spec.imagePullSecrets }
  }
  t.is(volumes({ automountServiceAccountToken: false }).count, 0)
  t.deepEqual(volumes({ serviceAccountName: 'shy' }), { count: 0, pull: [{ name: 'pull' }] })
  t.is(volumes({ serviceAccountName: 'shy', automountServiceAccountToken: true }).count, 1)
  t.deepEqual(volumes({ serviceAccountName: 'shy', imagePullSecrets: [{ name: 'own' }] }).pull, [{ name: 'own' }])
})

test('a pod whose account does not exist is refused; for a fresh namespace’s own the request waits', async (t) => {
  const all = setUp()
  t.is(
    verdict(all, request(resources.pods, pod({ serviceAccountName: 'ghost' }))),
    'pods "p" is forbidden: error looking up service account default/ghost: serviceaccount "ghost" not found',
  )
  t.is(all.admission.prepare?.(request(resources.pods, pod())), undefined, 'it is there: nothing to wait for')
  await all.registry.delete(resources.serviceAccounts, 'default', 'default')
  const waiting = all.admission.prepare?.(request(resources.pods, pod()))
  all.registry.put(resources.serviceAccounts, account('default'))
  await waiting
  t.is(verdict(all, request(resources.pods, pod())), 'admitted')
  await all.registry.delete(resources.serviceAccounts, 'default', 'default')
  const never = all.admission.prepare?.(request(resources.pods, pod()))
  all.clock.advance(2500)
  await never
  t.regex(verdict(all, request(resources.pods, pod())), /serviceaccount "default" not found/)
})

test('priority classes: the system’s two are known, others must exist, a number of one’s own is refused', (t) => {
  const all = setUp()
  const critical = pod({ priorityClassName: 'system-node-critical' })
  t.is(verdict(all, request(resources.pods, critical)), 'admitted')
  t.is(critical.spec.priority, 2_000_001_000)
  t.is(
    verdict(all, request(resources.pods, pod({ priorityClassName: 'gold' }))),
    'pods "p" is forbidden: no PriorityClass with name gold was found',
  )
  t.regex(
    verdict(all, request(resources.pods, pod({ priority: 5 }))),
    /the integer value of priority \(5\) must not be provided/,
  )
})

test('own tolerations stand, and one for everything is enough', (t) => {
  const all = setUp()
  const object = pod({ tolerations: [{ operator: 'Exists' }] })
  t.is(verdict(all, request(resources.pods, object)), 'admitted')
  t.deepEqual(object.spec.tolerations, [{ operator: 'Exists' }])
})

test('namespaces: none, going, immortal', (t) => {
  const all = setUp()
  all.registry.put(resources.namespaces, namespace('going', 'Terminating'))
  t.is(verdict(all, request(resources.pods, pod(), { namespace: 'nowhere' })), 'namespaces "nowhere" not found')
  t.is(
    verdict(all, request(resources.configMaps, undefined, { namespace: 'going', name: 'x' })),
    'configmaps "x" is forbidden: unable to create new content in namespace going because it is being terminated',
  )
  for (const name of ['default', 'kube-system', 'kube-public', 'kube-node-lease']) {
    t.is(
      verdict(all, request(resources.namespaces, undefined, { operation: 'DELETE', name })),
      `namespaces "${name}" is forbidden: this namespace may not be deleted`,
    )
  }
  t.is(verdict(all, request(resources.namespaces, undefined, { operation: 'DELETE', name: 'mine' })), 'admitted')
})

const nodeObject = (
  name: string,
  more: { labels?: Record<string, string>; taints?: { key: string; effect: 'NoSchedule' }[]; podCIDRs?: string[] } = {},
): Node =>
  ({
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { ...meta(name), labels: more.labels ?? {} },
    spec: { ...(more.taints ? { taints: more.taints } : {}), ...(more.podCIDRs ? { podCIDRs: more.podCIDRs } : {}) },
    status: {},
  }) as unknown as Node

test('a new Node takes no pods until it is ready', (t) => {
  const object = nodeObject('n9')
  t.is(verdict(setUp(), request(resources.nodes, object)), 'admitted')
  t.deepEqual(object.spec.taints, [{ key: 'node.kubernetes.io/not-ready', effect: 'NoSchedule' }])
})

test('NodeRestriction: a node writes itself, its pods’ status and its lease, and no label that draws pods', (t) => {
  const all = setUp()
  const mine = pod({ nodeName: 'n1' })
  all.registry.put(resources.pods, mine, { ...pod({ nodeName: 'n2' }), metadata: meta('theirs') })
  const say = <K extends KubeObject>(resource: Resource<K>, object: KubeObject | undefined, asked: Asked) =>
    verdict(all, request(resource, object, { user: node, ...asked }))
  t.is(
    say(
      resources.nodes,
      nodeObject('n1', { labels: { 'kubernetes.io/hostname': 'n1', mine: 'x', 'node.kubernetes.io/x': 'y' } }),
      {},
    ),
    'admitted',
  )
  t.regex(say(resources.nodes, nodeObject('n2'), {}), /node "n1" is not allowed to modify node "n2"/)
  t.regex(
    say(
      resources.nodes,
      nodeObject('n1', {
        labels: { 'node-restriction.kubernetes.io/secure': 'x', 'node-role.kubernetes.io/control-plane': '' },
      }),
      {},
    ),
    /not allowed to set the following labels: node-restriction.kubernetes.io\/secure, node-role.kubernetes.io\/control-plane/,
  )
  const update = { operation: 'UPDATE', name: 'n1' } as const
  const tainted = nodeObject('n1', { taints: [{ key: 'x', effect: 'NoSchedule' }] })
  t.regex(
    say(resources.nodes, nodeObject('n1'), { ...update, old: tainted }),
    /node "n1" is not allowed to modify taints/,
  )
  t.is(say(resources.nodes, nodeObject('n1'), { ...update, subresource: 'status', old: nodeObject('n1') }), 'admitted')
  t.regex(say(resources.pods, pod(), {}), /pod does not have "kubernetes.io\/config.mirror" annotation/)
  t.is(say(resources.pods, mine, { operation: 'UPDATE', subresource: 'status', name: 'p', old: mine }), 'admitted')
  const theirs = pod({ nodeName: 'n2' })
  t.regex(
    say(resources.pods, theirs, { operation: 'UPDATE', subresource: 'status', name: 'p', old: theirs }),
    /can only update pod status for pods with spec.nodeName set to itself/,
  )
  t.regex(
    say(resources.pods, mine, { operation: 'UPDATE', name: 'p', old: mine }),
    /can only create and delete mirror pods/,
  )
  t.is(say(resources.pods, undefined, { operation: 'DELETE', name: 'p' }), 'admitted')
  t.regex(
    say(resources.pods, undefined, { operation: 'DELETE', name: 'theirs' }),
    /can only delete pods with spec.nodeName set to itself/,
  )
  const lease = (name: string): KubeObject => ({
    apiVersion: 'coordination.k8s.io/v1',
    kind: 'Lease',
    metadata: meta(name),
  })
  t.is(say(resources.leases, lease('n1'), { namespace: 'kube-node-lease' }), 'admitted')
  t.regex(say(resources.leases, lease('n2'), { namespace: 'kube-node-lease' }), /same name as the requesting node/)
  const token = (ref: object | undefined) =>
    say(
      resources.serviceAccounts,
      { apiVersion: '', kind: 'TokenRequest', metadata: meta(''), spec: { boundObjectRef: ref } } as never,
      { subresource: 'token', name: 'default' },
    )
  t.is(token({ apiVersion: 'v1', kind: 'Pod', name: 'p', uid: 'uid-p' }), 'admitted')
  t.regex(token(undefined), /node requested token not bound to a pod/)
  t.regex(token({ apiVersion: 'v1', kind: 'Pod', name: 'p' }), /without a uid/)
  t.regex(token({ apiVersion: 'v1', kind: 'Pod', name: 'theirs', uid: 'uid-theirs' }), /scheduled on a different node/)
})

const deploymentController: User = { name: 'system:serviceaccount:kube-system:deployment-controller', groups: [] }

test('owner references are rights', (t) => {
  const all = setUp()
  const owned = (apiVersion: string, kind: string): KubeObject => ({
    apiVersion: 'apps/v1',
    kind: 'ReplicaSet',
    metadata: {
      ...meta('rs'),
      ownerReferences: [{ apiVersion, kind, name: 'd', uid: 'u', controller: true, blockOwnerDeletion: true }],
    },
  })
  const say = (user: User, object: KubeObject, asked: Asked = {}) =>
    verdict(all, request(resources.replicaSets, object, { user, ...asked }))
  t.is(say(deploymentController, owned('apps/v1', 'Deployment')), 'admitted')
  t.regex(say(deploymentController, owned('apps/v1', 'DaemonSet')), /refers to a resource you can't set finalizers on/)
  t.regex(
    say(deploymentController, owned('example.com/v1', 'Widget')),
    /cannot find RESTMapping for APIVersion example.com\/v1 Kind Widget/,
  )
  const scheduler: User = { name: 'system:kube-scheduler', groups: [] }
  const bare: KubeObject = { apiVersion: 'apps/v1', kind: 'ReplicaSet', metadata: meta('rs') }
  t.regex(
    say(scheduler, owned('apps/v1', 'Deployment'), { operation: 'UPDATE', name: 'rs', old: bare }),
    /cannot set an ownerRef on a resource you can't delete/,
  )
  t.is(say(scheduler, bare, { operation: 'UPDATE', name: 'rs', old: bare }), 'admitted')
})

test('nobody grants what he does not hold', (t) => {
  const all = setUp()
  const rbac = { apiVersion: 'rbac.authorization.k8s.io/v1' } as const
  const editor: User = { name: 'ed', groups: [] }
  all.registry.put(resources.roleBindings, {
    ...rbac,
    kind: 'RoleBinding',
    metadata: meta('ed'),
    roleRef: { kind: 'ClusterRole', name: 'admin' },
    subjects: [{ kind: 'User', name: 'ed' }],
  })
  const role = (verb: string, resource: string): KubeObject =>
    ({
      ...rbac,
      kind: 'Role',
      metadata: meta('r'),
      rules: [{ verbs: [verb], apiGroups: [''], resources: [resource] }],
    }) as KubeObject
  t.is(verdict(all, request(resources.roles, role('get', 'pods'), { user: editor })), 'admitted')
  t.is(
    verdict(all, request(resources.roles, role('get', 'nodes'), { user: editor })),
    'roles.rbac.authorization.k8s.io "r" is forbidden: user "ed" (groups=[]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[""], Resources:["nodes"], Verbs:["get"]}',
  )
  t.is(
    verdict(
      all,
      request(resources.roles, role('get', 'nodes'), {
        user: editor,
        operation: 'UPDATE',
        name: 'r',
        old: role('get', 'nodes'),
      }),
    ),
    'admitted',
    'unchanged rules are no grant',
  )
  const binding = (name: string): KubeObject =>
    ({
      ...rbac,
      kind: 'RoleBinding',
      metadata: meta('b'),
      roleRef: { kind: 'ClusterRole', name },
      subjects: [{ kind: 'User', name: 'x' }],
    }) as KubeObject
  t.is(verdict(all, request(resources.roleBindings, binding('view'), { user: editor })), 'admitted')
  t.regex(
    verdict(all, request(resources.roleBindings, binding('cluster-admin'), { user: editor })),
    /not currently held/,
  )
  t.regex(verdict(all, request(resources.roleBindings, binding('ghost'), { user: editor })), /"ghost" not found/)
  t.is(verdict(all, request(resources.roleBindings, binding('cluster-admin'))), 'admitted')
})

async function csr(organization: string, signerName: string): Promise<CertificateSigningRequest> {
  const keys = await webcrypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, true, ['sign', 'verify'])
  const made = await Pkcs10CertificateRequestGenerator.create({
    name: [{ O: [organization] }, { CN: ['x'] }],
    keys: keys as webcrypto.CryptoKeyPair,
    signingAlgorithm: { name: 'ECDSA', hash: 'SHA-256' },
  })
  const spec = {
    request: Buffer.from(made.toString('pem')).toString('base64'),
    signerName,
    username: 'liar',
    groups: ['system:masters'],
  }
  return {
    apiVersion: 'certificates.k8s.io/v1',
    kind: 'CertificateSigningRequest',
    metadata: meta('csr'),
    spec,
    status: {},
  }
}

test('certificates: who asks is written by the server, and nobody asks to be master', async (t) => {
  const all = setUp()
  const jane: User = { name: 'jane', groups: ['devs'], extra: { k: ['v'] } }
  const wanted = await csr('devs', 'kubernetes.io/kube-apiserver-client')
  const asked = request(resources.certificateSigningRequests, wanted, { user: jane })
  await all.admission.prepare?.(asked)
  t.is(verdict(all, asked), 'admitted')
  t.deepEqual([wanted.spec.username, wanted.spec.groups, wanted.spec.extra], ['jane', ['devs'], { k: ['v'] }])
  t.regex(
    verdict(
      all,
      request(resources.certificateSigningRequests, await csr('system:masters', 'kubernetes.io/kube-apiserver-client')),
    ),
    /use of kubernetes.io\/kube-apiserver-client signer with system:masters group is not allowed/,
  )
})

test('approving and signing are rights on the signer', async (t) => {
  const all = setUp()
  const approver: User = { name: 'system:serviceaccount:kube-system:certificate-controller', groups: [] }
  const check = async (signer: string, user: User, subresource: 'approval' | 'status') => {
    const old = await csr('devs', signer)
    all.registry.put(resources.certificateSigningRequests, old)
    const next = { ...old, status: { certificate: 'PEM', conditions: [{ type: 'Approved', status: 'True' }] } }
    return verdict(
      all,
      request(resources.certificateSigningRequests, next, { user, operation: 'UPDATE', name: 'csr', subresource, old }),
    )
  }
  t.is(await check('kubernetes.io/kubelet-serving', approver, 'approval'), 'admitted')
  t.is(
    await check('kubernetes.io/kube-apiserver-client', approver, 'approval'),
    'certificatesigningrequests.certificates.k8s.io "csr" is forbidden: user not permitted to approve requests with signerName "kubernetes.io/kube-apiserver-client"',
  )
  t.is(await check('kubernetes.io/kubelet-serving', approver, 'status'), 'admitted')
  t.regex(
    await check('example.com/own', approver, 'status'),
    /user not permitted to sign requests with signerName "example.com\/own"/,
  )
})

test('a Service gets its address in admission, and gives it back when its write fails', (t) => {
  const all = setUp()
  const service = (name: string, clusterIP?: string): Service => ({
    apiVersion: 'v1',
    kind: 'Service',
    metadata: meta(name),
    spec: { type: 'ClusterIP', ...(clusterIP === undefined ? {} : { clusterIP }) },
    status: { loadBalancer: {} },
  })
  const first = request(resources.services, service('a', '10.96.5.5'))
  t.is(verdict(all, first), 'admitted')
  t.regex(verdict(all, request(resources.services, service('b', '10.96.5.5'))), /already allocated/)
  all.admission.settled(first, 'failed')
  t.is(verdict(all, request(resources.services, service('b', '10.96.5.5'))), 'admitted')
})

test('nobody writes a pod’s addresses but the server', (t) => {
  const all = setUp()
  all.registry.put(resources.nodes, nodeObject('n1', { podCIDRs: ['10.244.1.0/24'] }))
  const key = 'weft.dev/pod-ips'
  const liar = pod({}, { [key]: '10.244.1.9' })
  t.is(verdict(all, request(resources.pods, liar)), 'admitted')
  t.is(liar.metadata.annotations?.[key], undefined)
  const placed = pod({ nodeName: 'n1' }, { [key]: '10.244.1.9' })
  t.is(verdict(all, request(resources.pods, placed)), 'admitted')
  t.is(placed.metadata.annotations?.[key], '10.244.1.2')
  const update = pod({}, { [key]: '10.244.1.9', other: 'x' })
  t.is(verdict(all, request(resources.pods, update, { operation: 'UPDATE', name: 'p', old: placed })), 'admitted')
  t.deepEqual(update.metadata.annotations, { [key]: '10.244.1.2', other: 'x' })
  const host = pod({ nodeName: 'n1', hostNetwork: true })
  t.is(verdict(all, request(resources.pods, host)), 'admitted')
  t.is(host.metadata.annotations?.[key], undefined)
})

test('nobody writes a pod’s identity but the server, and it follows the labels that a policy looks at', (t) => {
  const all = setUp()
  all.registry.put(resources.nodes, nodeObject('n1', { podCIDRs: ['10.244.1.0/24'] }))
  all.registry.put(resources.networkPolicies, {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    metadata: meta('np'),
    spec: { podSelector: { matchLabels: { app: 'a' } } },
  })
  const key = 'weft.dev/identity'
  const liar = pod({}, { [key]: '300', 'weft.dev/named-ports': 'x:1/TCP' })
  t.is(verdict(all, request(resources.pods, liar)), 'admitted')
  t.deepEqual(liar.metadata.annotations, {})
  const placed = pod({ nodeName: 'n1' }, { [key]: '300' })
  t.is(verdict(all, request(resources.pods, placed)), 'admitted')
  t.is(placed.metadata.annotations?.[key], '1000')
  all.registry.put(resources.pods, placed)
  const labelled = (labels: Record<string, string>): Pod => {
    const update = structuredClone(placed)
    update.metadata.labels = labels
    update.metadata.annotations = { [key]: '300' }
    t.is(verdict(all, request(resources.pods, update, { operation: 'UPDATE', name: 'p', old: placed })), 'admitted')
    return update
  }
  t.is(labelled({ other: 'x' }).metadata.annotations?.[key], '1000', 'a label that no policy looks at')
  t.is(labelled({ app: 'x' }).metadata.annotations?.[key], '1001')
})
