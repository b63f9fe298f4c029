import { parseMac } from '#kernel/netlink/netlink.ts'
import { addressBytes } from '#kernel/netns.ts'

/**
 * "This address is at this MAC now", to everybody on the link: an ARP announcement (RFC 5227, section 2.3) or an unsolicited
 * neighbour advertisement with the override flag (RFC 4861, section 7.2.6). A whole Ethernet frame.
 */
export function announcement(address: string, mac: string): Buffer {
  const ip = addressBytes(address)
  const from = parseMac(mac)
  return ip.length === 4 ? arpAnnouncement(ip, from) : advertisement(ip, from)
}

/**
 * In the form of a question about oneself: Linux takes it over what it knows however fresh that is, which of an answer it does
 * only where the target's hardware address is the sender's.
 */
function arpAnnouncement(ip: Buffer, mac: Buffer): Buffer {
  const everybody = Buffer.alloc(6, 0xff)
  const head = Buffer.from('08060001080006040001', 'hex')
  return Buffer.concat([everybody, mac, head, mac, ip, Buffer.alloc(6), ip, Buffer.alloc(18)])
}

function advertisement(ip: Buffer, mac: Buffer): Buffer {
  const allNodes = addressBytes('ff02::1')
  const body = Buffer.concat([Buffer.from('8800000020000000', 'hex'), ip, Buffer.from('0201', 'hex'), mac])
  const pseudo = Buffer.concat([ip, allNodes, Buffer.from([0, 0, 0, body.length, 0, 0, 0, 58]), body])
  let sum = 0
  for (let i = 0; i < pseudo.length; i += 2) sum += pseudo.readUInt16BE(i)
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
  body.writeUInt16BE(~sum & 0xffff, 2)
  const header = Buffer.from([0x60, 0, 0, 0, 0, body.length, 58, 255])
  const ethernet = Buffer.concat([Buffer.from('333300000001', 'hex'), mac, Buffer.from('86dd', 'hex')])
  return Buffer.concat([ethernet, header, ip, allNodes, body])
}
