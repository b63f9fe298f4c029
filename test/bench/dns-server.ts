import { readFileSync } from 'node:fs'
import { serviceRecords } from '#agent/dns/records.ts'
import { Zone } from '#agent/dns/zone.ts'
import type { Service } from '#api/gen/core-v1.ts'
import { NameTable } from '#kernel/names.ts'
import { Namespace } from '#kernel/netns.ts'

/** The resolver's zone, table and thread with nothing beside them, for dns.ts: serves until its standard input ends. */
const [, , namesFile, port] = process.argv
if (namesFile === undefined || port === undefined) throw new Error('Name a file of names and a port')
using table = new NameTable()
const zone = new Zone({ domain: 'cluster.local', reverseZones: [], askBelow: ['pod.cluster.local'], serial: 1 })
const start = zone.start()
table.change(start.puts, start.removals)
for (const line of readFileSync(namesFile, 'utf8').trim().split('\n')) {
  const [fqdn = '', address = ''] = line.split(' ')
  const [name = '', namespace = ''] = fqdn.split('.')
  const service: Service = {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name, namespace, uid: '', resourceVersion: '', creationTimestamp: '' },
    spec: { clusterIP: address, clusterIPs: [address], ports: [{ name: 'http', port: 80 }] },
    status: { loadBalancer: {} },
  }
  const { puts, removals } = zone.set(fqdn, serviceRecords(service, [], 'cluster.local'))
  table.change(puts, removals)
}
using own = Namespace.own()
table.serve(own.listen('127.0.0.1', Number(port), 'udp').release())
process.stdout.write('ready\n')
process.stdin.resume()
await new Promise((resolve) => process.stdin.once('end', resolve))
