import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { qosClassOf } from '#api/core/pod/qos.ts'
import type { Container, Pod } from '#api/gen/core-v1.ts'
import type { ContainerRecord } from '../runtime/runtime.ts'
import { annotations } from './container-config.ts'
import { fieldValue, resourceValue } from './downward.ts'
import { ConfigError, environmentOf } from './env.ts'
import { expand } from './expand.ts'
import { imageNameProblem } from './images.ts'
import { dnsOf, formatHosts, hostnameOf, parseResolvConf } from './names.ts'
import { linuxResourcesOf, oomScoreOf, podLimitsOf } from './resources.ts'
import { createMessageFile, messageFile, terminationMessage } from './termination-message.ts'

const box = (name: string, more: Partial<Container> = {}): Container => ({
  name,
  image: 'busybox:1',
  resources: {},
  ...more,
})
const podOf = (spec: Partial<Pod['spec']> = {}, metadata: Partial<Pod['metadata']> = {}): Pod => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name: 'web', namespace: 'default', uid: 'u1', resourceVersion: '1', creationTimestamp: '', ...metadata },
  spec: { containers: [box('c')], ...spec },
  status: {},
})

test('expand() knows names, escapes and lone dollars', (t) => {
  const lookup = (name: string) => ({ A: 'x', B: '' })[name]
  t.is(expand('$(A)-$(B)-$(C)-$$(A)-$A-$(A', lookup), 'x--$(C)-$(A)-$A-$(A')
})
const node = { name: 'node-1', ips: ['172.30.0.11', 'fd00::11'], allocatable: { cpu: '4', memory: '8Gi' } }
test('the downward API', (t) => {
  const pod = podOf({}, { labels: { b: '2', a: 'say "hi"' } })
  const value = (path: string) => fieldValue(pod, path, node, ['10.0.0.1', 'fd00::1'])
  t.is(value("metadata.labels['a']"), 'say "hi"')
  t.is(value('metadata.labels'), 'a="say \\"hi\\""\nb="2"')
  t.is(value('status.podIPs'), '10.0.0.1,fd00::1')
  t.is(value('status.hostIPs'), '172.30.0.11,fd00::11')
  t.throws(() => value('spec.nope'))
  const limited = box('c', { resources: { limits: { memory: '64Mi' } } })
  t.is(resourceValue(limited, { resource: 'limits.memory', divisor: '1Mi' }, node), '64')
  t.is(resourceValue(limited, { resource: 'limits.cpu' }, node), '4', 'without a limit the node is the limit')
  t.is(resourceValue(box('c', { resources: { requests: { cpu: '1500m' } } }), { resource: 'requests.cpu' }, node), '2')
})
test('environmentOf() services first, then envFrom, then env; a reference that leads nowhere says so', (t) => {
  const services = [
    {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: 'my-db', namespace: 'default' },
      spec: { clusterIP: '10.96.0.9', ports: [{ name: 'sql', port: 5432, protocol: 'TCP' }] },
    },
  ] as unknown as Parameters<typeof environmentOf>[2]['services']
  const sources = { configMap: () => undefined, secret: () => undefined, services, node, podIps: [] }
  const env = environmentOf(
    podOf(),
    box('c', { env: [{ name: 'URL', value: '$(MY_DB_SERVICE_HOST):$(MY_DB_SERVICE_PORT_SQL)' }] }),
    sources,
  )
  t.is(env.get('URL'), '10.96.0.9:5432')
  t.is(env.get('MY_DB_PORT_5432_TCP'), 'tcp://10.96.0.9:5432')
  const missing = box('c', { env: [{ name: 'X', valueFrom: { configMapKeyRef: { name: 'cm', key: 'k' } } }] })
  t.throws(() => environmentOf(podOf(), missing, sources), {
    instanceOf: ConfigError,
    message: 'configmap "cm" not found',
  })
})
test('names in a pod', (t) => {
  const dns = {
    servers: ['10.96.0.10'],
    domain: 'cluster.local',
    host: parseResolvConf('nameserver 9.9.9.9\nsearch home\noptions rotate\n'),
  }
  t.deepEqual(dnsOf(podOf(), dns), {
    servers: ['10.96.0.10'],
    searches: ['default.svc.cluster.local', 'svc.cluster.local', 'cluster.local', 'home'],
    options: ['ndots:5'],
  })
  t.deepEqual(dnsOf(podOf({ hostNetwork: true }), dns).servers, ['9.9.9.9'])
  t.deepEqual(
    dnsOf(
      podOf({ dnsPolicy: 'None', dnsConfig: { nameservers: ['1.1.1.1'], options: [{ name: 'ndots', value: '2' }] } }),
      dns,
    ),
    {
      servers: ['1.1.1.1'],
      searches: [],
      options: ['ndots:2'],
    },
  )
  t.deepEqual(hostnameOf(podOf({ hostname: 'h', subdomain: 'sub' }), 'cluster.local'), {
    hostname: 'h',
    fqdn: 'h.sub.default.svc.cluster.local',
  })
  t.regex(
    formatHosts(podOf({ hostAliases: [{ ip: '1.2.3.4', hostnames: ['a', 'b'] }] }), ['10.0.0.1'], 'x', ''),
    /10.0.0.1\tweb\n[\s\S]*1.2.3.4\ta\tb\n$/,
  )
})
test("resources in the kernel's units", (t) => {
  const guaranteed = box('c', {
    resources: { limits: { cpu: '250m', memory: '64Mi' }, requests: { cpu: '250m', memory: '64Mi' } },
  })
  t.is(qosClassOf({ containers: [guaranteed] }), 'Guaranteed')
  t.is(qosClassOf({ containers: [guaranteed, box('d')] }), 'Burstable')
  t.is(qosClassOf({ containers: [box('d')] }), 'BestEffort')
  t.deepEqual(linuxResourcesOf(guaranteed, { containers: [guaranteed] }, 2 ** 30), {
    cpuPeriod: 100_000,
    cpuQuota: 25_000,
    cpuShares: 256,
    memoryLimitInBytes: 64 << 20,
    oomScoreAdj: -997,
  })
  const half = box('c', { resources: { requests: { memory: '512Mi' } } })
  t.is(oomScoreOf(half, { containers: [half] }, 2 ** 30), 500)
  t.deepEqual(podLimitsOf({ containers: [guaranteed, guaranteed] }), {
    cpuShares: 512,
    cpuQuotaMicroseconds: 50_000,
    memoryLimitBytes: 128 << 20,
  })
})

