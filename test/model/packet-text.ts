import { type ErrorName, type Extension, errors, flag, type Layer4, type Lie, lies, type Packet } from './packet.ts'

/**
 * One packet on one line:
 *
 *     10.244.1.2 > 10.244.1.3 tcp 40000 > 80 syn seq 1000
 *     fd00::1 > fd00::2 hops 3 ext hop-by-hop udp 53 > 53 data 20
 *     10.244.1.2 > 10.0.0.1 fragment 7 at 0 more udp 1 > 2
 *     10.0.0.1 > 10.244.1.2 unreachable code 3 about ( 10.244.1.2 > 10.0.0.1 udp 1 > 2 ) quoting 28
 *
 * What is not said has its usual value (hops 64, window 1024, no data). parsePacket and formatPacket are inverse.
 */

const usual = { hops: 64, window: 1024 } as const
const flagNames = ['fin', 'syn', 'rst', 'push', 'ack'] as const
const extensions: readonly string[] = ['hop-by-hop', 'destination', 'routing', 'authentication'] satisfies Extension[]

export function formatPacket(packet: Packet): string {
  const { source, destination, hops, layer4, options, fragment, cut, short, lie } = packet
  const words: (string | number)[] = [source, '>', destination]
  if (hops !== usual.hops) words.push('hops', hops)
  if (options !== undefined) words.push('options', options)
  for (const extension of packet.extensions ?? []) words.push('ext', extension)
  if (fragment !== undefined)
    words.push('fragment', fragment.id, 'at', fragment.offset, ...(fragment.more ? ['more'] : []))
  if (lie !== undefined) words.push('lie', lie)
  words.push(...layer4Words(layer4))
  if (short !== undefined) words.push('short', short)
  if (cut !== undefined) words.push('cut', cut)
  return words.join(' ')
}

function layer4Words(layer4: Layer4): (string | number)[] {
  switch (layer4.kind) {
    case 'tcp': {
      const { sourcePort, destinationPort, flags, sequence, acknowledgement, window, payload } = layer4
      return [
        'tcp',
        sourcePort,
        '>',
        destinationPort,
        ...flagNames.filter((name) => (flags & flag[name]) !== 0),
        ...(sequence === 0 ? [] : ['seq', sequence]),
        // The flag is a word by itself: the number has another.
        ...(acknowledgement === 0 ? [] : ['acks', acknowledgement]),
        ...(window === usual.window ? [] : ['window', window]),
        ...data(payload),
      ]
    }
    case 'udp':
      return [
        'udp',
        layer4.sourcePort,
        '>',
        layer4.destinationPort,
        ...(layer4.unsummed === true ? ['unsummed'] : []),
        ...data(layer4.payload),
      ]
    case 'sctp':
      return [
        'sctp',
        layer4.sourcePort,
        '>',
        layer4.destinationPort,
        'chunk',
        layer4.chunk,
        'tag',
        layer4.tag,
        'initiate',
        layer4.initiate,
      ]
    case 'echo':
      return [layer4.reply ? 'pong' : 'ping', layer4.identifier, 'number', layer4.sequence, ...data(layer4.payload)]
    case 'error':
      return [
        layer4.error,
        ...(layer4.code === 0 ? [] : ['code', layer4.code]),
        ...(layer4.mtu === 0 ? [] : ['mtu', layer4.mtu]),
        'about',
        '(',
        formatPacket(layer4.inner),
        ')',
        'quoting',
        layer4.quoted,
      ]
    case 'message':
      return ['icmp', layer4.type, layer4.code, ...(layer4.identifier === undefined ? [] : ['id', layer4.identifier])]
    case 'opaque':
      return ['protocol', layer4.protocol, ...data(layer4.payload)]
    default:
      return layer4 satisfies never
  }
}

const data = (bytes: number): (string | number)[] => (bytes === 0 ? [] : ['data', bytes])

/** Words of a line, taken one after the other. */
class Words {
  readonly #words: readonly string[]
  #at = 0

  constructor(text: string) {
    this.#words = text.trim().split(/\s+/)
  }

  get done(): boolean {
    return this.#at >= this.#words.length
  }

  peek(): string | undefined {
    return this.#words[this.#at]
  }

  take(expected?: string): string {
    const word = this.#words[this.#at++]
    if (word === undefined || (expected !== undefined && word !== expected))
      throw new SyntaxError(
        `Cannot read ${JSON.stringify(this.#words.join(' '))}: ${expected ?? 'a word'} is missing at word ${this.#at}`,
      )
    return word
  }

