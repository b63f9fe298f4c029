import { readFileSync } from 'node:fs'
import test from 'ava'
import { eventually } from '#base/async/eventually.ts'
import { TestCluster } from './cluster.ts'

/** Each part has the rights of its own role and no other: take one away, and that part, and only it, stops with Forbidden. */
let cluster: TestCluster

test.before(() => {
  cluster = TestCluster.up('t-roles', 1)
})
test.after.always(() => cluster?.down())

interface Case {
  /** The ClusterRoleBinding that gives the part its rights. */
  readonly binding: string
  /** The part's name in the server's log. */
  readonly part: RegExp
  /** How long the part may take to come to it; 20 seconds unless it says more. */
  readonly withinMs?: number
  /** Gives the part something to do. `n` makes names new. */
  provoke(n: string): void
}

const apply = (yaml: string): void => void cluster.apply(yaml)
const pod = (name: string, more = ''): string => `
apiVersion: v1
kind: Pod
metadata: { name: ${name}${more} }
spec: { terminationGracePeriodSeconds: 0, containers: [{ name: c, image: "weft.local/echo:1" }] }
`
const workload = (kind: string, name: string, replicas: string): string => `
apiVersion: apps/v1
kind: ${kind}
metadata: { name: ${name} }
spec:
  ${replicas}
  selector: { matchLabels: { app: ${name} } }
  template:
    metadata: { labels: { app: ${name} } }
    spec: { containers: [{ name: c, image: "weft.local/echo:1" }] }
`
const service = (name: string): string => `
apiVersion: v1
kind: Service
metadata: { name: ${name} }
spec: { selector: { app: ${name} }, ports: [{ port: 80 }] }
`

/** For CN=roles-test, in PEM, in base64. Its key is nobody's. */
const signingRequest =
  'LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlIUE1IY0NBUUF3RlRFVE1CRUdBMVVFQXd3S2NtOXNaWE10ZEdWemREQlpNQk1HQnlxR1NNNDlBZ0VHQ0NxRwpTTTQ5QXdFSEEwSUFCSmFUTFVkUmo3UzZtRm5jS0RQbzhWc2pPQ0tEK2hyNzVqWFZLWDA0ektwdmxLcEVqMW5JCll1N3QzaWZTekREdkFKSDhSMjlOSm1abU82OUxSRnJMNFA2Z0FEQUtCZ2dxaGtqT1BRUURBZ05JQURCRkFpQTgKV1VGMGJoTUtETDM0OXN4Vnp6dXUzU1ArSjhzbVJ2enR0cVpTMDJtUE9nSWhBSXBLVGd0T0tRRFZxYjVhMisxVgo1K1l4THY3R1VncysxZTRvY0dxR0c4RTgKLS0tLS1FTkQgQ0VSVElGSUNBVEUgUkVRVUVTVC0tLS0tCg=='

