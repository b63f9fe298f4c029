import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { ClusterLayout } from './layout.ts'

/** The port is kept, so that kubeconfigs stay good. */
export const portFile = (layout: ClusterLayout): string => join(layout.stateDir, 'api-port')

/** The API server's URL from the machine. */
export function externalUrl(layout: ClusterLayout): string {
  const file = portFile(layout)
  return existsSync(file) ? `https://127.0.0.1:${readFileSync(file, 'utf8').trim()}` : '(not yet)'
}
