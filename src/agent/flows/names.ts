import { podAddressesAnnotation } from '#api/core/pod/addresses.ts'
import type { Node, Service } from '#api/gen/core-v1.ts'
import type { KubeObject } from '#api/meta/resource.ts'
import { serviceNumber } from '#datapath/datapath.ts'
import type { Names, Party, PolicyName } from './record.ts'

interface Holder {
  readonly party: Party
  readonly since: number
  /** When it was gone. */
  until: number
}

/** Of a pod its metadata is enough. */
type Pod = Pick<KubeObject, 'metadata'>

/** How long a name is kept for an address that has been given up: as old as a record that somebody may still read. */
const keptMs = 600_000
/** Reserved identities (bpf/abi/identity.h). */
const entities: ReadonlyMap<number, string> = new Map([
  [1, 'host'],
  [2, 'world'],
  [3, 'remote-node'],
  [4, 'unknown'],
])

export interface PolicyNames {
  rule(rule: number): PolicyName | undefined
  set(set: number): readonly PolicyName[]
}

/** Who had which address when. Told of every change of pods, nodes and Services, in order. */
export class NameIndex implements Names {
  readonly #holders = new Map<string, Holder[]>()
  readonly #services = new Map<string, { readonly namespace: string; readonly name: string }>()
  readonly #numbered = new Map<string, { readonly namespace: string; readonly name: string }>()
  readonly #policies: PolicyNames

  constructor(policies: PolicyNames) {
    this.#policies = policies
  }

  pod(next: Pod | undefined, old: Pod | undefined, now: number): void {
    const party = next && partyOf(next)
    const had = new Set(addressesOf(old))
    const has = new Set(addressesOf(next))
    for (const address of had) if (!has.has(address)) this.#leave(address, old?.metadata, now)
    for (const address of has) {
      const holder = this.#holders.get(address)?.at(-1)
      if (party === undefined) continue
      if (holder !== undefined && holder.until === Infinity && samePod(holder.party, party)) {
        // New labels are shown for what comes from now on; most changes are of the status only.
        if (JSON.stringify(holder.party.labels) === JSON.stringify(party.labels)) continue
        holder.until = now
      }
      this.#enter(address, party, now)
    }
  }

  node(next: Node | undefined, old: Node | undefined, own: string, now: number): void {
    const addresses = (node: Node | undefined): string[] =>
      (node?.status.addresses ?? []).filter((a) => a.type === 'InternalIP').map((a) => a.address)
    for (const address of addresses(old)) this.#leave(address, undefined, now)
    if (next === undefined) return
    const entity = next.metadata.name === own ? 'host' : 'remote-node'
    for (const address of addresses(next)) this.#enter(address, { entity, pod: next.metadata.name }, now)
  }

  serviceChanged(next: Service | undefined, old: Service | undefined): void {
    for (const key of serviceKeys(old)) this.#services.delete(key)
    const { namespace = '', name } = (next ?? old)?.metadata ?? { name: '' }
    const number = serviceNumber(`${namespace}/${name}`)
    if (next === undefined) {
      this.#numbered.delete(number)
      return
    }
    this.#numbered.set(number, { namespace, name })
    for (const key of serviceKeys(next)) this.#services.set(key, { namespace, name })
  }

  party(address: string, identity: number, timeMs: number): Party {
    // Of a record made just before we heard of the pod: its first holder after that.
    const holders = this.#holders.get(address)
    const holder = holders?.findLast((h) => h.since <= timeMs && timeMs < h.until) ?? holders?.[0]
    if (holder !== undefined) return holder.party
    return { entity: entities.get(identity) ?? (identity >= 256 ? 'unknown' : 'world') }
  }

  service(
    address: string,
    port: number,
    protocol: number,
  ): { readonly namespace: string; readonly name: string } | undefined {
    return this.#services.get(`${address} ${port} ${protocol}`) ?? this.#services.get(`node ${port} ${protocol}`)
  }

  serviceNumbered(number: string): { readonly namespace: string; readonly name: string } | undefined {
    return this.#numbered.get(number)
  }

  rule(rule: number): PolicyName | undefined {
    return rule === 0 ? undefined : this.#policies.rule(rule)
  }

  set(set: number): readonly PolicyName[] {
    return set === 0 ? [] : this.#policies.set(set)
  }

  #enter(address: string, party: Party, now: number): void {
    const holders = (this.#holders.get(address) ?? []).filter((h) => h.until > now - keptMs)
    const last = holders.at(-1)
    // The address moved on before we were told that it was free.
    if (last !== undefined && last.until === Infinity) last.until = now
    holders.push({ party, since: now, until: Infinity })
    this.#holders.set(address, holders)
  }

  #leave(
    address: string,
    metadata: { readonly namespace?: string; readonly name: string } | undefined,
    now: number,
  ): void {
    const holders = this.#holders.get(address)
    const last = holders?.at(-1)
    if (last === undefined || last.until !== Infinity) return
    if (metadata !== undefined && !(last.party.namespace === metadata.namespace && last.party.pod === metadata.name))
      return
    last.until = now
    this.#forget(now)
  }

  /** Bounds what is remembered of the past; at most as many addresses as the cluster had within ten minutes. */
  #forget(now: number): void {
    if (now < this.#forgetAt) return
    this.#forgetAt = now + keptMs / 10
    for (const [address, holders] of this.#holders) {
      if ((holders.at(-1)?.until ?? 0) <= now - keptMs) this.#holders.delete(address)
    }
  }
  #forgetAt = 0
}

const samePod = (a: Party, b: Party): boolean => a.namespace === b.namespace && a.pod === b.pod

/** Those that the control plane gave it. A host-network pod has none: it is its node. */
function addressesOf(pod: Pod | undefined): readonly string[] {
  const assigned = pod?.metadata.annotations?.[podAddressesAnnotation]
  return assigned === undefined || assigned === '' ? [] : assigned.split(',')
}

function partyOf({ metadata }: Pod): Party {
  const { namespace = '', name, labels } = metadata
  return { namespace, pod: name, ...(labels === undefined ? {} : { labels }) }
}

const protocolNumbers = { TCP: 6, UDP: 17, SCTP: 132 } as const

/** `node` stands for any address of any node: node ports are one Service's there. */
function serviceKeys(service: Service | undefined): string[] {
  if (service === undefined) return []
  const { clusterIPs = [], externalIPs = [], ports = [] } = service.spec
  const balanced = (service.status.loadBalancer?.ingress ?? []).flatMap(({ ip }) => (ip === undefined ? [] : [ip]))
  const protocolOf = (protocol: string | undefined): number => protocolNumbers[protocol as 'TCP'] ?? 6
  const atNodes = ports.flatMap((p) => (p.nodePort ? [`node ${p.nodePort} ${protocolOf(p.protocol)}`] : []))
  return [...clusterIPs, ...externalIPs, ...balanced]
    .filter((address) => address !== 'None')
    .flatMap((address) => ports.map((p) => `${address} ${p.port} ${protocolOf(p.protocol)}`))
    .concat(atNodes)
}
