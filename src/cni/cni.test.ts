import test from 'ava'
import { CniError, formatAnswer, formatConfigList, formatFailure, formatResult, parseRequest } from './protocol.ts'

const call = (environment: Record<string, string>, config: unknown = { cniVersion: '1.0.0' }): Buffer =>
  Buffer.from(
    `${Object.entries(environment)
      .map(([name, value]) => `${name}=${value}\0`)
      .join('')}\0${typeof config === 'string' ? config : JSON.stringify(config)}`,
  )

const add = {
  CNI_COMMAND: 'ADD',
  CNI_CONTAINERID: 'abc',
  CNI_NETNS: '/run/netns/x',
  CNI_IFNAME: 'eth0',
  CNI_ARGS: 'IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web',
}

test('parseRequest() reads a call', (t) => {
  const { args, ...request } = parseRequest(call(add, { cniVersion: '0.4.0', name: 'weft' }))
  t.deepEqual(request, {
    command: 'ADD',
    containerId: 'abc',
    netns: '/run/netns/x',
    ifname: 'eth0',
    cniVersion: '0.4.0',
    validAttachments: [],
  })
  t.is(args.get('K8S_POD_NAME'), 'web')
})

test('L11: parseRequest() takes a DEL without a namespace, and an ADD only with one', (t) => {
  const { CNI_NETNS: _, ...bare } = add
  t.is(parseRequest(call({ ...bare, CNI_COMMAND: 'DEL' })).netns, '')
  t.throws(() => parseRequest(call(bare)), { instanceOf: CniError, message: /CNI_NETNS/ })
})

test('parseRequest() refuses what the plug-in cannot have sent', (t) => {
  for (const [bytes, message] of [
    [Buffer.from('CNI_COMMAND=ADD\0'), /no end/],
    [call({ ...add, CNI_COMMAND: 'EAT' }), /CNI_COMMAND is "EAT"/],
    [call({ ...add, CNI_CONTAINERID: '../x' }), /CNI_CONTAINERID/],
    [call({ ...add, CNI_IFNAME: 'a/b' }), /CNI_IFNAME/],
    [call(add, '{'), /not JSON/],
    [call(add, '7'), /not an object/],
  ] as const)
    t.throws(() => parseRequest(bytes), { instanceOf: CniError, message })
})

test('L11: parseRequest() reads the sandboxes that a GC leaves', (t) => {
  const config = { cniVersion: '1.1.0', 'cni.dev/valid-attachments': [{ containerID: 'a', ifname: 'eth0' }, 7] }
  t.deepEqual(parseRequest(call({ CNI_COMMAND: 'GC' }, config)).validAttachments, [
    { containerId: 'a', ifname: 'eth0' },
  ])
})

test('formatResult() names families only for versions before 1.0', (t) => {
  const result = {
    hostDevice: 'lxc1',
    hostMac: '02:00:00:00:00:01',
    podDevice: 'eth0',
    podMac: '02:00:00:00:00:02',
    netns: '/run/netns/x',
    mtu: 1500,
    addresses: ['10.0.0.1', 'fd00::1'],
    gateways: { v4: '169.254.1.1', v6: 'fe80::1' },
  }
  const ips = (version: string): unknown => JSON.parse(formatResult(result, version)).ips
  t.deepEqual(ips('1.0.0'), [
    { address: '10.0.0.1/32', gateway: '169.254.1.1', interface: 1 },
    { address: 'fd00::1/128', gateway: 'fe80::1', interface: 1 },
  ])
  t.deepEqual(
    (ips('0.4.0') as { version: string }[]).map((ip) => ip.version),
    ['4', '6'],
  )
})

test('answers begin with the exit code', (t) => {
  t.is(formatAnswer('{}'), '0\n{}')
  const failure = formatFailure(new CniError('tryAgainLater', 'no', { cause: new Error('why') }), '1.0.0')
  t.is(failure, '1\n{"cniVersion":"1.0.0","code":11,"msg":"no","details":"why"}')
  t.regex(formatFailure(new Error('x'), '1.0.0'), /"code":100/)
})

test('the configuration names the plug-in and where the agent is', (t) => {
  t.deepEqual(JSON.parse(formatConfigList('/run/a.sock')).plugins, [
    { type: 'weft-cni', weftSocket: '/run/a.sock', capabilities: {} },
  ])
})
