import { dns1035Label, dns1123Label, dns1123Subdomain, labelValue, qualifiedName } from '#api/meta/names.ts'
import { isFormat } from '#api/schema/custom/formats.ts'
import { regexLength, scale, traversal } from '../cost.ts'
import { type Overload, overload } from '../functions.ts'
import { sizeOfNode } from '../operators.ts'
import { type Opaque, Optional, sizeOf } from '../values.ts'

type Check = (text: string) => readonly string[]

class Format implements Opaque {
  readonly typeName = 'kubernetes.NamedFormat'
  readonly name: string
  readonly check: Check
  readonly regexSize: number
  constructor(name: string, check: Check, regexSize: number) {
    this.name = name
    this.check = check
    this.regexSize = regexSize
  }
  equals(other: Opaque): boolean {
    return other instanceof Format && other.name === this.name
  }
}

/** A prefix of a name may end in a dash: what is generated comes after it. */
const asPrefix =
  (check: Check): Check =>
  (text) =>
    check(text.endsWith('-') ? `${text.slice(0, -1)}a` : text)
const byFormat =
  (format: string, words: string): Check =>
  (text) =>
    isFormat(format, text) ? [] : [words]

/** By name, with the length of the expression behind each, which upstream's cost counts. */
const formats = new Map(
  (
    [
      ['dns1123Label', dns1123Label, 30],
      ['dns1123Subdomain', dns1123Subdomain, 60],
      ['dns1035Label', dns1035Label, 30],
      ['qualifiedName', qualifiedName, 60],
      ['dns1123LabelPrefix', asPrefix(dns1123Label), 30],
      ['dns1123SubdomainPrefix', asPrefix(dns1123Subdomain), 60],
      ['dns1035LabelPrefix', asPrefix(dns1035Label), 30],
      ['labelValue', labelValue, 40],
      ['uri', byFormat('uri', 'invalid URI for request'), 128],
      ['uuid', byFormat('uuid', 'does not match the UUID format'), 66],
      ['byte', byFormat('byte', 'invalid base64'), 84],
      ['date', byFormat('date', 'invalid date'), 80],
      ['datetime', byFormat('date-time', 'invalid datetime'), 80],
    ] as const
  ).map(([name, check, size]) => [name as string, new Format(name, check, size)]),
)

const regexSizeMax = 128

/** Kubernetes' named formats: `format.dns1123Label().validate(text)` gives what is wrong, or none. */
export const formatLibrary: readonly Overload[] = [
  ...[...formats].map(([name, format]) => overload(`format.${name}(): kubernetes.NamedFormat`, () => format)),
  overload('format.named(string): optional<kubernetes.NamedFormat>', (name: string) => {
    const format = formats.get(name)
    return format === undefined ? Optional.none : Optional.of(format)
  }),
  overload(
    'kubernetes.NamedFormat.validate(string): optional<list<string>>',
    (format: Format, text: string) => {
      const words = format.check(text)
      return words.length === 0 ? Optional.none : Optional.of(words)
    },
    {
      estimate: ([, text]) => ({ cost: scale(scale(sizeOfNode(text), traversal), regexSizeMax * regexLength) }),
      spend: ([format, text]) =>
        Math.ceil((1 + sizeOf(text)) * traversal) *
        Math.ceil((format instanceof Format ? format.regexSize : regexSizeMax) * regexLength),
    },
  ),
]
