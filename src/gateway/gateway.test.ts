import { generateKeyPairSync } from 'node:crypto'
import test from 'ava'
import fc from 'fast-check'
import { certificate } from '#test/gateway/tls.ts'
import { formatAcknowledgement, parseAcknowledgement } from './acknowledge.ts'
import { parseDuration } from './durations.ts'
import { supportedFeatures } from './features.ts'
import { controllerName } from './gateways.ts'
import { covers, servedHostnames } from './hostnames.ts'
import { ingressController, ingressGateway } from './ingress.ts'
import type { HttpRoute } from './objects.ts'
import { regexFault } from './regex.ts'
import { changeArb, named } from './steps.ts'
import { route, rule, shop, type World } from './trial.ts'
import type { Verdict } from './verdict.ts'

const told = (verdicts: readonly Verdict[] | undefined): string[] =>
  (verdicts ?? []).map(({ type, status, reason }) => `${type}=${status} ${reason}`)
const ofRoute = (world: World, id: string): string[] => told(world.looked().route(id)?.parents[0]?.verdicts)

test('hostnames: a wildcard covers any number of labels, and not none', (t) => {
  const rows: [string, string, boolean][] = [
    ['', 'a.com', true],
    ['a.com', '', false],
    ['*.a.com', 'x.a.com', true],
    ['*.a.com', 'x.y.a.com', true],
    ['*.a.com', 'a.com', false],
    ['*.a.com', '*.b.a.com', true],
    ['*.b.a.com', '*.a.com', false],
    ['*.a.com', 'xa.com', false],
  ]
  for (const [wide, narrow, expected] of rows) t.is(covers(wide, narrow), expected, `${wide} ${narrow}`)
  t.deepEqual(servedHostnames('*.a.com', ['X.a.com', 'b.com', '*.com']), ['x.a.com', '*.a.com'])
  t.deepEqual(servedHostnames(undefined, undefined), [''])
})

test('regular expressions: what one engine alone takes, and what can take for ever, is refused', (t) => {
  const good = [
    '/a.*',
    '^v[12]$',
    '(a|b)+',
    '(?:foo|bar)*x',
    '(?i)abc',
    '\\d{1,3}',
    '[[:alpha:]]+',
    'a+b+c+',
    '(abc){2}',
  ]
  for (const pattern of good) {
    // JavaScript has no flags within a pattern; everything else it must take.
    if (!pattern.startsWith('(?i)')) t.is(regexFault(pattern), undefined, pattern)
  }
  const bad = [
    '(a+)+',
    '(.*)*x',
    '((a*)b)+',
    '(a|ab)*c',
    '(a|a)+',
    '(?=a)',
    '(?<!a)b',
    '(a)\\1',
    'a++',
    '(?>a)',
    '(',
    '[',
    'a)',
    '(a{1,}){3}',
  ]
  for (const pattern of bad) t.not(regexFault(pattern), undefined, pattern)
  t.not(regexFault('a'.repeat(2000)), undefined)
  t.not(regexFault('a\nb'), undefined)
})

test('durations are milliseconds', (t) => {
  const rows: [string, number | undefined][] = [
    ['0s', 0],
    ['1h30m', 5_400_000],
    ['250ms', 250],
    ['1.5s', undefined],
    ['s', undefined],
    ['', undefined],
  ]
  for (const [text, ms] of rows) t.is(parseDuration(text), ms, text)
})

