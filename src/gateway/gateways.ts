import { createHash } from 'node:crypto'
import { formatAddress, parseAddress } from '#base/net/address.ts'
import { examineListeners, type ListenerNeeds, type ListenerResult } from './listeners.ts'
import type { Gateway, GatewayClass } from './objects.ts'
import { isFalse, isTrue, type Verdict } from './verdict.ts'

/** Who we are in GatewayClasses and in routes' statuses. */
export const controllerName = 'weft.dev/gateway-controller'

/** A Gateway of ours as it stands, but for what only addresses and engines can say. */
export interface GatewayResult {
  readonly gateway: Gateway
  readonly listeners: readonly ListenerResult[]
  /** Of the whole Gateway. */
  readonly accepted: Verdict
  readonly resolvedRefs: Verdict
  /** The addresses that were asked for by value. */
  readonly wantedAddresses: readonly string[]
  /** Where it is served now, canonical text, both families. */
  readonly addresses: readonly string[]
  /**
   * Names what an engine serves of the Gateway itself: its generation, addresses, listeners and certificates, not its
   * routes or endpoints. Every node comes to the same text, and says so when its engine has it.
   */
  readonly revision: string
}

/** Whether a class is ours at all. */
export const isOurs = (gatewayClass: GatewayClass | undefined): boolean =>
  gatewayClass?.spec.controllerName === controllerName

/** A class takes no parameters: there are none of our kind. */
export function acceptedClass({ spec }: GatewayClass): Verdict {
  if (spec.parametersRef === undefined) return isTrue('Accepted', 'Accepted')
  const { kind, name } = spec.parametersRef
  return isFalse(
    'Accepted',
    'InvalidParameters',
    `spec.parametersRef: this gateway knows no parameters of ${kind} ${name}`,
  )
}

/** `addresses` are those of the Gateway's Service. */
export function examineGateway(gateway: Gateway, addresses: readonly string[], needs: ListenerNeeds): GatewayResult {
  const listeners = examineListeners(gateway, needs)
  const accepted = acceptedGateway(gateway, listeners)
  const unresolved = listeners.filter(({ verdicts }) =>
    verdicts.some((v) => v.type === 'ResolvedRefs' && v.status === 'False'),
  )
  const wantedAddresses = (gateway.spec.addresses ?? []).flatMap(({ value }) =>
    value === undefined || value === '' ? [] : [canonical(value)],
  )
  const given = addresses.map(canonical)
  const served = wantedAddresses.length === 0 ? given : given.filter((address) => wantedAddresses.includes(address))
  return {
    gateway,
    listeners,
    accepted,
    resolvedRefs:
      unresolved.length === 0
        ? isTrue('ResolvedRefs', 'ResolvedRefs')
        : isFalse('ResolvedRefs', 'ListenersNotResolved', `listeners: ${namesOf(unresolved)}`),
    wantedAddresses,
    addresses: accepted.status === 'True' ? served : [],
    revision: revisionOf(gateway, served, listeners),
  }
}

function canonical(text: string): string {
  const address = parseAddress(text)
  return address === undefined ? text : formatAddress(address)
}

function acceptedGateway({ spec }: Gateway, listeners: readonly ListenerResult[]): Verdict {
  const parameters = spec.infrastructure?.parametersRef
  if (parameters !== undefined) {
    const what = `${parameters.kind} ${parameters.name}`
    return isFalse(
      'Accepted',
      'InvalidParameters',
      `spec.infrastructure.parametersRef: this gateway knows no parameters of ${what}`,
    )
  }
  const strange = (spec.addresses ?? []).find(({ type = 'IPAddress' }) => type !== 'IPAddress')
  if (strange !== undefined)
    return isFalse(
      'Accepted',
      'UnsupportedAddress',
      `spec.addresses: only the type IPAddress can be had, not ${strange.type}`,
    )
  const bad = listeners.filter((listener) => !listener.accepted)
  if (bad.length === 0) return isTrue('Accepted', 'Accepted')
  const message = `listeners: ${namesOf(bad)}`
  return bad.length === listeners.length
    ? isFalse('Accepted', 'ListenersNotValid', message)
    : isTrue('Accepted', 'ListenersNotValid', message)
}

const namesOf = (listeners: readonly ListenerResult[]): string =>
  listeners.map(({ listener }) => listener.name).join(', ')

function revisionOf({ metadata }: Gateway, addresses: readonly string[], listeners: readonly ListenerResult[]): string {
  const facts = [
    metadata.uid,
    metadata.generation ?? 0,
    addresses,
    listeners.map(({ listener, servable, digests }) => [listener.name, servable, digests]),
  ]
  return createHash('sha256').update(JSON.stringify(facts)).digest('base64url').slice(0, 12)
}
