import test from 'ava'
import { closeEnvelope, messageOfKind } from '#api/schema/protobuf.ts'
import { kinds } from '#api/scheme.ts'
import { startTrial } from '#apiserver/trial.ts'

/** Requests in all; a seed, so that a failure can be had again. */
const requests = 10_000
const seed = 20261121

/** Small and good enough here; the same numbers every time (mulberry32). */
function randomOf(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}

type Json = Record<string, unknown>

const pod: Json = {
  metadata: {
    labels: { a: 'b' },
    annotations: { x: 'y' },
    ownerReferences: [{ apiVersion: 'v1', kind: 'Node', name: 'n', uid: 'u' }],
  },
  spec: {
    containers: [
      {
        name: 'c',
        image: 'i',
        ports: [{ containerPort: 80 }],
        env: [{ name: 'E', valueFrom: { fieldRef: { fieldPath: 'metadata.name' } } }],
        resources: { limits: { cpu: '1', memory: '1Gi' } },
        livenessProbe: { httpGet: { path: '/', port: 80 } },
        volumeMounts: [{ name: 'v', mountPath: '/v' }],
      },
    ],
    volumes: [{ name: 'v', projected: { sources: [{ configMap: { name: 'm', items: [{ key: 'k', path: 'p' }] } }] } }],
    tolerations: [{ key: 'k', operator: 'Exists' }],
    affinity: {
      nodeAffinity: {
        requiredDuringSchedulingIgnoredDuringExecution: {
          nodeSelectorTerms: [{ matchExpressions: [{ key: 'k', operator: 'In', values: ['v'] }] }],
        },
      },
    },
    topologySpreadConstraints: [{ maxSkew: 1, topologyKey: 'k', whenUnsatisfiable: 'DoNotSchedule' }],
  },
}
const template = { metadata: { labels: { a: 'b' } }, spec: pod.spec }
const selector = { matchLabels: { a: 'b' } }

/** Something that is nearly right for many kinds; what a kind does not know is only one more wrong field. */
const bodies: Readonly<Record<string, Json>> = {
  Pod: pod,
  Deployment: { spec: { replicas: 2, selector, template, strategy: { rollingUpdate: { maxSurge: '25%' } } } },
  ReplicaSet: { spec: { replicas: 2, selector, template } },
  DaemonSet: { spec: { selector, template } },
  Service: {
    spec: { ports: [{ port: 80, targetPort: 'http', nodePort: 30100 }], selector: { a: 'b' }, clusterIP: '10.96.0.77' },
  },
  NetworkPolicy: {
    spec: {
      podSelector: selector,
      ingress: [{ from: [{ ipBlock: { cidr: '10.0.0.0/8', except: ['10.1.0.0/16'] } }], ports: [{ port: 80 }] }],
    },
  },
  ConfigMap: { data: { a: 'b' }, binaryData: { c: 'aGVsbG8=' } },
  Secret: { type: 'Opaque', data: { a: 'aGVsbG8=' } },
  Role: { rules: [{ apiGroups: [''], resources: ['pods'], verbs: ['get'] }] },
  RoleBinding: {
    subjects: [{ kind: 'User', name: 'u' }],
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name: 'r' },
  },
  EndpointSlice: {
    addressType: 'IPv4',
    endpoints: [{ addresses: ['10.0.0.1'], conditions: { ready: true } }],
    ports: [{ port: 80 }],
  },
  CustomResourceDefinition: {
    spec: {
      group: 'example.com',
      names: { plural: 'things', kind: 'Thing' },
      scope: 'Namespaced',
      versions: [
        {
          name: 'v1',
          served: true,
          storage: true,
          schema: {
            openAPIV3Schema: {
              type: 'object',
              properties: { spec: { type: 'object', properties: { n: { type: 'integer', default: 1 } } } },
            },
          },
        },
      ],
    },
  },
}

