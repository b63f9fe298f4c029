import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createHttpClient, type HttpClient } from '#client/http.ts'

const dir = '/var/run/secrets/kubernetes.io/serviceaccount'

/** As the service account of the pod that this process is in. The token is read anew: the kubelet renews the file. */
export function serviceAccountClient(server: string, userAgent: string): HttpClient {
  const read = (name: string): string => {
    try {
      return readFileSync(join(dir, name), 'utf8').trim()
    } catch (cause) {
      throw new Error(`Cannot read ${dir}/${name}: this runs in a pod with a service account`, { cause })
    }
  }
  return createHttpClient({ server, ca: read('ca.crt'), token: () => read('token'), userAgent })
}
