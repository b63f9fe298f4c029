import { writeSecret } from '#apiserver/pki/files.ts'
import { kubeconfig } from '#apiserver/pki/kubeconfig.ts'
import type { Pki } from '#apiserver/pki/pki.ts'

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
  const authority = pki.authority.certificate
  writeSecret(
    dataDir,
    'admin.kubeconfig',
    kubeconfig({ cluster, server: externalUrl, authority, user: 'kubernetes-admin', credentials: pki.admin }),
  )
  writeSecret(
    dataDir,
    'bootstrap.kubeconfig',
    kubeconfig({
      cluster,
      server: serverUrl,
      authority,
      user: 'bootstrap',
      credentials: { token: pki.bootstrapToken },
    }),
  )
}
