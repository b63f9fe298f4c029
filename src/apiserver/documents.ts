import type { KindDefinition } from '#api/kind.ts'
import type { ApiRequest, ApiResponse } from '#api/wire.ts'
import { buildDiscovery, type Discovery } from './discovery/discovery.ts'
import { type Check, health } from './health.ts'
import { buildOpenApi, type OpenApi } from './openapi/openapi.ts'
import { bytesResponse, jsonResponse } from './respond.ts'
import { gitVersion, versionInfo } from './version.ts'

export interface DocumentParts {
  readonly checks: readonly Check[]
  /** The text of `/metrics`. */
  readonly metrics: () => Promise<string>
  /** Where clients reach the server: `172.30.0.1:6443`. */
  readonly address: string
  /** JSON at paths of its own: the issuer's keys. */
  readonly fixed: ReadonlyMap<string, unknown>
}

/** Everything that is not a resource. Discovery and OpenAPI are made anew when the served kinds change. */
export class Documents {
  readonly #parts: DocumentParts
  #discovery: Discovery = () => undefined
  #openApi: OpenApi = () => undefined

  constructor(parts: DocumentParts) {
    this.#parts = parts
  }

  /** The kinds that are served from now on. */
  describe(kinds: readonly KindDefinition[]): void {
    this.#discovery = buildDiscovery(kinds, this.#parts.address)
    this.#openApi = buildOpenApi(kinds, gitVersion)
  }

  /** Undefined: there is no such path. */
  async serve({ method, path, headers }: ApiRequest, query: URLSearchParams): Promise<ApiResponse | undefined> {
    if (method !== 'GET' && method !== 'HEAD') return undefined
    const { checks, metrics, fixed } = this.#parts
    const accept = headers.accept
    const ifNoneMatch = headers['if-none-match']
    const [, root] = path.split('/')
    switch (root) {
      case '':
        return jsonResponse(200, { paths: this.#paths() })
      case 'healthz':
      case 'livez':
      case 'readyz':
        return health(checks, path, query)
      case 'version':
        return jsonResponse(200, versionInfo)
      case 'metrics':
        if (path !== '/metrics') return undefined
        return bytesResponse(200, Buffer.from(await metrics()), 'text/plain; version=0.0.4; charset=utf-8')
      case 'openapi':
        // The issuer's keys lie below /openapi/v1.
        if (fixed.has(path)) return jsonResponse(200, fixed.get(path))
        return this.#openApi({ path, query, accept, ifNoneMatch })
      case 'api':
      case 'apis':
        return this.#discovery({ path, accept, ifNoneMatch })
      default:
        return fixed.has(path) ? jsonResponse(200, fixed.get(path)) : undefined
    }
  }

  #paths(): string[] {
    const { checks, fixed } = this.#parts
    const health = ['/healthz', '/livez', '/readyz'].flatMap((path) => [
      path,
      ...checks.map(({ name }) => `${path}/${name}`),
    ])
    return [
      ...new Set([
        '/api',
        '/api/v1',
        '/apis',
        ...health,
        ...fixed.keys(),
        '/metrics',
        '/openapi/v2',
        '/openapi/v3',
        '/version',
      ]),
    ].sort()
  }
}
