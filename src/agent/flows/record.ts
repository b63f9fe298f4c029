import type { Event } from '#datapath/events/event.ts'
import type { HttpEvent } from '#gateway/engine.ts'

/** Who is behind an address. */
export interface Party {
  readonly namespace?: string
  readonly pod?: string
  readonly labels?: Readonly<Record<string, string>>
  /** Where it is no pod: `host`, `remote-node`, `world`, `unknown`. */
  readonly entity?: string
}

/** The part of a policy that let a connection through, or the policies under which nothing did. */
export interface PolicyName {
  readonly namespace: string
  readonly name: string
  /** `spec.ingress[1].from[0]`; of those under which nothing was allowed the selector that takes the pod. */
  readonly path?: string
  /** Whose side spoke: of two pods of one node both are judged where the packet leaves the first. */
  readonly direction?: 'ingress' | 'egress'
}

/** A connection or a drop with its names. */
export interface Flow {
  readonly event: Event
  /** Of a request that a Gateway answered (http.ts). */
  readonly http?: HttpEvent
  /** ms since 1970. */
  readonly time: number
  readonly node: string
  readonly source: Party
  readonly destination: Party
  readonly service: { readonly namespace: string; readonly name: string } | undefined
  readonly allowedBy: readonly PolicyName[]
  readonly deniedBy: readonly PolicyName[]
}

/** Gives numbers their names, as they were at that time. Policies and Services come from those who put them into the kernel. */
export interface Names {
  party(address: string, identity: number, timeMs: number): Party
  service(
    address: string,
    port: number,
    protocol: number,
  ): { readonly namespace: string; readonly name: string } | undefined
  /** By `serviceNumber`: what is asked for at a node port, too. */
  serviceNumbered(number: string): { readonly namespace: string; readonly name: string } | undefined
  /** The element behind a rule's number. */
  rule(rule: number): PolicyName | undefined
  /** The policies that a set was made of. */
  set(set: number): readonly PolicyName[]
}
