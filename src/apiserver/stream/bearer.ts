/** Browsers put a bearer token among the protocols of a WebSocket, in base64url: they may set no header. */
export const bearerProtocol = 'base64url.bearer.authorization.k8s.io.'

/** What would be the `authorization` header; undefined where no protocol says one. */
export function authorizationOf(protocols: string | undefined): string | undefined {
  const found = (protocols ?? '')
    .split(',')
    .map((protocol) => protocol.trim())
    .find((protocol) => protocol.startsWith(bearerProtocol))
  return found && `Bearer ${Buffer.from(found.slice(bearerProtocol.length), 'base64url').toString('utf8')}`
}
