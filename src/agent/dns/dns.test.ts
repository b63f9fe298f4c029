import { connect } from 'node:net'
import test from 'ava'
import packet from 'dns-packet'
import fc from 'fast-check'
import type { EndpointSlice } from '#api/gen/discovery-v1.ts'
import { Forwarder, withLength } from './forward.ts'
import { reverseName, reverseZones } from './records.ts'
import { serveStreams } from './tcp.ts'
import { answerTo, service, slice, Trial, text, upstream } from './trial.ts'
import { decodeName, encodeName, encodeQuery, parseAnswers, parseQuestion } from './wire.ts'

const soa = '(SOA cluster.local)'

test('specification 2.2: the schema’s version', async (t) => {
  using trial = new Trial()
  t.deepEqual(await trial.say('TXT', 'dns-version.cluster.local'), ['NOERROR', 'dns-version.cluster.local 5 TXT 1.1.0'])
})

test('specification 2.3: a Service with ClusterIP has A and AAAA, SRV of its named ports with the address beside it, and PTR', async (t) => {
  using trial = new Trial()
  trial.put(
    service('web', {
      clusterIP: '10.96.3.4',
      clusterIPs: ['10.96.3.4', 'fd00:10:96::304'],
      ports: [{ name: 'https', port: 443, protocol: 'TCP' }, { name: 'dns', port: 53, protocol: 'UDP' }, { port: 9 }],
    }),
  )
  const name = 'web.default.svc.cluster.local'
  t.deepEqual(await trial.say('A', name), ['NOERROR', `${name} 5 A 10.96.3.4`])
  t.deepEqual(await trial.say('AAAA', name), ['NOERROR', `${name} 5 AAAA fd00:10:96::304`])
  t.deepEqual(await trial.say('SRV', `_https._tcp.${name}`), ['NOERROR', `_https._tcp.${name} 5 SRV 443 ${name}`])
  t.deepEqual(await trial.say('SRV', `_dns._udp.${name}`), ['NOERROR', `_dns._udp.${name} 5 SRV 53 ${name}`])
  t.deepEqual((await trial.ask('SRV', `_https._tcp.${name}`)).additionals?.map(text), [
    `${name} 5 A 10.96.3.4`,
    `${name} 5 AAAA fd00:10:96::304`,
  ])
  t.deepEqual(await trial.say('SRV', `_https._udp.${name}`), [`NXDOMAIN ${soa}`])
  t.deepEqual(await trial.say('PTR', '4.3.96.10.in-addr.arpa'), ['NOERROR', `4.3.96.10.in-addr.arpa 5 PTR ${name}`])
  const reverse = reverseName('fd00:10:96::304') ?? ''
  t.deepEqual(await trial.say('PTR', reverse), ['NOERROR', `${reverse} 5 PTR ${name}`])
})