test('a route is attached, resolved and handed to the engine with its endpoints', (t) => {
  const world = shop()
  route(world, 'shop/a', { hostnames: ['Shop.example.com'] })
  world.slices.push({
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: { namespace: 'shop', name: 'web', uid: '', resourceVersion: '', creationTimestamp: '' },
    addressType: 'IPv4',
    ports: [{ name: 'http', port: 8080, protocol: 'TCP' }],
    endpoints: [
      { addresses: ['10.0.0.2'], conditions: { ready: true } },
      { addresses: ['10.0.0.3'], conditions: { ready: false } },
    ],
  })
  const model = world.looked()
  t.deepEqual(told(model.route('HTTPRoute/shop/a')?.parents[0]?.verdicts), [
    'Accepted=True Accepted',
    'ResolvedRefs=True ResolvedRefs',
  ])
  t.is(model.attachedRoutes('shop/edge', 'http'), 1)
  const state = model.engineState()
  t.deepEqual(
    [...state.listeners.values()],
    [{ id: 'shop/edge/http', addresses: ['192.0.2.1'], port: 80, protocol: 'HTTP' }],
  )
  t.deepEqual(state.backends.get('shop/web:80'), {
    id: 'shop/web:80',
    protocol: 'h1',
    endpoints: [{ address: '10.0.0.2', port: 8080 }],
  })
  t.like(state.routes.get('HTTPRoute/shop/a'), {
    kind: 'HTTP',
    attachments: [{ listener: 'shop/edge/http', hostnames: ['shop.example.com'] }],
    rules: [{ id: 'HTTPRoute/shop/a/0', targets: [{ weight: 1, backend: 'shop/web:80', filters: [] }] }],
  })
})

for (const [what, listeners, spec, expected] of [
  [
    'no such section',
    undefined,
    { parentRefs: [{ namespace: 'shop', name: 'edge', sectionName: 'x' }] },
    'NoMatchingParent',
  ],
  ['no such port', undefined, { parentRefs: [{ namespace: 'shop', name: 'edge', port: 81 }] }, 'NoMatchingParent'],
  [
    'another host',
    [{ name: 'http', port: 80, protocol: 'HTTP', hostname: 'a.com' }],
    { hostnames: ['b.com'] },
    'NoMatchingListenerHostname',
  ],
  [
    'another kind',
    [{ name: 'http', port: 80, protocol: 'HTTP', allowedRoutes: { kinds: [{ kind: 'GRPCRoute' }] } }],
    {},
    'NotAllowedByListeners',
  ],
  [
    'labels not asked for',
    [
      {
        name: 'http',
        port: 80,
        protocol: 'HTTP',
        allowedRoutes: { namespaces: { from: 'Selector', selector: { matchLabels: { team: 'x' } } } },
      },
    ],
    {},
    'NotAllowedByListeners',
  ],
  [
    'every rule wrong',
    undefined,
    { rules: [rule('web', { matches: [{ path: { type: 'RegularExpression', value: '(a+)+' } }] })] },
    'UnsupportedValue',
  ],
  [
    'both redirect and rewrite',
    undefined,
    {
      rules: [
        {
          filters: [
            { type: 'RequestRedirect', requestRedirect: {} },
            { type: 'URLRewrite', urlRewrite: {} },
          ],
        },
      ],
    },
    'IncompatibleFilters',
  ],
  [
    'an unknown filter',
    undefined,
    { rules: [rule('web', { filters: [{ type: 'ExtensionRef' }] })] },
    'UnsupportedValue',
  ],
] as const) {
  test(`a route is not accepted: ${what}`, (t) => {
    const world = shop(listeners)
    route(world, 'shop/a', spec)
    t.is(ofRoute(world, 'HTTPRoute/shop/a')[0], `Accepted=False ${expected}`)
    t.is(world.looked().engineState().routes.size, 0)
  })
}

test('one wrong rule among good ones is dropped and said, the rest is served', (t) => {
  const world = shop()
  route(world, 'shop/a', {
    rules: [
      rule('web'),
      rule('web', { matches: [{ headers: [{ type: 'RegularExpression', name: 'x', value: '(' }] }] }),
    ],
  })
  t.deepEqual(ofRoute(world, 'HTTPRoute/shop/a'), [
    'Accepted=True Accepted',
    'ResolvedRefs=True ResolvedRefs',
    'PartiallyInvalid=True UnsupportedValue',
  ])
  t.is(world.looked().engineState().routes.get('HTTPRoute/shop/a')?.rules.length, 1)
})

