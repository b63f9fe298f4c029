import test from 'ava'
import type { Pod, Service } from '#api/gen/core-v1.ts'
import { FakeClock } from '#base/clock.ts'
import { serviceNumber } from '#datapath/datapath.ts'
import { at, eventKinds, eventSize } from '#datapath/events/event.ts'
import { encodeAddress } from '#datapath/maps/address.ts'
import type { HttpEvent } from '#gateway/engine.ts'
import { compileQuery, type FlowQuery } from './filter.ts'
import { type EventSource, Flows } from './flows.ts'
import { FlowLog } from './log.ts'
import { NameIndex } from './names.ts'
import { flowJson, formatFlow } from './present.ts'
import type { Flow } from './record.ts'

interface Made {
  readonly drop?: boolean
  readonly reason?: number
  readonly source?: string
  readonly destination?: string
  readonly port?: number
  readonly sourcePort?: number
  readonly set?: number
  readonly rule?: number
  readonly frontend?: string
  /** ns of CLOCK_MONOTONIC. */
  readonly time?: bigint
}

/** A record as a program writes it. */
function record(made: Made): Buffer {
  const out = Buffer.alloc(eventSize)
  out.writeBigUInt64LE(made.time ?? process.hrtime.bigint(), at.time)
  encodeAddress(made.source ?? '10.0.0.1').copy(out, at.source)
  encodeAddress(made.destination ?? '10.0.0.2').copy(out, at.destination)
  out.writeUInt16BE(made.sourcePort ?? 40000, at.sourcePort)
  out.writeUInt16BE(made.port ?? 80, at.destinationPort)
  out[at.protocol] = 6
  if (made.frontend !== undefined) {
    encodeAddress(made.frontend).copy(out, at.frontend)
    out.writeUInt16BE(80, at.frontendPort)
  }
  out[at.kind] = made.drop ? eventKinds.drop : eventKinds.connection
  out[at.reason] = made.reason ?? 0
  out.writeUInt32LE(made.set ?? 0, at.set)
  out.writeUInt32LE(made.rule ?? 0, at.rule)
  out[at.tcpFlags] = 2
  return out
}

class Source implements EventSource {
  readonly #waiting: Buffer[] = []
  put(...made: readonly Made[]): void {
    this.#waiting.push(...made.map(record))
  }
  drain(into: Uint8Array): number {
    const taken = this.#waiting.splice(0, Math.floor(into.length / eventSize))
    for (const [i, one] of taken.entries()) into.set(one, i * eventSize)
    return taken.length
  }
  lost(): number {
    return 0
  }
}

const pod = (name: string, ip: string, labels: Record<string, string> = {}): Pod =>
  ({
    metadata: { name, namespace: 'default', uid: name, labels, annotations: { 'weft.dev/pod-ips': ip } },
    spec: {},
    status: {},
  }) as unknown as Pod

const start = Date.parse('2026-01-01T00:00:00Z')
function bench(): { flows: Flows; source: Source; names: NameIndex; clock: FakeClock } {
  const clock = new FakeClock(start)
  const source = new Source()
  const names = new NameIndex({
    rule: (rule) => ({ namespace: 'default', name: 'let-in', path: `spec.ingress[0].from[${rule}]` }),
    set: (set) => [{ namespace: 'default', name: `deny-${set}` }],
  })
  return { flows: new Flows({ source, names, nodeName: 'node-1', clock, entriesMax: 8 }), source, names, clock }
}

test('a log keeps the newest records and counts them all', (t) => {
  const log = new FlowLog(4)
  const many = Buffer.concat(Array.from({ length: 7 }, (_, i) => record({ port: i + 1 })))
  log.append(many.subarray(0, 3 * eventSize), 3)
  log.append(many.subarray(3 * eventSize), 4)
  t.deepEqual([log.start, log.end], [3, 7])
  t.deepEqual(
    [2, 3, 4, 5, 6, 7].map((position) => log.get(position)?.destinationPort),
    [undefined, 4, 5, 6, 7, undefined],
  )
  t.deepEqual(
    log.counts().map((c) => c.count),
    [7],
  )
  // More at once than there is room for.
  log.append(many, 7)
  t.deepEqual(
    [10, 13].map((position) => log.get(position)?.destinationPort),
    [4, 7],
  )
})