test('specification 2.4: a headless Service has its ready endpoints, each under its own name too, SRV and PTR', async (t) => {
  using trial = new Trial()
  const name = 'db.default.svc.cluster.local'
  const headless = service('db', { clusterIP: 'None', clusterIPs: ['None'], ports: [{ name: 'web', port: 80 }] })
  trial.put(
    headless,
    slice('IPv4', [
      { addresses: ['10.244.1.2'], hostname: 'my-pet', conditions: { ready: true } },
      { addresses: ['10.244.1.3'], conditions: { ready: true } },
      { addresses: ['10.244.1.4'], conditions: { ready: false } },
    ]),
    slice('IPv6', [{ addresses: ['fd00::2'], hostname: 'my-pet', conditions: {} }]),
  )
  t.deepEqual(await trial.say('A', name), ['NOERROR', `${name} 5 A 10.244.1.2`, `${name} 5 A 10.244.1.3`])
  t.deepEqual(await trial.say('AAAA', name), ['NOERROR', `${name} 5 AAAA fd00::2`])
  t.deepEqual(await trial.say('A', `my-pet.${name}`), ['NOERROR', `my-pet.${name} 5 A 10.244.1.2`])
  t.deepEqual(await trial.say('AAAA', `my-pet.${name}`), ['NOERROR', `my-pet.${name} 5 AAAA fd00::2`])
  t.deepEqual(await trial.say('A', `10-244-1-3.${name}`), ['NOERROR', `10-244-1-3.${name} 5 A 10.244.1.3`])
  t.deepEqual(await trial.say('A', `10-244-1-4.${name}`), [`NXDOMAIN ${soa}`])
  t.deepEqual(await trial.say('SRV', `_web._tcp.${name}`), [
    'NOERROR',
    `_web._tcp.${name} 5 SRV 80 10-244-1-3.${name}`,
    `_web._tcp.${name} 5 SRV 80 my-pet.${name}`,
  ])
  t.deepEqual(await trial.say('PTR', '2.1.244.10.in-addr.arpa'), [
    'NOERROR',
    `2.1.244.10.in-addr.arpa 5 PTR my-pet.${name}`,
  ])
  t.deepEqual(await trial.say('PTR', '4.1.244.10.in-addr.arpa'), ['NXDOMAIN (SOA 244.10.in-addr.arpa)'])

  trial.put(headless, slice('IPv4', [{ addresses: ['10.244.1.4'], conditions: { ready: false } }]))
  t.deepEqual(await trial.say('A', name), [`NXDOMAIN ${soa}`], 'none is ready')
  trial.put(
    service('db', { ...headless.spec, publishNotReadyAddresses: true }),
    slice('IPv4', [{ addresses: ['10.244.1.4'], conditions: { ready: false } }]),
  )
  t.deepEqual(await trial.say('A', name), ['NOERROR', `${name} 5 A 10.244.1.4`], 'publishNotReadyAddresses')
})

test('an address that two headless Services have has two reverse names, and keeps the other when one goes', async (t) => {
  using trial = new Trial()
  const endpoints = slice('IPv4', [{ addresses: ['10.244.1.2'], conditions: {} }])
  trial.put(service('a', { clusterIP: 'None', clusterIPs: ['None'] }), endpoints)
  trial.put(service('b', { clusterIP: 'None', clusterIPs: ['None'] }), endpoints)
  const reverse = '2.1.244.10.in-addr.arpa'
  const line = (name: string) => `${reverse} 5 PTR 10-244-1-2.${name}.default.svc.cluster.local`
  t.deepEqual(await trial.say('PTR', reverse), ['NOERROR', line('a'), line('b')])
  trial.set('default/a', [])
  t.deepEqual(await trial.say('PTR', reverse), ['NOERROR', line('b')])
  trial.set('default/b', [])
  t.deepEqual(await trial.say('PTR', reverse), ['NXDOMAIN (SOA 244.10.in-addr.arpa)'])
})

test('specification 2.5: ExternalName is a CNAME; where it leads within the cluster the answer goes along, and a circle ends', async (t) => {
  using trial = new Trial()
  trial.put(service('web', { clusterIP: '10.96.3.4', clusterIPs: ['10.96.3.4'] }))
  trial.put(service('ext', { type: 'ExternalName', externalName: 'Web.default.svc.cluster.local.' }))
  trial.put(service('far', { type: 'ExternalName', externalName: 'ext.default.svc.cluster.local' }))
  trial.put(service('round', { type: 'ExternalName', externalName: 'trip.default.svc.cluster.local' }))
  trial.put(service('trip', { type: 'ExternalName', externalName: 'round.default.svc.cluster.local' }))
  trial.put(service('out', { type: 'ExternalName', externalName: 'www.example.com' }))
  const n = (name: string) => `${name}.default.svc.cluster.local`
  t.deepEqual(await trial.say('CNAME', n('ext')), ['NOERROR', `${n('ext')} 5 CNAME ${n('web')}`])
  t.deepEqual(await trial.say('A', n('far')), [
    'NOERROR',
    `${n('ext')} 5 CNAME ${n('web')}`,
    `${n('far')} 5 CNAME ${n('ext')}`,
    `${n('web')} 5 A 10.96.3.4`,
  ])
  t.deepEqual(await trial.say('AAAA', n('ext')), ['NOERROR', `${n('ext')} 5 CNAME ${n('web')}`])
  t.deepEqual(await trial.say('A', n('round')), ['SERVFAIL'])
  t.deepEqual(await trial.say('A', n('out')), ['SERVFAIL'], 'nobody to ask')
  t.deepEqual(await trial.say('CNAME', n('out')), ['NOERROR', `${n('out')} 5 CNAME www.example.com`])
})

