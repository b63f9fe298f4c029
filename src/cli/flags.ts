/** For options that may be repeated. */
export const collect = (value: string, before: readonly string[]): string[] => [...before, value]

export function parseTunnel(text: string): 'native' | 'vxlan' {
  if (text !== 'native' && text !== 'vxlan') throw new RangeError(`--tunnel ${text}: use native or vxlan`)
  return text
}

/** Throws a RangeError that names the flag and what is possible. */
export function parsePort(text: string, flag: string): number {
  const port = Number(text)
  if (!Number.isInteger(port) || port < 1 || port > 65_535)
    throw new RangeError(`${flag} ${text}: use a whole number from 1 to 65535`)
  return port
}

/** Whether the server puts in the Gateway API's definitions. */
export function bringsGatewayCrds(text: string): boolean {
  if (text !== 'ours' && text !== 'none') throw new RangeError(`--gateway-crds ${text}: use ours or none`)
  return text === 'ours'
}
