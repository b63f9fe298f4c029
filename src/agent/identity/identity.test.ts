import test from 'ava'
import type { Node } from '#api/gen/core-v1.ts'
import { LiveRelevance } from '#api/networking/relevance.ts'
import { NodeDirectory } from './nodes.ts'
import { type Meaning, Numbering, type PeerPod } from './numbering.ts'
import { reflectPeer } from './reflect.ts'

const localFirst = 1_000

function setUp(...labels: readonly string[]) {
  const relevance = new LiveRelevance()
  const meanings = new Map<number, Meaning | undefined>()
  const told: string[] = []
  const numbering = new Numbering({
    relevance,
    localFirst,
    onMeaning: (number, meaning) => meanings.set(number, meaning),
    onPod: (key, pod, number) => told.push(`${key} ${pod === undefined ? 'gone' : number}`),
  })
  const look = (keys: readonly string[]) => {
    relevance.replace(undefined, { labels: new Set(keys), ports: new Set() })
    numbering.refresh()
  }
  look(labels)
  const add = (name: string, identity: number | undefined, labels: Record<string, string>, address = '10.0.0.1') => {
    const key = `default/${name}`
    const pod: PeerPod = { key, uid: name, namespace: 'default', labels, ports: [], addresses: [address], identity }
    numbering.set(key, pod)
    return numbering.get(key)?.number
  }
  return { numbering, meanings, told, look, add }
}

test('a pod has the number that the control plane gave it', (t) => {
  const { add, meanings } = setUp('app')
  t.is(add('a', 256, { app: 'x' }), 256)
  t.is(add('b', 256, { app: 'x', other: 'y' }), 256)
  t.deepEqual(meanings.get(256)?.labels, { app: 'x' })
})

test('P13: pods of one number that a policy tells apart get numbers of the node’s own until theirs come', (t) => {
  const { add, look, numbering, told, meanings } = setUp()
  add('a', 256, { tier: '1' })
  add('b', 256, { tier: '2' })
  add('c', 256, { tier: '2' })
  look(['tier'])
  t.deepEqual(told.slice(3), ['default/b 1000', 'default/c 1000'], 'the first keeps it, those that are alike share')
  t.is(numbering.get('default/a')?.number, 256)
  // The server has followed.
  t.is(add('b', 257, { tier: '2' }), 257)
  t.deepEqual(numbering.idle(), [], 'the other still has it')
  t.is(add('c', 257, { tier: '2' }), 257)
  t.deepEqual(numbering.idle(), [1000])
  t.not(meanings.get(1000), undefined, 'both numbers mean something while packets may be on their way')
  numbering.giveUp([1000])
  t.is(meanings.get(1000), undefined)
})

test('where the control plane numbers nothing the node does, the same for pods that are alike', (t) => {
  const { add } = setUp('app')
  t.is(add('a', undefined, { app: 'x' }), 1000)
  t.is(add('b', undefined, { app: 'x' }), 1000)
  t.is(add('c', undefined, { app: 'y' }), 1001)
})

test('an agent that comes back keeps the numbers that it gave', (t) => {
  const { add, numbering } = setUp('app')
  numbering.adopt([
    ['10.0.0.1', 1005],
    ['10.0.0.2', 256],
  ])
  t.is(add('a', undefined, { app: 'x' }, '10.0.0.1'), 1005)
  t.is(add('b', undefined, { app: 'y' }, '10.0.0.2'), 1006, 'and gives none of them to others')
})

test('a number that nobody has is idle until it is given up, unless somebody comes for it', (t) => {
  const { add, numbering } = setUp('app')
  add('a', 256, { app: 'x' })
  numbering.set('default/a', undefined)
  t.deepEqual(numbering.idle(), [256])
  add('b', 256, { app: 'x' })
  t.deepEqual(numbering.idle(), [])
})

test('reflectPeer() reads a pod’s metadata; a pod without addresses of its own is no peer (P4)', (t) => {
  const metadata = {
    name: 'a',
    namespace: 'default',
    uid: 'u',
    resourceVersion: '1',
    creationTimestamp: '',
    labels: { app: 'x' },
    annotations: {
      'weft.dev/pod-ips': '10.0.0.1,fd00::1',
      'weft.dev/identity': '300',
      'weft.dev/named-ports': 'http:80/TCP,dns:53/UDP,bad',
    },
  }
  t.deepEqual(reflectPeer({ metadata }), {
    key: 'default/a',
    uid: 'u',
    namespace: 'default',
    labels: { app: 'x' },
    ports: [
      { name: 'http', number: 80, protocol: 'TCP' },
      { name: 'dns', number: 53, protocol: 'UDP' },
    ],
    addresses: ['10.0.0.1', 'fd00::1'],
    identity: 300,
  })
  t.is(reflectPeer({ metadata: { ...metadata, annotations: {} } }), undefined)
  // Of another control plane's pod there is more to read.
  const spec = { containers: [{ name: 'c', resources: {}, ports: [{ name: 'http', containerPort: 81 }] }] }
  const other = { metadata: { ...metadata, annotations: {} }, spec, status: { podIPs: [{ ip: '10.9.0.1' }] } }
  t.like(reflectPeer(other), { addresses: ['10.9.0.1'], identity: undefined, ports: [{ name: 'http', number: 81 }] })
  t.is(reflectPeer({ ...other, spec: { ...spec, hostNetwork: true } }), undefined)
  t.is(reflectPeer({ ...other, status: {} }), undefined)
  for (const wrong of ['255', '16777216', 'x', '-1'])
    t.is(
      reflectPeer({ metadata: { ...metadata, annotations: { ...metadata.annotations, 'weft.dev/identity': wrong } } })
        ?.identity,
      undefined,
      wrong,
    )
})

const node = (name: string, podCIDRs: string[], ...addresses: string[]): Node =>
  ({
    metadata: { name },
    spec: { podCIDRs },
    status: { addresses: addresses.map((address) => ({ type: 'InternalIP', address })) },
  }) as unknown as Node

test('NodeDirectory: addresses of pods lead to their nodes, nodes are this one or another', (t) => {
  const directory = new NodeDirectory('a', { isTunnelled: true })
  t.true(
    directory.set([
      node('a', ['10.0.0.0/24', 'fd00::/64'], '172.30.0.1', 'fd00:172::1'),
      node('b', ['10.0.1.0/24'], '172.30.0.2'),
    ]),
  )
  t.deepEqual(directory.rowOf('10.0.0.9', 300, 'u'), { address: '10.0.0.9', identity: 300, owner: 'u' })
  t.deepEqual(directory.rowOf('10.0.1.9', 300, 'u'), {
    address: '10.0.1.9',
    identity: 300,
    owner: 'u',
    node: 1,
    tunnel: '172.30.0.2',
  })
  t.deepEqual(
    directory.rows().map(({ address, identity, tunnel }) => `${address} ${identity} ${tunnel ?? '-'}`),
    ['172.30.0.1 1 -', 'fd00:172::1 1 -', '172.30.0.2 3 172.30.0.2'],
  )
  t.false(
    directory.set([
      node('a', ['10.0.0.0/24', 'fd00::/64'], '172.30.0.1', 'fd00:172::1'),
      node('b', ['10.0.1.0/24'], '172.30.0.2'),
    ]),
    'a heartbeat changes nothing',
  )
})