test('specification 2.6: a pod by its address, in a namespace that is there', async (t) => {
  using trial = new Trial()
  const name = '10-244-1-5.default.pod.cluster.local'
  t.deepEqual(await trial.say('A', name), ['NOERROR', `${name} 5 A 10.244.1.5`])
  t.deepEqual(await trial.say('AAAA', name), [`NOERROR ${soa}`])
  t.deepEqual(await trial.say('AAAA', 'fd00-10-244--5.default.pod.cluster.local'), [
    'NOERROR',
    'fd00-10-244--5.default.pod.cluster.local 5 AAAA fd00:10:244::5',
  ])
  for (const wrong of ['10-244-1-256.default', '10-244-1.default', 'x.10-244-1-5.default', '10-244-1-5.nosuch'])
    t.deepEqual(await trial.say('A', `${wrong}.pod.cluster.local`), [`NXDOMAIN ${soa}`], wrong)
  t.deepEqual(await trial.say('A', 'default.pod.cluster.local'), [`NOERROR ${soa}`])
})

test('NXDOMAIN is for a name that is not there, NODATA for one that is or has something below it', async (t) => {
  using trial = new Trial()
  trial.put(service('web', { clusterIP: '10.96.3.4', clusterIPs: ['10.96.3.4'], ports: [{ name: 'p', port: 1 }] }))
  const there = ['web.default.svc', '_tcp.web.default.svc', 'default.svc', 'svc', 'pod']
  for (const name of there) t.deepEqual(await trial.say('MX', `${name}.cluster.local`), [`NOERROR ${soa}`], name)
  const not = ['nosuch.default.svc', 'x.web.default.svc', 'web.other.svc', 'other.svc', 'nosuch', 'www.example.com']
  for (const name of not) t.deepEqual(await trial.say('A', `${name}.cluster.local`), [`NXDOMAIN ${soa}`], name)
  t.deepEqual(await trial.say('A', 'cluster.local'), [`NOERROR ${soa}`])
  t.deepEqual(await trial.say('NS', 'cluster.local'), ['NOERROR', 'cluster.local 5 NS ns.dns.cluster.local'])
  t.deepEqual(await trial.say('SOA', 'cluster.local'), ['NOERROR', 'cluster.local 5 SOA ns.dns.cluster.local'])
  trial.set('default/web', [])
  trial.set('default', [])
  for (const name of there.slice(0, 3))
    t.deepEqual(await trial.say('A', `${name}.cluster.local`), [`NXDOMAIN ${soa}`], name)
  t.false(trial.zone.has('default.svc.cluster.local'))
  t.deepEqual(await trial.say('PTR', '9.9.96.10.in-addr.arpa'), ['NXDOMAIN (SOA 96.10.in-addr.arpa)'])
})

test('an answer has the spelling of its question, all records of a type, and says who is asked', async (t) => {
  using trial = new Trial()
  trial.put(service('web', { clusterIP: '10.96.3.4', clusterIPs: ['10.96.3.4'] }))
  const answer = await trial.ask('A', 'WeB.dEfault.SVC.cluster.LOCAL')
  t.is(answer.questions?.[0]?.name, 'WeB.dEfault.SVC.cluster.LOCAL')
  t.is(answer.answers?.[0]?.name, 'WeB.dEfault.SVC.cluster.LOCAL')
  t.true(answer.flag_aa && answer.flag_ra && answer.flag_rd && answer.flag_qr && !answer.flag_tc)
  t.deepEqual(await trial.say('ANY', 'web.default.svc.cluster.local'), [
    'NOERROR',
    'web.default.svc.cluster.local 5 A 10.96.3.4',
  ])
})

const many = (count: number): EndpointSlice =>
  slice(
    'IPv4',
    Array.from({ length: count }, (_, i) => ({ addresses: [`10.244.${i >> 8}.${i & 255}`], conditions: {} })),
  )

