/**
 * How nodes say what their engines have in force: one annotation on their own Node, which they may write anyway. It
 * changes with Gateways, listeners, addresses and certificates, not with routes or endpoints, so it is written seldom;
 * the controller reads Nodes anyway.
 */
export const acknowledgement = 'gateway.weft.dev/programmed'

/** More than this of a node's words on what it could not do is not kept: an object has its limits. */
const faultsMax = 64
const faultLength = 300

export interface Acknowledgement {
  /** Gateway's uid -> revision that is in force (`GatewayResult.revision`). */
  readonly gateways: ReadonlyMap<string, string>
  /** Listener id or rule id -> what could not be done with it, in words for a condition. */
  readonly faults: ReadonlyMap<string, string>
}

export function formatAcknowledgement({ gateways, faults }: Acknowledgement): string {
  const some = [...faults].slice(0, faultsMax).map(([id, words]) => [id, words.slice(0, faultLength)])
  return JSON.stringify({
    gateways: Object.fromEntries([...gateways].toSorted(([a], [b]) => (a < b ? -1 : 1))),
    ...(some.length === 0 ? {} : { faults: Object.fromEntries(some) }),
  })
}

/** Undefined where a node has said nothing that can be read. */
export function parseAcknowledgement(text: string | undefined): Acknowledgement | undefined {
  if (text === undefined) return undefined
  try {
    const { gateways = {}, faults = {} } = JSON.parse(text) as Record<'gateways' | 'faults', Record<string, unknown>>
    return { gateways: strings(gateways), faults: strings(faults) }
  } catch {
    return undefined
  }
}

const strings = (values: Record<string, unknown>): Map<string, string> =>
  new Map(Object.entries(values).flatMap(([key, value]) => (typeof value === 'string' ? [[key, value]] : [])))
