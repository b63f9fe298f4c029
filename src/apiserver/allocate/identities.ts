import {
  formatNamedPorts,
  identityAnnotation,
  identityFirst,
  identityLast,
  type NamedPort,
  namedPortsAnnotation,
  namedPortsOf,
  parseIdentity,
} from '#api/core/pod/identity.ts'
import type { Pod } from '#api/gen/core-v1.ts'
import type { NetworkPolicy } from '#api/gen/networking-v1.ts'
import { networkPolicies, pods } from '#api/gen/resources.ts'
import { isStatus } from '#api/meta/status.ts'
import { identityText, LiveRelevance, type Relevance, relevantTo } from '#api/networking/relevance.ts'
import { Backoff } from '#base/async/backoff.ts'
import { delay } from '#base/async/delay.ts'
import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log/log.ts'
import type { Registry, User } from '../step.ts'
import { podAddresses } from './pods.ts'

/** What there is to know of a pod that has a number; pods are many, so not the object. */
interface Member {
  readonly namespace: string
  readonly name: string
  readonly uid: string
  readonly labels: Readonly<Record<string, string>>
  readonly ports: readonly NamedPort[]
  readonly number: number
}

interface Owner {
  readonly text: string
  count: number
}

/** Numbers that no pod has are remembered for the same labels to come back, up to so many; a Deployment at 0 replicas is usual. */
const restingMax = 65_536
/** Pods renumbered at once: their writes share a commit of the store. */
const renumberedAtOnce = 64
const retryFirstMs = 100
const retryMaxMs = 10_000

const server: User = { name: 'system:apiserver', groups: ['system:masters'] }

/**
 * Identity numbers of pods: one for all pods of a namespace that are the same to every live policy. What is given out is
 * what the pods in the registry carry, so nothing else is stored, and a restart finds every number again. When a policy
 * looks at a label that none looked at before, the pods of a number that differ in it get others; the first keeps it.
 *
 * A number is not given to other labels until all others have been: the next one after a restart is taken from the store's
 * revision, which is always ahead, since every number that is given costs a write.
 */
export class IdentityAllocator {
  readonly #registry: Registry
  readonly #clock: Clock
  readonly #log: Log
  readonly #relevance = new LiveRelevance()
  readonly #relevantTo = new Map<string, Relevance>()
  readonly #members = new Map<string, Member>()
  #owners = new Map<number, Owner>()
  #numbers = new Map<string, number>()
  readonly #stale = new Map<string, Member>()
  readonly #stop = new AbortController()
  #renumbering: Promise<void> | undefined
  #next: number