test('what does not fit into a datagram is cut at a record and marked, and comes whole by TCP; EDNS makes room', async (t) => {
  using trial = new Trial()
  const name = 'big.default.svc.cluster.local'
  trial.put(service('big', { clusterIP: 'None', clusterIPs: ['None'] }), many(200))
  const plain = await trial.ask('A', name)
  t.true(plain.flag_tc)
  t.is(plain.answers?.length, Math.floor((512 - 12 - 35) / 16))
  const edns = await trial.ask('A', name, 'udp', 4096)
  t.true(edns.flag_tc)
  t.is(edns.answers?.length, Math.floor((1232 - 12 - 35 - 11) / 16))
  t.like(edns.additionals?.[0], { type: 'OPT', udpPayloadSize: 1232 })
  const tcp = await trial.ask('A', name, 'tcp')
  t.false(tcp.flag_tc)
  t.is(new Set(tcp.answers?.map((a) => (a.type === 'A' ? a.data : ''))).size, 200)

  trial.put(service('big', { clusterIP: 'None', clusterIPs: ['None'] }), many(5000))
  t.is((await trial.ask('A', name, 'tcp')).answers?.length, Math.floor(65_000 / 16), 'more than a message can hold')
})

test('of many addresses another one is first each time', async (t) => {
  using trial = new Trial()
  trial.put(service('db', { clusterIP: 'None', clusterIPs: ['None'] }), many(3))
  const firsts = new Set<string>()
  for (let i = 0; i < 3; i++) {
    const { answers = [] } = await trial.ask('A', 'db.default.svc.cluster.local')
    t.is(answers.length, 3)
    firsts.add(answers[0]?.type === 'A' ? answers[0].data : '')
  }
  t.is(firsts.size, 3)
})

const header = (flags: number, ...counts: number[]): Buffer => {
  const out = Buffer.alloc(12)
  out.writeUInt16BE(1, 0)
  out.writeUInt16BE(flags, 2)
  for (const [i, count] of counts.entries()) out.writeUInt16BE(count, 4 + i * 2)
  return out
}
const question = (name: string, type: number, klass = 1): Buffer =>
  Buffer.concat([encodeName(name) ?? Buffer.alloc(0), Buffer.from([type >> 8, type & 255, klass >> 8, klass & 255])])
const opt = (version: number): Buffer => Buffer.from([0, 0, 41, 16, 0, 0, version, 0, 0, 0, 0])

test('malformed and foreign questions are refused with the code for it, or dropped, and counted', (t) => {
  using trial = new Trial()
  const q = question('web.default.svc.cluster.local', 1)
  const cases: readonly (readonly [string, Buffer, string | number])[] = [
    ['too short', Buffer.alloc(11), 'none'],
    ['an answer', Buffer.concat([header(0x8000, 1), q]), 'none'],
    ['opcode STATUS', Buffer.concat([header(0x1000, 1), q]), 4],
    ['no question', header(0, 0), 1],
    ['two questions', Buffer.concat([header(0, 2), q, q]), 1],
    ['with an answer', Buffer.concat([header(0, 1, 1), q, opt(0)]), 1],
    ['cut within the name', Buffer.concat([header(0, 1), q.subarray(0, 9)]), 1],
    ['cut within the type', Buffer.concat([header(0, 1), q.subarray(0, -3)]), 1],
    ['a pointer in the question', Buffer.concat([header(0, 1), Buffer.from([0xc0, 12, 0, 1, 0, 1])]), 1],
    [
      'a label of 64',
      Buffer.concat([header(0, 1), Buffer.from([64]), Buffer.alloc(64, 97), Buffer.from([0, 0, 1, 0, 1])]),
      1,
    ],
    [
      'a name of 256',
      Buffer.concat([
        header(0, 1),
        ...Array.from({ length: 4 }, () => Buffer.concat([Buffer.from([63]), Buffer.alloc(63, 97)])),
        Buffer.from([0, 0, 1, 0, 1]),
      ]),
      1,
    ],
    ['bytes after the end', Buffer.concat([header(0, 1), q, Buffer.from([0])]), 1],
    ['a record that is not there', Buffer.concat([header(0, 1, 0, 0, 1), q]), 1],
    ['two OPT', Buffer.concat([header(0, 1, 0, 0, 2), q, opt(0), opt(0)]), 1],
    ['EDNS version 1', Buffer.concat([header(0, 1, 0, 0, 1), q, opt(1)]), 0],
    ['class CHAOS', Buffer.concat([header(0, 1), question('version.bind', 16, 3)]), 5],
    ['zone transfer', Buffer.concat([header(0, 1), question('cluster.local', 252)]), 5],
    ['our own marks as types', Buffer.concat([header(0, 1), question('cluster.local', 0xffff)]), 5],
  ]
  for (const [what, query, expected] of cases) {
    const answer = trial.table.answer(query, 'udp')
    if (answer === 'none' || answer === undefined) t.is(answer, expected as 'none', what)
    else {
      t.is((answer[3] ?? 0) & 15, Number(expected), what)
      t.is(answer[2] === undefined ? 0 : answer[2] & 0x80, 0x80, what)
    }
  }
  // BADVERS is 16: its upper bits are in the OPT record.
  const badvers = trial.table.answer(Buffer.concat([header(0, 1, 0, 0, 1), q, opt(1)]), 'udp')
  t.is(Buffer.isBuffer(badvers) ? badvers.at(-6) : 0, 1)
  t.like(trial.table.counts(), { malformed: 11, dropped: 2, refused: 6 })
})