for (const [what, ref, reason] of [
  ['a Service that is not there', { name: 'no', port: 80 }, 'BackendNotFound'],
  ['a port that is not there', { name: 'web', port: 81 }, 'BackendNotFound'],
  ['another kind', { kind: 'Bucket', group: 'x.y', name: 'web', port: 80 }, 'InvalidKind'],
  ['another namespace without a grant', { namespace: 'other', name: 'web', port: 80 }, 'RefNotPermitted'],
  ['a protocol nobody speaks', { name: 'tls', port: 443 }, 'UnsupportedProtocol'],
] as const) {
  test(`a reference leads nowhere: ${what}; its share is answered 500`, (t) => {
    const world = shop()
    world.put('Service', 'shop/tls', { spec: { ports: [{ port: 443, appProtocol: 'kubernetes.io/wss' }] } })
    route(world, 'shop/a', { rules: [{ backendRefs: [ref, { name: 'web', port: 80 }] }] })
    t.is(ofRoute(world, 'HTTPRoute/shop/a')[1], `ResolvedRefs=False ${reason}`)
    const [broken, good] = world.looked().engineState().routes.get('HTTPRoute/shop/a')?.rules[0]?.targets ?? []
    t.deepEqual(broken, { weight: 1, filters: [] })
    t.is(good?.backend, 'shop/web:80')
  })
}

test('a ReferenceGrant permits what it names, as soon as it is there and as long as it is', (t) => {
  const world = shop()
  world.put('Service', 'other/web', { spec: { ports: [{ port: 80 }] } })
  route(world, 'shop/a', { rules: [{ backendRefs: [{ namespace: 'other', name: 'web', port: 80 }] }] })
  const group = 'gateway.networking.k8s.io'
  world.put('ReferenceGrant', 'other/g', {
    spec: { from: [{ group, kind: 'HTTPRoute', namespace: 'shop' }], to: [{ group: '', kind: 'Service' }] },
  })
  t.is(ofRoute(world, 'HTTPRoute/shop/a')[1], 'ResolvedRefs=True ResolvedRefs')
  world.remove('ReferenceGrant', 'other/g')
  t.is(ofRoute(world, 'HTTPRoute/shop/a')[1], 'ResolvedRefs=False RefNotPermitted')
})

test('of an HTTPRoute and a GRPCRoute for one hostname of one listener the older is accepted', (t) => {
  const world = shop()
  const age = (creationTimestamp: string) => ({ creationTimestamp })
  const at = (kind: string, name: string, hostnames: string[], creationTimestamp: string): void => {
    const spec = { parentRefs: [{ name: 'edge' }], hostnames, rules: [rule('web')] }
    world.put(kind, `shop/${name}`, { spec })
    const object = world.copies<HttpRoute>(kind).get(`shop/${name}`)
    if (object !== undefined) Object.assign(object.metadata, age(creationTimestamp))
  }
  at('HTTPRoute', 'young', ['*.a.com'], '2026-01-03T00:00:00Z')
  at('GRPCRoute', 'old', ['x.a.com'], '2026-01-02T00:00:00Z')
  at('HTTPRoute', 'elsewhere', ['b.com'], '2026-01-04T00:00:00Z')
  t.deepEqual(ofRoute(world, 'HTTPRoute/shop/young'), ['Accepted=False Conflicted', 'ResolvedRefs=True ResolvedRefs'])
  t.is(ofRoute(world, 'GRPCRoute/shop/old')[0], 'Accepted=True Accepted')
  t.is(ofRoute(world, 'HTTPRoute/shop/elsewhere')[0], 'Accepted=True Accepted')
  const model = world.looked()
  t.is(model.attachedRoutes('shop/edge', 'http'), 2)
  world.remove('GRPCRoute', 'shop/old')
  model.touchRoute(named('GRPCRoute', 'old'))
  t.deepEqual([...model.refresh().routes].toSorted(), ['GRPCRoute/shop/old', 'HTTPRoute/shop/young'])
  t.is(told(model.route('HTTPRoute/shop/young')?.parents[0]?.verdicts)[0], 'Accepted=True Accepted')
})

