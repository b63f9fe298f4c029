/** For options that may be repeated. */
export const collect = (value: string, before: readonly string[]): string[] => [...before, value]

export function parseTunnel(text: string): 'native' | 'vxlan' {
  if (text !== 'native' && text !== 'vxlan') throw new RangeError(`--tunnel ${text}: use native or vxlan`)
  return text
}