test('ten thousand broken questions: nothing crashes, every answer can be read, and good ones are answered as before', async (t) => {
  using trial = new Trial()
  trial.put(service('web', { clusterIP: '10.96.3.4', clusterIPs: ['10.96.3.4'], ports: [{ name: 'p', port: 1 }] }))
  trial.put(service('db', { clusterIP: 'None', clusterIPs: ['None'] }), many(60))
  const good = [
    Buffer.concat([header(0x100, 1), question('web.default.svc.cluster.local', 1)]),
    Buffer.concat([header(0x100, 1, 0, 0, 1), question('db.default.svc.cluster.local', 1), opt(0)]),
    Buffer.concat([header(0x100, 1, 0, 0, 1), question('_p._tcp.web.default.svc.cluster.local', 33), opt(0)]),
    Buffer.concat([header(0x100, 1), question('nosuch.cluster.local', 28)]),
    Buffer.concat([header(0x100, 1), question('10-1-1-1.default.pod.cluster.local', 1)]),
  ]
  const broken = fc.oneof(
    fc.uint8Array({ maxLength: 600 }).map((bytes) => Buffer.from(bytes)),
    fc
      .tuple(
        fc.constantFrom(...good),
        fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 6 }),
        fc.nat(),
        fc.uint8Array({ maxLength: 20 }),
      )
      .map(([seed, flips, cut, tail]) => {
        const out = Buffer.from(seed)
        for (const [at, value] of flips) out[at % out.length] = value
        return Buffer.concat([
          out.subarray(0, cut % 3 === 0 ? cut % out.length : out.length),
          cut % 5 === 0 ? tail : Buffer.alloc(0),
        ])
      }),
  )
  await fc.assert(
    fc.asyncProperty(broken, fc.constantFrom('udp' as const, 'tcp' as const), async (query, transport) => {
      const answer = await trial.raw(query, transport)
      if (answer === undefined) return
      const parsed = packet.decode(answer)
      if (answer.readUInt16BE(0) !== query.readUInt16BE(0) || parsed.type !== 'response')
        throw new Error('not its answer')
      if (transport === 'udp' && answer.length > 1232) throw new Error(`${answer.length} bytes`)
    }),
    { numRuns: 10_000, seed: 20_261_121 },
  )
  t.deepEqual(await trial.say('A', 'web.default.svc.cluster.local'), [
    'NOERROR',
    'web.default.svc.cluster.local 5 A 10.96.3.4',
  ])
})

test('the readers of foreign messages take any bytes', (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), fc.nat(299), (bytes, at) => {
      const message = Buffer.from(bytes)
      decodeName(message, at)
      parseQuestion(message)
      parseAnswers(message)
    }),
    { numRuns: 5000, seed: 7 },
  )
  // A name that points at itself, and one that points forward.
  t.is(decodeName(Buffer.from([0xc0, 0]), 0), undefined)
  t.is(decodeName(Buffer.from([0xc0, 2, 0]), 0), undefined)
})