test('listeners: protocols, conflicts, kinds and certificates each have their condition', (t) => {
  const tls = { certificateRefs: [{ name: 'no' }] }
  const world = shop([
    { name: 'good', port: 80, protocol: 'HTTP' },
    { name: 'tcp', port: 81, protocol: 'TCP' },
    { name: 'a', port: 82, protocol: 'HTTP' },
    { name: 'b', port: 82, protocol: 'HTTPS', tls },
    {
      name: 'kinds',
      port: 83,
      protocol: 'HTTP',
      allowedRoutes: { kinds: [{ kind: 'TCPRoute' }, { kind: 'HTTPRoute' }] },
    },
    { name: 'bare', port: 84, protocol: 'HTTPS', tls },
    { name: 'foreign', port: 85, protocol: 'HTTPS', tls: { certificateRefs: [{ name: 'x', namespace: 'other' }] } },
  ])
  const result = world.looked().gateway('shop/edge')
  const false_ = (name: string): string[] =>
    told(
      result?.listeners
        .find((l) => l.listener.name === name)
        ?.verdicts.filter((v) => v.type !== 'Conflicted' && v.status === 'False'),
    )
  t.deepEqual(false_('good'), [])
  t.deepEqual(false_('tcp'), ['Accepted=False UnsupportedProtocol'])
  t.deepEqual(false_('a'), ['Accepted=False ProtocolConflict'])
  t.deepEqual(false_('b'), ['Accepted=False ProtocolConflict', 'ResolvedRefs=False InvalidCertificateRef'])
  t.deepEqual(false_('kinds'), ['ResolvedRefs=False InvalidRouteKinds'])
  t.deepEqual(false_('bare'), ['ResolvedRefs=False InvalidCertificateRef'])
  t.deepEqual(false_('foreign'), ['ResolvedRefs=False RefNotPermitted'])
  t.is(result?.accepted.reason, 'ListenersNotValid')
  t.deepEqual([...world.looked().engineState().listeners.keys()], ['shop/edge/good', 'shop/edge/kinds'])
})

test('a Secret whose halves do not belong together is no certificate', (t) => {
  const world = shop([{ name: 'https', port: 443, protocol: 'HTTPS', tls: { certificateRefs: [{ name: 'c' }] } }])
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const pem = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
  for (const [type, crt] of [
    ['Opaque', 'x'],
    ['kubernetes.io/tls', 'nonsense'],
    ['kubernetes.io/tls', ''],
  ] as const) {
    const data = { 'tls.crt': Buffer.from(crt).toString('base64'), 'tls.key': Buffer.from(pem).toString('base64') }
    world.put('Secret', 'shop/c', { type, data })
    t.is(world.looked().gateway('shop/edge')?.listeners[0]?.servable, false, `${type} ${crt}`)
  }
})

test('one change looks at one route; what is unchanged stays the same object', (t) => {
  const world = shop()
  for (let i = 0; i < 50; i++) route(world, `shop/r${i}`)
  const model = world.looked()
  const before = model.engineState()
  route(world, 'shop/r7', { hostnames: ['new.example.com'] })
  model.touchRoute({ kind: 'HTTPRoute', metadata: { namespace: 'shop', name: 'r7' } as HttpRoute['metadata'] })
  t.deepEqual([...model.refresh().routes], ['HTTPRoute/shop/r7'])
  const after = model.engineState()
  t.is(after.revision > before.revision, true)
  const same = [...after.routes].filter(([id, r]) => before.routes.get(id) === r)
  t.is(same.length, 49)
  t.is(after.backends.get('shop/web:80'), before.backends.get('shop/web:80'))
  model.touchAll()
  model.refresh()
  t.is(model.engineState(), after, 'looking again at the same facts changes nothing')
})

test('the order of changes does not matter: a model that saw them one by one ends where a fresh one begins', (t) => {
  const world = shop()
  const model = world.looked()
  const changes: (() => void)[] = [
    () => route(world, 'shop/a'),
    () => world.remove('Service', 'shop/web'),
    () => world.put('Service', 'shop/web', { spec: { ports: [{ name: 'http', port: 80 }] } }),
    () => world.remove('Gateway', 'shop/edge'),
    () =>
      world.put('Gateway', 'shop/edge', {
        spec: { gatewayClassName: 'weft', listeners: [{ name: 'http', port: 8080, protocol: 'HTTP' }] },
      }),
    () => world.put('GatewayClass', 'weft', { spec: { controllerName: 'somebody/else' } }),
    () => world.put('GatewayClass', 'weft', { spec: { controllerName } }),
  ]
  for (const change of changes) {
    change()
    model.touchRoute({ kind: 'HTTPRoute', metadata: { namespace: 'shop', name: 'a' } as HttpRoute['metadata'] })
    model.touchService('shop/web')
    model.touchAll()
    model.refresh()
    const { revision: _, ...seen } = model.engineState()
    const { revision: __, ...fresh } = world.looked().engineState()
    t.deepEqual(seen, fresh)
  }
})

