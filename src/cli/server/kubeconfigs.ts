import { writeSecret } from '#apiserver/pki/files.ts'
import type { Pki } from '#apiserver/pki/pki.ts'
import { formatKubeconfig } from '#client/kubeconfig.ts'

export interface KubeconfigsOptions {
  readonly dataDir: string
  readonly cluster: string
  readonly pki: Pki
  /** For the administrator, who is outside. */
  readonly externalUrl: string
  /** For nodes. */
  readonly serverUrl: string
}

/** `admin.kubeconfig` for people, `bootstrap.kubeconfig` for a new node, which may ask for its certificate and nothing else. */
export function writeKubeconfigs({ dataDir, cluster, pki, externalUrl, serverUrl }: KubeconfigsOptions): void {
  const ca = pki.authority.certificate
  const { certificate: cert, key } = pki.admin
  const admin = { cluster, server: externalUrl, ca, user: 'kubernetes-admin', cert, key }
  const node = { cluster, server: serverUrl, ca, user: 'bootstrap', token: pki.bootstrapToken }
  writeSecret(dataDir, 'admin.kubeconfig', formatKubeconfig(admin))
  writeSecret(dataDir, 'bootstrap.kubeconfig', formatKubeconfig(node))
}
