import type { Clock } from '#base/clock.ts'
import type { BpfMap } from '#kernel/bpf/map.ts'
import { type Program, runSyscall } from '#kernel/bpf/program.ts'
import type { Link } from '#kernel/netlink/netlink.ts'
import { Namespace } from '#kernel/netns.ts'
import { announcement } from './announce.ts'
import type { Attachments } from './attach.ts'
import type { KnownAddress, Service } from './datapath.ts'
import type { Backend, Frontend } from './frontend.ts'
import { AddressMap, addressesMap } from './maps/addresses.ts'
import { membersMap, sourceRangesMap } from './maps/service-extras.ts'
import { backendsMap, frontendsMap, ServiceMaps, slotsMap } from './maps/services.ts'
import {
  decodeTranslation,
  decodeTranslationSweep,
  encodeStale,
  encodeTranslationSweep,
  exclusionsMap,
  type StaleBackend,
  type SweptTranslations,
  staleMap,
  type Translation,
  translationsMap,
  writeExclusions,
} from './maps/translations.ts'

export interface ServiceSideOptions {
  readonly attachments: Attachments
  readonly sweeper: Program
  readonly uplink: Link
  /** The node's; absent: the one that this process is in. */
  readonly namespace?: Namespace
  readonly clock: Clock
}

/** Services as the programs know them: frontends and backends, the addresses that they are asked at, and what is translated. */
export class ServiceSide {
  readonly #attachments: Attachments
  readonly #sweeper: Program
  readonly #uplink: Link
  readonly #namespace: Namespace | undefined
  readonly #services: ServiceMaps
  readonly #addresses: AddressMap
  readonly #stale: BpfMap
  readonly #exclusions: BpfMap
  readonly #translations: BpfMap
  #ownAddresses: ReadonlySet<string> = new Set()
  /** Not known at first: an earlier agent may have attached it. */
  #hasEgress: boolean | undefined

  /** `open` gives a map by its name; it stays its giver's. */
  constructor(open: (name: string) => BpfMap, { attachments, sweeper, uplink, namespace, clock }: ServiceSideOptions) {
    this.#attachments = attachments
    this.#sweeper = sweeper
    this.#uplink = uplink
    this.#namespace = namespace
    const maps = {
      frontends: open(frontendsMap),
      slots: open(slotsMap),
      backends: open(backendsMap),
      sourceRanges: open(sourceRangesMap),
      members: open(membersMap),
    }
    this.#services = new ServiceMaps(maps, () => clock.monotonic())
    this.#addresses = new AddressMap(open(addressesMap))
    this.#stale = open(staleMap)
    this.#exclusions = open(exclusionsMap)
    this.#translations = open(translationsMap)
  }

  /** Networks outside the cluster that pods talk to under their own addresses. */
  exclude(cidrs: readonly string[]): void {
    writeExclusions(this.#exclusions, cidrs)
  }

  changeServices(upserts: readonly Service[], removals: readonly Frontend[]): void {
    this.#services.change(upserts, removals)
  }

  services(): Service[] {
    return this.#services.list()
  }

  async attachForServices(): Promise<void> {
    const isNeeded = this.#services.leadsOutsideTo(this.#ownAddresses)
    if (isNeeded === this.#hasEgress) return
    if (isNeeded) await this.#attachments.attachDevice('egress', 'node', this.#uplink.index)
    else this.#attachments.detachDevice('egress', 'node')
    this.#hasEgress = isNeeded
  }

  hasBackend(backend: Backend): boolean {
    return this.#services.numberOfBackend(backend) !== undefined
  }

  async sweepTranslations(stale: readonly StaleBackend[] = []): Promise<SweptTranslations> {
    const keys = stale.slice(0, this.#stale.entriesMax / 2).map(encodeStale)
    for (const key of keys) this.#stale.update(key, Buffer.from([1, 0, 0, 0]))
    try {
      return decodeTranslationSweep(await runSyscall(this.#sweeper, encodeTranslationSweep(keys.length > 0)))
    } finally {
      for (const key of keys) this.#stale.delete(key)
    }
  }

  translations(): Translation[] {
    return this.#translations.entries().map(({ key, value }) => decodeTranslation(key, value))
  }

  setAddresses(addresses: readonly KnownAddress[]): void {
    this.#ownAddresses = new Set(addresses.flatMap((a) => (a.kind === 'own' ? [a.address] : [])))
    const begun = this.#addresses.set(addresses)
    if (begun.length === 0) return
    using own = Namespace.own()
    for (const address of begun)
      (this.#namespace ?? own).sendFrame(this.#uplink.index, announcement(address, this.#uplink.mac))
  }

  knownAddresses(): KnownAddress[] {
    return this.#addresses.entries()
  }
}