test('an Ingress is a route of the Gateway that all Ingresses share', (t) => {
  const world = shop()
  world.remove('Gateway', 'shop/edge')
  world.put('IngressClass', 'weft', { spec: { controller: ingressController } })
  const backend = { service: { name: 'web', port: { name: 'http' } } }
  world.put('Ingress', 'shop/web', {
    spec: {
      ingressClassName: 'weft',
      defaultBackend: backend,
      rules: [{ host: 'a.com', http: { paths: [{ path: '/x', pathType: 'Exact', backend }] } }],
      tls: [{ hosts: ['a.com'], secretName: 'c' }],
    },
  })
  world.put('Ingress', 'shop/foreign', { spec: { ingressClassName: 'other', defaultBackend: backend } })
  const model = world.looked()
  t.deepEqual([...model.engineState().listeners.keys()], [`${ingressGateway}/http`])
  t.deepEqual([...model.engineState().routes.keys()], ['Ingress/shop/web:a.com', 'Ingress/shop/web'])
  t.like(model.engineState().routes.get('Ingress/shop/web:a.com'), {
    attachments: [{ listener: '/ingress/http', hostnames: ['a.com'] }],
    rules: [
      { matches: [{ path: { type: 'exact', value: '/x' } }] },
      { matches: [{ path: { type: 'prefix', value: '/' } }] },
    ],
  })
  t.is(model.gateway(ingressGateway)?.listeners[1]?.servable, false, 'its certificate is not there')
})

test('what a node says is read back as it was said, and no more than an object can hold', (t) => {
  const said = {
    gateways: new Map([
      ['b', '2'],
      ['a', '1'],
    ]),
    faults: new Map([['x/y/z', 'why']]),
  }
  t.deepEqual(parseAcknowledgement(formatAcknowledgement(said)), {
    gateways: new Map([
      ['a', '1'],
      ['b', '2'],
    ]),
    faults: said.faults,
  })
  const many = new Map(Array.from({ length: 5000 }, (_, i) => [`r${i}`, 'w'.repeat(1000)]))
  t.true(formatAcknowledgement({ gateways: new Map(), faults: many }).length < 32_768)
  t.is(parseAcknowledgement('nonsense'), undefined)
  t.is(parseAcknowledgement(undefined), undefined)
})

test('features are named once, in the order that the API wants', (t) => {
  t.deepEqual(supportedFeatures, [...new Set(supportedFeatures)].toSorted())
})

test('property: after any changes, each touched as its informer does, a model is what a fresh one is', async (t) => {
  const { certPem, keyPem } = await certificate('c', 'a.com')
  const base64 = (text: string): string => Buffer.from(text).toString('base64')
  const pair = { 'tls.crt': base64(certPem), 'tls.key': base64(keyPem) }
  fc.assert(
    fc.property(fc.array(changeArb(pair), { minLength: 1, maxLength: 25 }), (changes) => {
      const world = shop()
      const model = world.looked()
      for (const apply of changes) {
        apply(world, model)
        model.refresh()
      }
      const fresh = world.looked()
      const { revision: _, ...seen } = model.engineState()
      const { revision: __, ...expected } = fresh.engineState()
      const sorted = (state: typeof seen) =>
        Object.values(state).map((table) => [...table].toSorted(([a], [b]) => (a < b ? -1 : 1)))
      t.deepEqual(sorted(seen), sorted(expected))
      for (const [key, { listeners, accepted, revision }] of fresh.gateways) {
        const own = model.gateway(key)
        t.deepEqual([own?.listeners, own?.accepted, own?.revision], [listeners, accepted, revision])
        for (const { listener } of listeners)
          t.is(model.attachedRoutes(key, listener.name), fresh.attachedRoutes(key, listener.name))
      }
      for (const id of ['HTTPRoute/shop/r0', 'HTTPRoute/shop/r1', 'GRPCRoute/shop/r0'])
        t.deepEqual(model.route(id)?.parents, fresh.route(id)?.parents)
    }),
    { numRuns: 300 },
  )
})