  constructor(registry: Registry, options: { readonly revision: number; readonly clock: Clock; readonly log: Log }) {
    this.#registry = registry
    this.#clock = options.clock
    this.#log = options.log
    this.#next = identityFirst + (options.revision % (identityLast - identityFirst + 1))
    for (const policy of registry.list(networkPolicies)) this.#look(undefined, policy)
    for (const pod of registry.list(pods)) this.#keep(pod.metadata.uid, memberOf(pod))
    this.#judgeAll()
    registry.onChange(networkPolicies, (next, old) => {
      if (this.#look(old, next)) this.#judgeAll()
    })
    registry.onChange(pods, (next, old) => {
      const uid = next?.metadata.uid ?? old?.metadata.uid
      if (uid !== undefined) this.#keep(uid, next && memberOf(next))
    })
  }

  /** What a bound pod's annotations have to say. A pod without addresses of its own is its node, and has no number. */
  annotate(pod: Pod): void {
    const annotations = { ...pod.metadata.annotations }
    delete annotations[identityAnnotation]
    delete annotations[namedPortsAnnotation]
    if (pod.spec.nodeName && podAddresses(pod).length > 0) {
      const ports = namedPortsOf(pod)
      annotations[identityAnnotation] = String(this.#numberOf(pod, ports))
      if (ports.length > 0) annotations[namedPortsAnnotation] = formatNamedPorts(ports)
    }
    if (pod.metadata.annotations !== undefined || Object.keys(annotations).length > 0)
      pod.metadata.annotations = annotations
  }

  /** Resolves once every pod has a number of its own kind. */
  async settled(): Promise<void> {
    while (this.#renumbering !== undefined) await this.#renumbering
  }

  async close(): Promise<void> {
    this.#stop.abort()
    await this.#renumbering
  }

  #numberOf({ metadata }: Pod, ports: readonly NamedPort[]): number {
    const text = identityText(metadata.namespace ?? '', metadata.labels, ports, this.#relevance)
    const present = this.#members.get(metadata.uid ?? '')?.number
    if (present !== undefined && this.#owners.get(present)?.text === text) return present
    const known = this.#numbers.get(text)
    if (known !== undefined) return known
    const number = this.#free()
    this.#numbers.set(text, number)
    this.#owners.set(number, { text, count: 0 })
    return number
  }

  #free(): number {
    for (let tried = identityFirst; tried <= identityLast; tried++) {
      const number = this.#next
      this.#next = number === identityLast ? identityFirst : number + 1
      if (!this.#owners.has(number)) return number
    }
    throw new Error('Cannot number a pod: every identity is taken')
  }

  /** Returns whether policies look at other things now. */
  #look(old: NetworkPolicy | undefined, next: NetworkPolicy | undefined): boolean {
    const uid = next?.metadata.uid ?? old?.metadata.uid ?? ''
    const relevant = next && relevantTo(next)
    const changed = this.#relevance.replace(this.#relevantTo.get(uid), relevant)
    if (relevant === undefined) this.#relevantTo.delete(uid)
    else this.#relevantTo.set(uid, relevant)
    return changed
  }

  #keep(uid: string, next: Member | undefined): void {
    const old = this.#members.get(uid)
    if (next === undefined) this.#members.delete(uid)
    else this.#members.set(uid, next)
    if (next !== undefined && next.number === old?.number) {
      // Numbered before a policy came that looks at a label which the same write changed.
      if (this.#owners.get(next.number)?.text !== this.#textOf(next)) this.#renumber(next)
      return
    }
    if (next !== undefined) this.#join(next)
    if (old !== undefined) this.#leave(old.number)
  }

  #join(member: Member): void {
    const text = this.#textOf(member)
    const owner = this.#owners.get(member.number)
    if (owner === undefined) {
      this.#owners.set(member.number, { text, count: 1 })
      if (!this.#numbers.has(text)) this.#numbers.set(text, member.number)
      return
    }
    owner.count++
    if (owner.text !== text) this.#renumber(member)
  }

  #leave(number: number): void {
    const owner = this.#owners.get(number)
    if (owner === undefined || --owner.count > 0) return
    if (this.#owners.size <= restingMax && this.#numbers.get(owner.text) === number) return
    this.#owners.delete(number)
    if (this.#numbers.get(owner.text) === number) this.#numbers.delete(owner.text)
  }

  /** Every number is judged anew: the pods that have it together, by what policies look at now. */
  #judgeAll(): void {
    this.#owners = new Map()
    this.#numbers = new Map()
    this.#stale.clear()
    for (const member of this.#members.values()) this.#join(member)
  }

  #textOf({ namespace, labels, ports }: Member): string {
    return identityText(namespace, labels, ports, this.#relevance)
  }

  #renumber(member: Member): void {
    this.#stale.set(member.uid, member)
    this.#begin()
  }

  #begin(): void {
    this.#renumbering ??= this.#renumberAll().finally(() => {
      this.#renumbering = undefined
      if (this.#stale.size > 0 && !this.#stop.signal.aborted) this.#begin()
    })
  }

  async #renumberAll(): Promise<void> {
    // Not within the commit that told us.
    await Promise.resolve()
    const backoff = new Backoff({ firstMs: retryFirstMs, maxMs: retryMaxMs, jitter: 0.2 })
    while (this.#stale.size > 0 && !this.#stop.signal.aborted) {
      const some = [...this.#stale.values()].slice(0, renumberedAtOnce)
      const outcomes = await Promise.allSettled(some.map((member) => this.#renumberOne(member)))
      const failed = outcomes.find((outcome) => outcome.status === 'rejected')
      if (failed === undefined) {
        backoff.reset()
        continue
      }
      this.#log.warn({ err: failed.reason, left: this.#stale.size }, 'pods could not be renumbered, trying again')
      await delay(backoff.next(), this.#stop.signal, this.#clock).catch(() => {})
    }
  }

  async #renumberOne(member: Member): Promise<void> {
    const { namespace, name, uid } = member
    try {
      await this.#registry.change(pods, namespace, name, server, (copy) => {
        if (copy.metadata.uid !== uid) return undefined
        const before = copy.metadata.annotations?.[identityAnnotation]
        this.annotate(copy)
        return copy.metadata.annotations?.[identityAnnotation] === before ? undefined : copy
      })
    } catch (error) {
      if (!isStatus(error, 'NotFound')) throw error
    }
    if (this.#stale.get(uid) === member) this.#stale.delete(uid)
  }
}

function memberOf(pod: Pod): Member | undefined {
  const { namespace = '', name = '', uid = '', labels = {}, annotations } = pod.metadata
  const number = parseIdentity(annotations?.[identityAnnotation])
  return number === undefined ? undefined : { namespace, name, uid, labels, ports: namedPortsOf(pod), number }
}