test('reverseZones() covers a network with whole zones', (t) => {
  t.deepEqual(reverseZones('10.96.0.0/16'), ['96.10.in-addr.arpa'])
  t.deepEqual(reverseZones('10.96.0.0/14'), [
    '96.10.in-addr.arpa',
    '97.10.in-addr.arpa',
    '98.10.in-addr.arpa',
    '99.10.in-addr.arpa',
  ])
  t.deepEqual(reverseZones('192.168.1.128/25')?.length, 128)
  t.deepEqual(reverseZones('10.0.0.7/32'), ['7.0.0.10.in-addr.arpa'])
  t.deepEqual(reverseZones('fd00::/8'), ['d.f.ip6.arpa'])
  t.is(reverseZones('x/8'), undefined)
})

test('what is not of the cluster goes upstream, and the first that can be reached answers; false answers are not heard', async (t) => {
  const forged = (query: Buffer): Buffer => {
    const out = answerTo(query, '6.6.6.6')
    out.writeUInt16BE((query.readUInt16BE(0) + 1) & 0xffff, 0)
    return out
  }
  const good = await upstream((query) => [forged(query), answerTo(query, '1.2.3.4')])
  const closed = await upstream(() => [])
  const closedPort = closed.port
  await new Promise<void>((done) => closed.socket.close(() => done()))
  try {
    using trial = new Trial(
      new Forwarder([
        { address: '127.0.0.1', port: closedPort },
        { address: '127.0.0.1', port: good.port },
      ]),
    )
    t.deepEqual(await trial.say('A', 'WWW.example.com'), ['NOERROR', 'WWW.example.com 60 A 1.2.3.4'])
    t.not(good.seen[0]?.readUInt16BE(0), undefined)
    trial.put(service('out', { type: 'ExternalName', externalName: 'www.example.com' }))
    t.deepEqual(await trial.say('A', 'out.default.svc.cluster.local'), [
      'NOERROR',
      'out.default.svc.cluster.local 5 CNAME www.example.com',
      'www.example.com 60 A 1.2.3.4',
    ])
    t.like(trial.forwarder.counts(), { forwarded: 2, answered: 2, failed: 0 })
  } finally {
    good.socket.close()
  }
})

test('a question that is under way is not asked again, so that a loop ends; too many at a time are told so at once', async (t) => {
  const silent = await upstream(() => [])
  try {
    const forwarder = new Forwarder([{ address: '127.0.0.1', port: silent.port }], { tryMs: 80 })
    const { signal } = new AbortController()
    const query = encodeQuery(1, 'www.example.com', 1)
    const answers = await Promise.all(Array.from({ length: 300 }, () => forwarder.ask(query, 'udp', signal)))
    t.true(answers.every((a) => a === undefined))
    t.is(silent.seen.length, 2, 'two tries of one question')
    t.is(forwarder.counts().overload, 300 - 256)
    const more = Array.from({ length: 600 }, (_, i) =>
      forwarder.ask(encodeQuery(1, `n${i}.example.com`, 1), 'udp', signal),
    )
    await Promise.all(more)
    t.is(forwarder.counts().overload, 300 - 256 + 600 - 512)
  } finally {
    silent.socket.close()
  }
})

test('over TCP questions may come together, in pieces, and from one who has closed its side', async (t) => {
  using trial = new Trial()
  trial.put(service('big', { clusterIP: 'None', clusterIPs: ['None'] }), many(200))
  const { server, close } = serveStreams(async (query) => trial.raw(query, 'tcp'))
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', () => done()))
  const address = server.address()
  const port = address !== null && typeof address === 'object' ? address.port : 0
  const client = connect({ port, host: '127.0.0.1' })
  const query = withLength(encodeQuery(9, 'big.default.svc.cluster.local', 1))
  const stream = Buffer.concat(Array.from({ length: 50 }, () => query))
  client.write(stream.subarray(0, 61))
  client.end(stream.subarray(61))
  const chunks: Buffer[] = []
  for await (const chunk of client) chunks.push(chunk as Buffer)
  let got = Buffer.concat(chunks)
  let count = 0
  for (; got.length > 0; count++) {
    const size = got.readUInt16BE(0)
    t.is(packet.decode(got.subarray(2, 2 + size)).answers?.length, 200)
    got = got.subarray(2 + size)
  }
  t.is(count, 50)
  close()
})
