/** What Services speak. */
export type Protocol = 'TCP' | 'UDP' | 'SCTP'

/** Where a Service is asked for. */
export interface Frontend {
  /** `0.0.0.0` or `::`: any address of a node. */
  readonly address: string
  readonly port: number
  readonly protocol: Protocol
}

/** Where it is answered. */
export type Backend = Frontend

/** Same frontend, same text. */
export const frontendName = ({ address, port, protocol }: Frontend): string =>
  `${address.includes(':') ? `[${address}]` : address}:${port}/${protocol}`