  number(): number {
    const word = this.take()
    const value = Number(word)
    if (!Number.isInteger(value) || value < 0) throw new SyntaxError(`${JSON.stringify(word)} is not a number`)
    return value
  }

  /** Takes the word if it is next. */
  next(word: string): boolean {
    if (this.peek() !== word) return false
    this.#at++
    return true
  }

  /** The value behind the word if it is next, otherwise `otherwise`. */
  option(word: string, otherwise = 0): number {
    return this.next(word) ? this.number() : otherwise
  }
}

/** Throws a SyntaxError that names the word. */
export function parsePacket(text: string): Packet {
  const words = new Words(text)
  const packet = readPacket(words)
  if (!words.done) throw new SyntaxError(`Cannot read packet ${JSON.stringify(text)}: what is ${words.peek()}?`)
  return packet
}

function readPacket(words: Words): Packet {
  const source = words.take()
  words.take('>')
  const destination = words.take()
  const hops = words.option('hops', usual.hops)
  const options = words.next('options') ? words.number() : undefined
  const found: Extension[] = []
  while (words.next('ext')) {
    const name = words.take()
    if (!extensions.includes(name)) throw new SyntaxError(`there is no extension header ${name}`)
    found.push(name as Extension)
  }
  let fragment: Packet['fragment']
  if (words.next('fragment')) {
    const id = words.number()
    words.take('at')
    const offset = words.number()
    fragment = { id, offset, more: words.next('more') }
  }
  let lie: Lie | undefined
  if (words.next('lie')) {
    const name = words.take()
    lie = lies.find((l) => l === name)
    if (lie === undefined) throw new SyntaxError(`there is no lie ${name}`)
  }
  const layer4 = readLayer4(words)
  const short = words.next('short') ? words.number() : undefined
  const cut = words.next('cut') ? words.number() : undefined
  return {
    source,
    destination,
    hops,
    layer4,
    ...(options === undefined ? {} : { options }),
    ...(found.length === 0 ? {} : { extensions: found }),
    ...(fragment === undefined ? {} : { fragment }),
    ...(short === undefined ? {} : { short }),
    ...(cut === undefined ? {} : { cut }),
    ...(lie === undefined ? {} : { lie }),
  }
}

function readLayer4(words: Words): Layer4 {
  const kind = words.take()
  if ((errors as readonly string[]).includes(kind)) return readError(words, kind as ErrorName)
  switch (kind) {
    case 'tcp': {
      const [sourcePort, destinationPort] = readPorts(words)
      let flags = 0
      for (const name of flagNames) if (words.next(name)) flags |= flag[name]
      const sequence = words.option('seq')
      const acknowledgement = words.option('acks')
      const window = words.option('window', usual.window)
      return {
        kind,
        sourcePort,
        destinationPort,
        flags,
        sequence,
        acknowledgement,
        window,
        payload: words.option('data'),
      }
    }
    case 'udp': {
      const [sourcePort, destinationPort] = readPorts(words)
      const unsummed = words.next('unsummed')
      const payload = words.option('data')
      return { kind, sourcePort, destinationPort, payload, ...(unsummed ? { unsummed } : {}) }
    }
    case 'sctp': {
      const [sourcePort, destinationPort] = readPorts(words)
      const chunk = words.option('chunk')
      const tag = words.option('tag')
      return { kind, sourcePort, destinationPort, chunk, tag, initiate: words.option('initiate') }
    }
    case 'ping':
    case 'pong': {
      const identifier = words.number()
      const sequence = words.option('number')
      return { kind: 'echo', reply: kind === 'pong', identifier, sequence, payload: words.option('data') }
    }
    case 'icmp': {
      const type = words.number()
      const code = words.number()
      return { kind: 'message', type, code, ...(words.next('id') ? { identifier: words.number() } : {}) }
    }
    case 'protocol': {
      const protocol = words.number()
      return { kind: 'opaque', protocol, payload: words.option('data') }
    }
    default:
      throw new SyntaxError(`there is no kind of packet ${kind}`)
  }
}

function readPorts(words: Words): [number, number] {
  const sourcePort = words.number()
  words.take('>')
  return [sourcePort, words.number()]
}

function readError(words: Words, error: ErrorName): Layer4 {
  const code = words.option('code')
  const mtu = words.option('mtu')
  words.take('about')
  words.take('(')
  const inner = readPacket(words)
  words.take(')')
  words.take('quoting')
  return { kind: 'error', error, code, mtu, inner, quoted: words.number() }
}
