import test from 'ava'
import { cidrContains, cidrSize, formatAddress, formatCidr, parseAddress, parseCidr } from './address.ts'

const round = (text: string): string | undefined => {
  const address = parseAddress(text)
  return address && formatAddress(address)
}

test('parseAddress() and formatAddress() are inverse, and write IPv6 the canonical way', (t) => {
  for (const [text, expected] of [
    ['10.96.0.1', '10.96.0.1'],
    ['255.255.255.255', '255.255.255.255'],
    ['::', '::'],
    ['::1', '::1'],
    ['fd00:10:96::', 'fd00:10:96::'],
    ['FD00:10:0096:0:0:0:0:1', 'fd00:10:96::1'],
    ['1:0:0:2:0:0:0:3', '1:0:0:2::3'],
    ['1:0:2:3:4:5:6:7', '1:0:2:3:4:5:6:7'],
    ['::ffff:10.0.0.1', '::ffff:a00:1'],
  ] as const) {
    t.is(round(text), expected, text)
  }
  for (const text of ['10.0.0', '10.0.0.256', 'fe80::1%eth0', 'x', '', '01.2.3.4'])
    t.is(parseAddress(text), undefined, text)
})

test('parseCidr() drops host bits and refuses what is no network', (t) => {
  const format = (text: string) => {
    const cidr = parseCidr(text)
    return cidr && formatCidr(cidr)
  }
  t.is(format('10.96.3.7/16'), '10.96.0.0/16')
  t.is(format('fd00:10:96::5/112'), 'fd00:10:96::/112')
  for (const text of ['10.0.0.0/33', '10.0.0.0', '10.0.0.0/', 'fd00::/129', '/8'])
    t.is(parseCidr(text), undefined, text)
})

test('cidrContains() and cidrSize() count addresses', (t) => {
  const cidr = parseCidr('10.244.1.0/24')
  if (cidr === undefined) return t.fail()
  t.is(cidrSize(cidr), 256n)
  const inside = (text: string) => {
    const address = parseAddress(text)
    return address !== undefined && cidrContains(cidr, address)
  }
  t.true(inside('10.244.1.0'))
  t.true(inside('10.244.1.255'))
  t.false(inside('10.244.2.0'))
  t.false(inside('::a'))
})
