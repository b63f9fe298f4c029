import type { Secret } from '#api/gen/core-v1.ts'
import { certificateOf } from './certificates.ts'
import type { Certificate } from './engine.ts'
import type { Grants } from './grants.ts'
import { covers } from './hostnames.ts'
import { type Gateway, gatewayGroup, type Listener, type ObjectRef, type RouteGroupKind } from './objects.ts'
import { isFalse, isTrue, type Verdict } from './verdict.ts'

/** What became of a listener: what it may serve, and what its status says but for the engine's part. */
export interface ListenerResult {
  readonly listener: Listener
  /** Kinds of routes it takes, of those that this gateway has. */
  readonly kinds: readonly RouteGroupKind[]
  /** Whether it may have routes at all: protocol known, not in conflict with another, nothing asked that cannot be done. */
  readonly accepted: boolean
  /** Whether the engine can serve it: accepted, and with a certificate where it needs one. */
  readonly servable: boolean
  /** The first is for who names none that we have. Empty without TLS. */
  readonly certificates: readonly Certificate[]
  /** Of the certificates, in their order. */
  readonly digests: readonly string[]
  readonly verdicts: readonly Verdict[]
}

/** Where Secrets come from; undefined where there is none, or it may not be read. */
export type SecretOf = (namespace: string, name: string) => Secret | undefined

export interface ListenerNeeds {
  readonly grants: Grants
  readonly secret: SecretOf
}

const routeKinds = ['HTTPRoute', 'GRPCRoute']
const ours: readonly RouteGroupKind[] = routeKinds.map((kind) => ({ group: gatewayGroup, kind }))

/** Every listener of a Gateway looked at by itself and beside the others. */
export function examineListeners(gateway: Gateway, needs: ListenerNeeds): ListenerResult[] {
  const listeners = gateway.spec.listeners ?? []
  const conflicts = conflictsAmong(listeners)
  return listeners.map((listener) => examine(gateway, listener, conflicts.get(listener.name), needs))
}

function examine(
  gateway: Gateway,
  listener: Listener,
  conflict: Verdict | undefined,
  needs: ListenerNeeds,
): ListenerResult {
  const supported = isHttp(listener)
  const refused = supported ? refusedOf(gateway, listener) : unsupportedProtocol(listener)
  const { kinds, verdict: kindVerdict } = kindsOf(listener, supported)
  const { certificates, digests, verdict: tlsVerdict } = certificatesOf(gateway, listener, needs)
  const accepted = refused === undefined && conflict === undefined
  const missing = listener.protocol === 'HTTPS' && certificates.length === 0
  const overlap = overlapOf(gateway, listener)
  return {
    listener,
    kinds,
    accepted,
    servable: accepted && !missing,
    certificates,
    digests,
    verdicts: [
      refused ??
        (conflict === undefined
          ? isTrue('Accepted', 'Accepted')
          : isFalse('Accepted', conflict.reason, conflict.message)),
      conflict ?? isFalse('Conflicted', 'NoConflicts', ''),
      tlsVerdict ?? kindVerdict ?? isTrue('ResolvedRefs', 'ResolvedRefs'),
      ...(overlap === undefined ? [] : [overlap]),
    ],
  }
}

const isHttp = ({ protocol }: Listener): boolean => protocol === 'HTTP' || protocol === 'HTTPS'

const unsupportedProtocol = ({ protocol }: Listener): Verdict =>
  isFalse('Accepted', 'UnsupportedProtocol', `no listener of this gateway can have the protocol ${protocol}`)

/** What would be less than was asked for is refused: nobody may believe that clients are checked when they are not. */
function refusedOf({ spec }: Gateway, { protocol, port, tls }: Listener): Verdict | undefined {
  if (protocol !== 'HTTPS') return undefined
  if (tls?.mode === 'Passthrough')
    return isFalse('Accepted', 'UnsupportedValue', 'tls.mode Passthrough is not for the protocol HTTPS')
  const frontend = spec.tls?.frontend
  const ofPort = frontend?.perPort?.find((entry) => entry.port === port)
  const validation = ofPort === undefined ? frontend?.default?.validation : ofPort.tls.validation
  if (validation === undefined) return undefined
  return isFalse('Accepted', 'UnsupportedValue', 'client certificates (spec.tls.frontend) cannot be validated here')
}

