import type { Service as KubeService } from '#api/gen/core-v1.ts'
import type { Service } from '#datapath/datapath.ts'

/** Services that every node answers itself: `namespace/name` and the node's addresses, one of each family, for it. */
export type LocalBackends = ReadonlyMap<string, readonly string[]>

/**
 * The same frontends with the node itself behind them, on the frontend's own port. A Service with a selector is left as
 * it is: its owner runs pods for it. Pure.
 */
export function withLocalBackends(
  { spec }: KubeService,
  rows: readonly Service[],
  addresses: readonly string[] | undefined,
): readonly Service[] {
  if (addresses === undefined || Object.keys(spec.selector ?? {}).length > 0) return rows
  return rows.map((row) => {
    const { address, port, protocol } = row.frontend
    const own = addresses.find((a) => a.includes(':') === address.includes(':'))
    return { ...row, backends: own === undefined ? [] : [{ address: own, port, protocol }] }
  })
}