test('imageNameProblem() names that no registry could have', (t) => {
  const digest = `sha256:${'0'.repeat(64)}`
  for (const good of [
    'busybox',
    'a/b_c/d--e:1.0',
    'localhost:5000/x',
    'REG.example:1/x:V1',
    '[::1]:5000/x',
    `x@${digest}`,
    `x:1@${digest}`,
  ])
    t.is(imageNameProblem(good), undefined, good)
  for (const bad of ['', 'a b', 'x:', 'x/', '/x', 'x@sha256:0', 'a..b/-c', 'http://x/y'])
    t.regex(imageNameProblem(bad) ?? '', /invalid reference format$/, bad)
  t.is(
    imageNameProblem('weft.local/Case:1'),
    'Failed to apply default image tag "weft.local/Case:1": couldn\'t parse image name "weft.local/Case:1": invalid reference format: repository name (Case) must be lowercase',
  )
})

test('terminationMessage() the file first, then the end of the log where that is wanted', (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'weft-messages-'))
  t.teardown(() => rmSync(dir, { recursive: true, force: true }))
  const log = join(dir, 'log')
  writeFileSync(log, Array.from({ length: 100 }, (_, i) => `2026-01-01T00:00:00Z stdout F line ${i}\n`).join(''))
  const record = (exitCode: number, policy: string, message = ''): ContainerRecord => ({
    id: 'i',
    sandboxId: 's',
    name: 'c',
    podUid: 'u1',
    attempt: 2,
    state: 'exited',
    createdAt: 0,
    startedAt: 0,
    finishedAt: 0,
    exitCode,
    reason: '',
    message,
    image: '',
    imageRef: '',
    logPath: log,
    labels: {},
    annotations: { [annotations.messagePolicy]: policy },
    mounts: [],
  })
  t.is(terminationMessage(record(1, 'File'), dir), '', 'no file is no message')
  const fromLog = terminationMessage(record(1, 'FallbackToLogsOnError'), dir)
  t.true(fromLog.endsWith('line 98\nline 99\n'))
  t.is(fromLog.split('\n').length, 81)
  t.is(terminationMessage(record(0, 'FallbackToLogsOnError'), dir), '', 'who ended well has nothing to explain')
  const file = messageFile(dir, 'c', 2)
  createMessageFile(file)
  writeFileSync(file, 'x'.repeat(5000))
  t.is(terminationMessage(record(1, 'FallbackToLogsOnError'), dir).length, 4096)
  t.is(terminationMessage(record(128, 'File', 'no such program'), dir), 'no such program')
})