test('a flow has the names that its addresses had at its time, and the policies behind its numbers', (t) => {
  const { flows, source, names, clock } = bench()
  const now = process.hrtime.bigint()
  names.pod(pod('a', '10.0.0.1', { app: 'a' }), undefined, start - 5000)
  names.pod(pod('b', '10.0.0.2'), undefined, start - 5000)
  // The address goes from b to c.
  names.pod(undefined, pod('b', '10.0.0.2'), start - 1000)
  names.pod(pod('c', '10.0.0.2'), undefined, start - 500)
  source.put({ time: now - 2_000_000_000n }, { time: now, drop: true, reason: 7, set: 3 }, { time: now, rule: 2 })
  source.put({ time: now, drop: true, reason: 8, set: 4 }, { time: now, drop: true, reason: 9 })
  clock.advance(0)
  const [before, denied, allowed, unknown, full] = flows.recent({})
  t.is(before?.destination.pod, 'b')
  t.is(denied?.destination.pod, 'c')
  t.is(denied?.event.reason, 'Policy denied')
  t.deepEqual(denied?.deniedBy, [{ namespace: 'default', name: 'deny-3' }])
  t.is(unknown?.event.reason, 'Unknown sender')
  t.deepEqual(unknown?.deniedBy, [{ namespace: 'default', name: 'deny-4' }])
  t.deepEqual(full?.deniedBy, [], 'no set refused it')
  t.deepEqual(allowed?.allowedBy, [{ namespace: 'default', name: 'let-in', path: 'spec.ingress[0].from[2]' }])
  t.regex(
    formatFlow(allowed as Flow),
    /default\/a:40000 \(ID:0\) -> default\/c:80 .*FORWARDED \(TCP Flags: SYN\).*let-in/,
  )
  const json = flowJson(allowed as Flow) as { flow: { source: { labels: string[] }; l4: object } }
  t.deepEqual(json.flow.source.labels, ['k8s:app=a'])
  t.deepEqual(json.flow.l4, { TCP: { source_port: 40000, destination_port: 80, flags: { SYN: true } } })
})

test('a Service that was asked for is named', (t) => {
  const { flows, source, names } = bench()
  const web = {
    metadata: { name: 'web', namespace: 'default' },
    spec: { clusterIPs: ['10.96.0.9'], ports: [{ port: 80, protocol: 'TCP', nodePort: 30_080 }] },
    status: {},
  } as unknown as Service
  names.serviceChanged(web, undefined)
  t.is(names.service('172.30.0.11', 30_080, 6)?.name, 'web', 'at any node')
  t.is(names.service('172.30.0.11', 30_080, 17), undefined)
  source.put({ frontend: '10.96.0.9' }, {})
  t.deepEqual(
    flows.recent({}).map((f) => f.service?.name),
    ['web', undefined],
  )
  // At a node's port the kernel's row has its number alone.
  const number = serviceNumber('default/web')
  t.like(names.serviceNumbered(number), { namespace: 'default', name: 'web' })
  names.serviceChanged(undefined, web)
  t.is(flows.recent({})[0]?.service, undefined)
  t.is(names.serviceNumbered(number), undefined)
  t.is(names.service('172.30.0.11', 30_080, 6), undefined)
})

test('whose policy spoke is said, and not at whose device: of two pods of a node both are judged at the first', (t) => {
  const { flows, source } = bench()
  source.put({})
  const [flow] = flows.recent({})
  if (flow === undefined) throw new Error('no flow')
  const by = { namespace: 'default', name: 'p', path: 'spec.ingress[0].from[0]' }
  const fields = (more: Partial<Flow>) => Object.keys((flowJson({ ...flow, ...more }) as { flow: object }).flow)
  const egress = { ...flow.event, direction: 'EGRESS' as const }
  t.true(fields({ event: egress, allowedBy: [{ ...by, direction: 'ingress' }] }).includes('ingress_allowed_by'))
  t.true(fields({ event: egress, deniedBy: [{ ...by, direction: 'ingress' }] }).includes('ingress_denied_by'))
  t.true(fields({ event: egress, allowedBy: [by] }).includes('egress_allowed_by'))
})

test('fields of a query must all hold, values of one are alternatives', (t) => {
  const { flows, source, names } = bench()
  names.pod(pod('client-1', '10.0.0.1', { app: 'client' }), undefined, start - 1)
  names.pod(pod('echo-1', '10.0.0.2', { app: 'echo' }), undefined, start - 1)
  source.put(
    { port: 80 },
    { port: 81, drop: true, reason: 3 },
    { port: 82, source: '10.0.0.2', destination: '10.0.0.1' },
    { port: 83, source: '10.9.0.1' },
  )
  const ports = (query: FlowQuery): number[] => flows.recent(query).map((f) => f.event.destinationPort)
  t.deepEqual(ports({}), [80, 81, 82, 83])
  t.deepEqual(ports({ fromPod: ['client'] }), [80, 81])
  t.deepEqual(ports({ fromPod: ['client', 'default/echo'] }), [80, 81, 82])
  t.deepEqual(ports({ pod: ['client'], verdict: ['dropped'] }), [81])
  t.deepEqual(ports({ dropReasonDesc: ['INVALID_SOURCE_IP'] }), [81])
  t.deepEqual(ports({ toLabel: ['app in (echo)'] }), [80, 81, 83])
  t.deepEqual(ports({ ip: ['10.9.0.0/16'] }), [83])
  t.deepEqual(ports({ toPort: ['82', '83'] }), [82, 83])
  t.deepEqual(ports({ namespace: ['kube-system'] }), [])
  t.deepEqual(ports({ protocol: ['icmp'] }), [])
  t.deepEqual(ports({ protocol: ['TCP'] }), ports({}))
  t.deepEqual(ports({ dropReasonDesc: ['Policy denied'] }), ports({ dropReasonDesc: ['POLICY_DENIED'] }))
  t.deepEqual(ports({ identity: ['reserved:world'] }), ports({ identity: ['2'] }))
  for (const [bad, words] of [
    [{ verdict: ['MAYBE'] }, /verdict "MAYBE" is never given/],
    [{ port: ['http'] }, /port "http" is no number/],
    [{ ip: ['10.0.0'] }, /"10.0.0" is neither an address nor a network/],
    // What can never match would be an empty answer that looks like peace.
    [{ protocol: ['tpc'] }, /protocol "tpc" is never seen: use one of tcp, .*http/],
    [{ trafficDirection: ['sideways'] }, /direction "SIDEWAYS" is never seen: use one of INGRESS, EGRESS/],
    [{ dropReasonDesc: ['no reason'] }, /reason "NO_REASON" is never seen: .*POLICY_DENIED/],
    [{ fromPod: ['a/b/c'] }, /pod "a\/b\/c": use NAME, NAMESPACE\/NAME/],
    [{ service: [''] }, /service "": use NAME/],
    [{ namespace: ['Shop'] }, /"Shop" is no name of a namespace/],
    [{ identity: ['hots'] }, /identity "hots" is no number/],
  ] as const)
    t.throws(() => compileQuery(bad), { instanceOf: RangeError, message: words })
})