const cases: readonly Case[] = [
  {
    binding: 'system:controller:deployment-controller',
    part: /^deployment-controller$/,
    provoke: (n) => apply(workload('Deployment', `d${n}`, 'replicas: 0')),
  },
  {
    binding: 'system:controller:replicaset-controller',
    part: /^replicaset-controller$/,
    provoke: (n) => apply(workload('ReplicaSet', `r${n}`, 'replicas: 1')),
  },
  {
    binding: 'system:controller:daemon-set-controller',
    part: /^daemon-?set-controller$/,
    provoke: (n) => apply(workload('DaemonSet', `s${n}`, 'minReadySeconds: 0')),
  },
  {
    binding: 'system:controller:endpointslice-controller',
    part: /^endpoint-?slice-controller$/,
    provoke: (n) => apply(service(`e${n}`)),
  },
  {
    binding: 'system:controller:endpointslicemirroring-controller',
    part: /^endpoint-slice-mirroring-controller$/,
    provoke: (n) =>
      apply(`
apiVersion: v1
kind: Service
metadata: { name: m${n} }
spec: { ports: [{ port: 80 }] }
---
apiVersion: v1
kind: Endpoints
metadata: { name: m${n} }
subsets: [{ addresses: [{ ip: 172.30.0.99 }], ports: [{ port: 80 }] }]
`),
  },
  {
    binding: 'system:controller:endpoint-controller',
    part: /^endpoints?-controller$/,
    provoke: (n) => apply(service(`p${n}`)),
  },
  {
    binding: 'system:controller:service-controller',
    part: /^service-controller$/,
    provoke: (n) =>
      apply(`
apiVersion: v1
kind: Service
metadata: { name: l${n} }
spec: { type: LoadBalancer, ports: [{ port: 80 }] }
`),
  },
  {
    binding: 'system:controller:gateway-controller',
    part: /^gateway-controller$/,
    provoke: (n) =>
      apply(`
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: g${n} }
spec: { gatewayClassName: weft, listeners: [{ name: http, port: 80, protocol: HTTP }] }
`),
  },
  {
    binding: 'system:controller:service-account-controller',
    part: /^service-account-controller$/,
    provoke: (n) => void cluster.kubectl('create', 'namespace', `a${n}`),
  },
  {
    binding: 'system:controller:root-ca-cert-publisher',
    part: /^root-ca-cert-publisher$/,
    provoke: (n) => void cluster.kubectl('create', 'namespace', `c${n}`),
  },
  {
    binding: 'system:controller:namespace-controller',
    part: /^namespace-controller$/,
    provoke: (n) => {
      cluster.kubectl('create', 'namespace', `n${n}`)
      cluster.kubectl('delete', 'namespace', `n${n}`, '--wait=false')
    },
  },
  {
    binding: 'system:controller:generic-garbage-collector',
    part: /^generic-garbage-collector$/,
    provoke: (n) => {
      const uid = cluster
        .kubectl('get', 'namespace', 'default', '-o', 'jsonpath={.metadata.uid}')
        .replace(/^..../, '0000')
      apply(`
apiVersion: v1
kind: ConfigMap
metadata:
  name: g${n}
  ownerReferences: [{ apiVersion: v1, kind: ConfigMap, name: gone, uid: ${uid} }]
`)
    },
  },
  { binding: 'system:kube-scheduler', part: /^default-scheduler$/, provoke: (n) => apply(pod(`k${n}`)) },
  {
    binding: 'system:controller:node-controller',
    part: /^node-(ipam|lifecycle)-controller$|^taint-eviction-controller$/,
    provoke: (n) =>
      apply(`
apiVersion: v1
kind: Node
metadata: { name: w${n} }
`),
  },
  {
    binding: 'system:controller:certificate-controller',
    part: /^certificate-controller$/,
    provoke: (n) => {
      apply(`
apiVersion: certificates.k8s.io/v1
kind: CertificateSigningRequest
metadata: { name: q${n} }
spec:
  request: ${signingRequest}
  signerName: kubernetes.io/kube-apiserver-client
  usages: [client auth]
`)
      cluster.kubectl('certificate', 'approve', `q${n}`)
    },
  },
  {
    binding: 'system:controller:pod-garbage-collector',
    part: /^pod-garbage-collector$/,
    // It looks round every 20 seconds.
    withinMs: 45_000,
    provoke: (n) => {
      apply(
        pod(`o${n}`, ', finalizers: [test.weft.dev/held]').replace(
          'spec: {',
          'spec: { nodeName: "", nodeSelector: { no: where },',
        ),
      )
      cluster.kubectl('delete', 'pod', `o${n}`, '--wait=false', '--grace-period=30')
    },
  },
]

interface Line {
  readonly part?: string
  readonly msg: string
  readonly reason?: string
}

/** Lines of the server's log from a byte on. */
function log(from: number): Line[] {
  return readFileSync(`${cluster.layout.runDir}/logs/server.log`)
    .subarray(from)
    .toString()
    .split('\n')
    .filter((l) => l.startsWith('{'))
    .map((l) => JSON.parse(l) as Line)
}
const logSize = (): number => readFileSync(`${cluster.layout.runDir}/logs/server.log`).length
const denied = (from: number): string[] => [
  ...new Set(log(from).flatMap((l) => (/lacks a right/.test(l.msg) ? [l.part ?? '?'] : []))),
]

for (const [index, { binding, part, withinMs = 20_000, provoke }] of cases.entries()) {
  test.serial(`without ${binding} that part stops with Forbidden, and only it; with it, it comes back`, async (t) => {
    const saved = cluster.kubectl('get', 'clusterrolebinding', binding, '-o', 'json')
    const from = logSize()
    cluster.kubectl('delete', 'clusterrolebinding', binding)
    try {
      provoke(`${index}a`)
      await until(() => denied(from).some((name) => part.test(name)), withinMs)
    } finally {
      const { metadata, ...rest } = JSON.parse(saved) as { metadata: { name: string; labels?: object } }
      cluster.try(['create', '-f', '-'], {
        input: JSON.stringify({ ...rest, metadata: { name: metadata.name, labels: metadata.labels } }),
      })
    }
    t.deepEqual(
      denied(from).filter((name) => !part.test(name)),
      [],
      'no other part is refused anything',
    )
    const restored = logSize()
    await until(
      () => log(restored).some((l) => part.test(l.part ?? '') && /running|started|is back/.test(l.msg)),
      withinMs,
    )
  })
}

async function until(holds: () => boolean, withinMs: number): Promise<void> {
  try {
    await eventually(holds, { withinMs, pauseMs: 50 })
  } catch (error) {
    const end = log(Math.max(0, logSize() - 3000)).map((line) => JSON.stringify(line))
    throw new Error(`it did not become so; the log ends:\n${end.join('\n')}`, { cause: error })
  }
}
