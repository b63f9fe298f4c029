import type { CertificateAndKey } from './certificate.ts'

export interface KubeconfigOptions {
  readonly cluster: string
  /** `https://127.0.0.1:6443` */
  readonly server: string
  /** PEM. */
  readonly authority: string
  readonly user: string
  readonly credentials: CertificateAndKey | { readonly token: string }
}

const base64 = (text: string): string => Buffer.from(text).toString('base64')
/** Every YAML reader takes a JSON string as a scalar. */
const scalar = (text: string): string => JSON.stringify(text)

/** The text of a kubeconfig with one cluster, one user and one context, everything inline. */
export function kubeconfig({ cluster, server, authority, user, credentials }: KubeconfigOptions): string {
  const shown =
    'token' in credentials
      ? [`    token: ${scalar(credentials.token)}`]
      : [
          `    client-certificate-data: ${base64(credentials.certificate)}`,
          `    client-key-data: ${base64(credentials.key)}`,
        ]
  return `${[
    'apiVersion: v1',
    'kind: Config',
    'clusters:',
    `- name: ${scalar(cluster)}`,
    '  cluster:',
    `    server: ${scalar(server)}`,
    `    certificate-authority-data: ${base64(authority)}`,
    'users:',
    `- name: ${scalar(user)}`,
    '  user:',
    ...shown,
    'contexts:',
    `- name: ${scalar(`${user}@${cluster}`)}`,
    '  context:',
    `    cluster: ${scalar(cluster)}`,
    `    user: ${scalar(user)}`,
    `current-context: ${scalar(`${user}@${cluster}`)}`,
  ].join('\n')}\n`
}