test('who follows gets what comes, and is told what he missed', async (t) => {
  const { flows, source } = bench()
  const stop = new AbortController()
  const following = flows.follow({}, flows.end, stop.signal)
  source.put({ port: 1 })
  flows.drain()
  const first = (await following.next()).value as Flow
  t.is(first.event.destinationPort, 1)
  const waiting = following.next()
  // Eight are kept: of eleven the first three are gone before he looks.
  source.put(...Array.from({ length: 11 }, (_, i) => ({ port: 100 + i })))
  flows.drain()
  t.deepEqual((await waiting).value, { missed: 3 })
  t.is(((await following.next()).value as Flow).event.destinationPort, 103)
  stop.abort()
  const rest: unknown[] = []
  for await (const flow of following) rest.push(flow)
  t.deepEqual(rest, [])
})

test('the ring is looked at often while there is something, and seldom while there is not', async (t) => {
  const { flows, source, clock } = bench()
  let drained = 0
  const counting = source.drain.bind(source)
  source.drain = (into) => {
    drained++
    return counting(into)
  }
  const stop = new AbortController()
  const running = flows.run(stop.signal)
  const pass = async (ms: number): Promise<number> => {
    const before = drained
    for (let i = 0; i < ms; i += 10) {
      clock.advance(10)
      await Promise.resolve()
      await Promise.resolve()
      await Promise.resolve()
    }
    return drained - before
  }
  await pass(1000)
  t.true((await pass(1600)) <= 11)
  source.put({})
  await pass(160)
  source.put({})
  t.true((await pass(40)) >= 1)
  stop.abort()
  await t.throwsAsync(running, { name: 'AbortError' })
})

test('requests that a Gateway answers come among the rest, by the same query, with what a client wrote made harmless', async (t) => {
  let tell: ((event: HttpEvent) => void) | undefined
  const names = new NameIndex({ rule: () => undefined, set: () => [] })
  names.pod(pod('web-1', '10.0.0.2', { app: 'web' }), undefined, 0)
  const source = new Source()
  const stop = new AbortController()
  const flows = new Flows({
    source,
    names,
    nodeName: 'n1',
    clock: new FakeClock(),
    requests: (listener) => {
      tell = listener
    },
  })
  const stream = flows.followAll({ toPod: ['web'] }, flows.end, stop.signal)
  const first = stream.next()
  const request: HttpEvent = {
    ...{ atMs: 1_700_000_000_000, client: '172.30.0.1', clientPort: 40_000, address: '172.30.0.200', port: 80 },
    ...{ method: 'GET', host: 'shop.example.com', path: '/a\u001b[2Jb', protocol: 'HTTP/1.1', code: 200, latencyMs: 3 },
    ...{ rule: 'HTTPRoute/shop/web/0', backend: 'shop/web:80', endpoint: '10.0.0.2:8080' },
  }
  tell?.({ ...request, endpoint: '10.0.0.9:8080' })
  tell?.(request)
  const { value } = await first
  if (value === undefined || 'missed' in value) return t.fail('a flow was to come')
  t.regex(
    formatFlow(value),
    /172\.30\.0\.1:40000 \(world\) -> default\/web-1:8080 http-response FORWARDED \(HTTP\/1\.1 200 3 ms \(GET http:\/\/shop\.example\.com\/a\\u001b\[2Jb\)\) \[by HTTPRoute\/shop\/web\/0\]$/,
  )
  t.like(flowJson(value), {
    flow: { Type: 'L7', l7: { type: 'RESPONSE', latency_ns: 3e6, http: { code: 200, method: 'GET' } } },
  })
  stop.abort(new DOMException('over', 'AbortError'))
  await stream.return(undefined)
})