test(`${requests} malformed requests: each is answered, none with a 500, and nothing grows`, async (t) => {
  t.timeout(120_000)
  await using trial = await startTrial({ kinds })
  // Pods wait for it otherwise, each of them.
  const account = { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'default' } }
  t.is((await trial.call('POST', '/api/v1/namespaces/default/serviceaccounts', account)).status, 201)
  const random = randomOf(seed)
  const pick = <T>(from: readonly T[]): T => from[Math.floor(random() * from.length)] as T
  const odd = (): unknown =>
    pick<unknown>([
      null,
      true,
      -1,
      1.5,
      1e300,
      2 ** 53,
      '',
      ' ',
      'x'.repeat(300),
      '\u0000',
      '10.0.0.0/33',
      '-1Ki',
      'ünïcode',
      [],
      {},
      [[]],
      [null],
      { a: null },
      ['', ''],
      { '': '' },
      { __proto__x: 1 },
      { constructor: { prototype: {} } },
    ])
  /** Changes one place somewhere below: another value, another name, gone, or twice. */
  const spoil = (value: unknown): unknown => {
    if (typeof value !== 'object' || value === null || random() < 0.05) return odd()
    if (Array.isArray(value)) {
      if (value.length === 0 || random() < 0.2) return [...value, ...value, odd()]
      const at = Math.floor(random() * value.length)
      return value.map((each, i) => (i === at ? spoil(each) : each))
    }
    const entries = Object.entries(value)
    if (entries.length === 0) return odd()
    const at = Math.floor(random() * entries.length)
    const how = random()
    if (how < 0.1) return Object.fromEntries(entries.filter((_, i) => i !== at))
    if (how < 0.2) return Object.fromEntries(entries.map(([k, v], i) => (i === at ? [`${k}x`, v] : [k, v])))
    return Object.fromEntries(entries.map(([k, v], i) => (i === at ? [k, spoil(v)] : [k, v])))
  }
  const counts = new Map<number, number>()
  const bad: string[] = []
  let heapBefore = 0
  for (let i = 0; i < requests; i++) {
    if (i === requests / 2) {
      heapBefore = process.memoryUsage().heapUsed
    }
    const { resource } = pick(kinds)
    const apiVersion = resource.group === '' ? resource.version : `${resource.group}/${resource.version}`
    const root = resource.group === '' ? `/api/${resource.version}` : `/apis/${apiVersion}`
    const path = `${root}${resource.namespaced ? '/namespaces/default' : ''}/${resource.resource}`
    const name = `m-${i}`
    const right = { apiVersion, kind: resource.kind, ...bodies[resource.kind] }
    const metadata = { ...(right as { metadata?: object }).metadata, name }
    let object: unknown = { ...right, metadata }
    // The kind itself is wrong only now and then: most of the checks come after it.
    const whole = random() < 0.1
    for (let spoiled = 1 + Math.floor(random() * 2); spoiled > 0; spoiled--) {
      object = whole ? spoil(object) : { ...(spoil(object) as Json), apiVersion, kind: resource.kind }
    }
    let body: Uint8Array = Buffer.from(JSON.stringify(object))
    let type = 'application/json'
    const form = random()
    if (form < 0.05) body = body.subarray(0, Math.floor(random() * body.length))
    else if (form < 0.1) {
      body = Uint8Array.from(body)
      for (let k = 0; k < 4; k++) body[Math.floor(random() * body.length)] = Math.floor(random() * 256)
    } else if (form < 0.2) type = 'application/yaml'
    else if (form < 0.25 && messageOfKind(apiVersion, resource.kind) !== undefined) {
      type = 'application/vnd.kubernetes.protobuf'
      const raw = Uint8Array.from({ length: Math.floor(random() * 60) }, () => Math.floor(random() * 256))
      body = closeEnvelope(apiVersion, resource.kind, raw)
    }
    const query = random() < 0.2 ? '?fieldValidation=Strict' : random() < 0.5 ? '?dryRun=All' : ''
    const headers = { 'content-type': type }
    const existing = [...trial.api.registry.list(resource, 'default')][0]?.metadata.name
    const how = random()
    const patchType = pick([
      'application/merge-patch+json',
      'application/json-patch+json',
      'application/strategic-merge-patch+json',
    ])
    const answer =
      how < 0.6 || existing === undefined
        ? await trial.call('POST', `${path}${query}`, body, headers)
        : how < 0.75
          ? await trial.call('PUT', `${path}/${existing}${query}`, body, headers)
          : how < 0.95
            ? await trial.call('PATCH', `${path}/${existing}?dryRun=All`, body, { 'content-type': patchType })
            : await trial.call(
                'GET',
                `${path}?labelSelector=${encodeURIComponent(String(odd()))}&fieldSelector=${encodeURIComponent(String(odd()))}&limit=${odd()}`,
              )
    counts.set(answer.status, (counts.get(answer.status) ?? 0) + 1)
    if (answer.status >= 500 && bad.length < 10) {
      bad.push(`${i}: ${path} ${type} ${Buffer.from(body).toString().slice(0, 600)} -> ${answer.text.slice(0, 300)}`)
    }
  }
  t.log(
    [...counts]
      .toSorted(([a], [b]) => a - b)
      .map(([code, n]) => `${n} x ${code}`)
      .join(', '),
  )
  t.deepEqual(bad, [])
  t.true((counts.get(400) ?? 0) > requests / 10 && (counts.get(422) ?? 0) > requests / 20)
  t.true(process.memoryUsage().heapUsed - heapBefore < 150e6)
  t.is((await trial.call('GET', '/readyz')).status, 200)
})