function kindsOf(
  { allowedRoutes }: Listener,
  supported: boolean,
): { readonly kinds: readonly RouteGroupKind[]; readonly verdict: Verdict | undefined } {
  if (!supported) return { kinds: [], verdict: undefined }
  const asked = allowedRoutes?.kinds ?? []
  if (asked.length === 0) return { kinds: ours, verdict: undefined }
  const isOurs = ({ group = gatewayGroup, kind }: RouteGroupKind) => group === gatewayGroup && routeKinds.includes(kind)
  const bad = asked.filter((entry) => !isOurs(entry)).map(({ group = gatewayGroup, kind }) => `${group}/${kind}`)
  return {
    kinds: asked.filter(isOurs).map(({ kind }) => ({ group: gatewayGroup, kind })),
    verdict:
      bad.length === 0
        ? undefined
        : isFalse('ResolvedRefs', 'InvalidRouteKinds', `allowedRoutes.kinds: not known here: ${bad.join(', ')}`),
  }
}

function certificatesOf(
  gateway: Gateway,
  { protocol, tls }: Listener,
  { grants, secret }: ListenerNeeds,
): Pick<ListenerResult, 'certificates' | 'digests'> & { readonly verdict: Verdict | undefined } {
  if (protocol !== 'HTTPS') return { certificates: [], digests: [], verdict: undefined }
  const { namespace } = gateway.metadata
  const certificates: Certificate[] = []
  const digests: string[] = []
  let verdict: Verdict | undefined
  const bad = (reason: string, message: string): void => {
    verdict ??= isFalse('ResolvedRefs', reason, message)
  }
  const refs = tls?.certificateRefs ?? []
  if (refs.length === 0) bad('InvalidCertificateRef', 'tls.certificateRefs: a listener of HTTPS needs a certificate')
  for (const ref of refs) {
    const { group = '', kind = 'Secret', name } = ref
    const to = { group, kind, name, namespace: namespaceOf(ref, namespace) }
    if (group !== '' || kind !== 'Secret') {
      bad('InvalidCertificateRef', `tls.certificateRefs: ${kind} of group ${JSON.stringify(group)} is not a Secret`)
    } else if (!grants.permits({ group: gatewayGroup, kind: 'Gateway', namespace }, to)) {
      bad('RefNotPermitted', `tls.certificateRefs: no ReferenceGrant permits Secret ${to.namespace}/${name}`)
    } else {
      const found = secret(to.namespace, name)
      const result = found && certificateOf(found)
      if (result === undefined)
        bad('InvalidCertificateRef', `tls.certificateRefs: there is no Secret ${to.namespace}/${name}`)
      else if (result.ok) {
        certificates.push(result.certificate)
        digests.push(result.digest)
      } else bad('InvalidCertificateRef', `tls.certificateRefs: ${result.message}`)
    }
  }
  return { certificates, digests, verdict }
}

export const namespaceOf = ({ namespace }: ObjectRef, own: string): string =>
  namespace === undefined || namespace === '' ? own : namespace

/**
 * Listeners that nothing tells apart: the same port with HTTP and HTTPS, or with the same hostname. None of them is
 * chosen: all of them are in conflict.
 */
function conflictsAmong(listeners: readonly Listener[]): Map<string, Verdict> {
  const found = new Map<string, Verdict>()
  const valid = listeners.filter(isHttp)
  for (const one of valid) {
    for (const other of valid) {
      if (one === other || one.port !== other.port) continue
      if (one.protocol !== other.protocol) {
        const message = `port ${one.port} is ${one.protocol} here and ${other.protocol} in listener ${other.name}`
        found.set(one.name, isTrue('Conflicted', 'ProtocolConflict', message))
      } else if ((one.hostname ?? '').toLowerCase() === (other.hostname ?? '').toLowerCase()) {
        const message = `listener ${other.name} has the same port and hostname`
        if (!found.has(one.name)) found.set(one.name, isTrue('Conflicted', 'HostnameConflict', message))
      }
    }
  }
  return found
}

/** HTTPS listeners of one port whose names overlap: a client may reuse a connection for a name of the other one. */
function overlapOf({ spec }: Gateway, listener: Listener): Verdict | undefined {
  if (listener.protocol !== 'HTTPS') return undefined
  const own = (listener.hostname ?? '').toLowerCase()
  const others = (spec.listeners ?? []).filter(
    (other) =>
      other.name !== listener.name &&
      other.protocol === 'HTTPS' &&
      other.port === listener.port &&
      (covers(own, (other.hostname ?? '').toLowerCase()) || covers((other.hostname ?? '').toLowerCase(), own)),
  )
  if (others.length === 0) return undefined
  const names = others.map(({ name }) => name).join(', ')
  return isTrue('OverlappingTLSConfig', 'OverlappingHostnames', `its hostname overlaps with that of ${names}`)
}
