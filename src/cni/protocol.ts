/**
 * What native/cni.c and the agent say to each other: one call is one connection on the agent's unix socket.
 * To the agent: `NAME=value` NUL for each CNI_ variable, NUL, then the network configuration, then half-close.
 * Back: exit code, newline, what the plug-in's standard output gets.
 * The words themselves are the CNI specification's, versions 0.3.0 to 1.1.0.
 */
export type Command = 'ADD' | 'DEL' | 'CHECK' | 'STATUS' | 'GC'
const commands: readonly string[] = ['ADD', 'DEL', 'CHECK', 'STATUS', 'GC'] satisfies Command[]

/** A configuration is a few hundred bytes; containers' environments are not in it. */
export const requestBytesMax = 1 << 20

export interface Request {
  readonly command: Command
  /** The sandbox; empty for STATUS and GC. */
  readonly containerId: string
  /** Path of the sandbox's network namespace; empty where the runtime no longer has it (DEL). */
  readonly netns: string
  /** Name of the device inside. */
  readonly ifname: string
  /** `K8S_POD_NAMESPACE` and its like. */
  readonly args: ReadonlyMap<string, string>
  readonly cniVersion: string
  /** Sandboxes that the runtime still has (GC): id and device. */
  readonly validAttachments: readonly { readonly containerId: string; readonly ifname: string }[]
}

/** Error codes of the specification, section 5. */
const errorCodes = {
  incompatibleVersion: 1,
  invalidEnvironment: 4,
  io: 5,
  decoding: 6,
  invalidConfig: 7,
  tryAgainLater: 11,
  notAvailable: 50,
  /** 100 and above are the plug-in's own. */
  internal: 100,
} as const

/** A failure that the container runtime is told of. */
export class CniError extends Error {
  readonly code: number

  constructor(code: keyof typeof errorCodes, message: string, options?: ErrorOptions) {
    super(message, options)
    this.name = 'CniError'
    this.code = errorCodes[code]
  }
}

/** Throws `CniError` for what the plug-in cannot have sent. */
export function parseRequest(bytes: Buffer): Request {
  const end = bytes.indexOf('\0\0')
  const head = end < 0 ? -1 : end + 2
  if (head < 0) throw new CniError('decoding', 'the call has no end of its environment')
  const environment = new Map(bytes.toString('utf8', 0, end).split('\0').map(splitPair))
  const command = environment.get('CNI_COMMAND') ?? ''
  if (!isCommand(command)) throw new CniError('invalidEnvironment', `CNI_COMMAND is ${JSON.stringify(command)}`)
  const config = parseConfig(bytes.toString('utf8', head))
  const request: Request = {
    command,
    containerId: environment.get('CNI_CONTAINERID') ?? '',
    netns: environment.get('CNI_NETNS') ?? '',
    ifname: environment.get('CNI_IFNAME') ?? '',
    args: new Map((environment.get('CNI_ARGS') ?? '').split(';').filter(Boolean).map(splitPair)),
    cniVersion: typeof config.cniVersion === 'string' ? config.cniVersion : '0.3.1',
    validAttachments: parseAttachments(config['cni.dev/valid-attachments']),
  }
  const ofSandbox = command === 'ADD' || command === 'DEL' || command === 'CHECK'
  if (ofSandbox && !/^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/.test(request.containerId))
    throw new CniError('invalidEnvironment', 'CNI_CONTAINERID is missing or malformed')
  if (ofSandbox && !/^[^\s/:]{1,15}$/.test(request.ifname))
    throw new CniError('invalidEnvironment', 'CNI_IFNAME is missing or malformed')
  if ((command === 'ADD' || command === 'CHECK') && request.netns === '')
    throw new CniError('invalidEnvironment', 'CNI_NETNS is missing')
  return request
}

const isCommand = (text: string): text is Command => commands.includes(text)

function splitPair(text: string): [string, string] {
  const at = text.indexOf('=')
  return at < 0 ? [text, ''] : [text.slice(0, at), text.slice(at + 1)]
}

function parseConfig(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value === 'object' && value !== null) return value as Record<string, unknown>
  } catch (cause) {
    throw new CniError('decoding', 'the network configuration is not JSON', { cause })
  }
  throw new CniError('decoding', 'the network configuration is not an object')
}

function parseAttachments(value: unknown): Request['validAttachments'] {
  if (!Array.isArray(value)) return []
  return value.flatMap((item: { containerID?: unknown; ifname?: unknown } | null) =>
    typeof item?.containerID === 'string' && typeof item.ifname === 'string'
      ? [{ containerId: item.containerID, ifname: item.ifname }]
      : [],
  )
}

/** What ADD did, in the configuration's version of the format. */
export interface AddResult {
  readonly hostDevice: string
  readonly hostMac: string
  readonly podDevice: string
  readonly podMac: string
  readonly netns: string
  readonly mtu: number
  /** Without prefix length. */
  readonly addresses: readonly string[]
  readonly gateways: { readonly v4: string; readonly v6: string }
}

export function formatResult(result: AddResult, cniVersion: string): string {
  // Before 1.0 each address names its family.
  const old = /^0\./.test(cniVersion)
  const v6 = (address: string): boolean => address.includes(':')
  return JSON.stringify({
    cniVersion,
    interfaces: [
      { name: result.hostDevice, mac: result.hostMac },
      { name: result.podDevice, mac: result.podMac, sandbox: result.netns },
    ],
    ips: result.addresses.map((address) => ({
      ...(old ? { version: v6(address) ? '6' : '4' } : {}),
      address: `${address}/${v6(address) ? 128 : 32}`,
      gateway: v6(address) ? result.gateways.v6 : result.gateways.v4,
      interface: 1,
    })),
    routes: result.addresses.map((address) => ({
      dst: v6(address) ? '::/0' : '0.0.0.0/0',
      gw: v6(address) ? result.gateways.v6 : result.gateways.v4,
    })),
    dns: {},
  })
}

/** The answer to a call that went well; DEL, CHECK and the like say nothing. */
export const formatAnswer = (output = ''): string => `0\n${output}`

/** The answer to one that failed: the runtime logs message and details. */
export function formatFailure(error: unknown, cniVersion: string): string {
  const code = error instanceof CniError ? error.code : errorCodes.internal
  const message = error instanceof Error ? error.message : String(error)
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause.message : ''
  return `1\n${JSON.stringify({ cniVersion, code, msg: message, details: cause })}`
}

/** The network configuration that makes a runtime call us; written last, when everything else is ready. */
export function formatConfigList(socketPath: string): string {
  const plugin = { type: 'weft-cni', weftSocket: socketPath, capabilities: {} }
  return `${JSON.stringify({ cniVersion: '1.0.0', name: 'weft', plugins: [plugin] }, null, 2)}\n`
}
