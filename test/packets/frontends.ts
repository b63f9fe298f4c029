import type { Service } from '#datapath/datapath.ts'

/** What the servers of these tests listen on. */
export const targetPort = 8080

/** One Service for both protocols of an address; `more` is of each. */
export const both = (
  address: string,
  port: number,
  backends: readonly string[],
  more: Partial<Service> = {},
): Service[] =>
  (['TCP', 'UDP'] as const).map((protocol) => ({
    frontend: { address, port, protocol },
    backends: backends.map((b) => ({ address: b, port: targetPort, protocol })),
    ...more,
  }))
