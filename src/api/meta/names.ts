/**
 * The shapes a name may have, with upstream's words for what is wrong (facts: apimachinery util/validation and
 * api/validate/content). Every function returns the list of complaints; an empty list means the value is fine.
 */

const nothing: readonly string[] = []

const label = '[a-z0-9]([-a-z0-9]*[a-z0-9])?'
const labelWords =
  "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character"
const subdomain = `${label}(\\.${label})*`
const subdomainWords =
  "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character"
const dns1035 = '[a-z]([-a-z0-9]*[a-z0-9])?'
const dns1035Words =
  "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character"
const qualified = '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]'
const qualifiedWords =
  "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
const labelValueWords =
  "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"

const underscoreLabel = '_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?'
const underscoreSubdomain = `${underscoreLabel}(\\.${underscoreLabel})*`
const underscoreRegExp = new RegExp(`^${underscoreSubdomain}$`)
const labelRegExp = new RegExp(`^${label}$`)
const subdomainRegExp = new RegExp(`^${subdomain}$`)
const dns1035RegExp = new RegExp(`^${dns1035}$`)
const qualifiedRegExp = new RegExp(`^${qualified}$`)
const labelValueRegExp = new RegExp(`^(${qualified})?$`)
const portNameRegExp = /^[-a-z0-9]+$/
const configKeyRegExp = /^[-._a-zA-Z0-9]+$/
const headerNameRegExp = /^[-A-Za-z0-9]+$/
const envNameRegExp = /^[\x20-\x3c\x3e-\x7e]+$/

/** `must be no more than 63 characters`; label keys and values say bytes. */
const maxLengthError = (length: number, unit: 'characters' | 'bytes' = 'characters'): string =>
  `must be no more than ${length} ${unit}`

export function regexError(words: string, expression: string, ...examples: string[]): string {
  if (examples.length === 0) return `${words} (regex used for validation is '${expression}')`
  return `${words} (e.g. ${examples.map((example) => `'${example}', `).join(' or ')}regex used for validation is '${expression}')`
}

export const inclusiveRangeError = (low: number, high: number): string =>
  `must be between ${low} and ${high}, inclusive`

export const nonNegativeError = 'must be greater than or equal to 0'
export const immutableError = 'field is immutable'

/** A name check for metadata.name; `prefix` is true for generateName, which may end in `-`. */
export type NameCheck = (name: string, prefix: boolean) => readonly string[]

/** Length in bytes, as Go counts it. Names are nearly always ASCII, where this is the number of characters. */
function byteLength(value: string): number {
  return value.length === 0 ? 0 : Buffer.byteLength(value)
}

export function dns1123Label(value: string): readonly string[] {
  if (value.length <= 63 && labelRegExp.test(value)) return nothing
  const errors: string[] = []
  if (byteLength(value) > 63) errors.push(maxLengthError(63))
  if (!labelRegExp.test(value)) {
    errors.push(
      subdomainRegExp.test(value) ? 'must not contain dots' : regexError(labelWords, label, 'my-name', '123-abc'),
    )
  }
  return errors
}

export function dns1123Subdomain(value: string): readonly string[] {
  return subdomainIn(value, 'characters')
}

function subdomainIn(value: string, unit: 'characters' | 'bytes'): readonly string[] {
  if (value.length <= 253 && subdomainRegExp.test(value)) return nothing
  const errors: string[] = []
  if (byteLength(value) > 253) errors.push(maxLengthError(253, unit))
  if (!subdomainRegExp.test(value)) errors.push(regexError(subdomainWords, subdomain, 'example.com'))
  return errors
}

/** As a subdomain, with underscores: what resolvers search in. */
export function dns1123SubdomainWithUnderscore(value: string): readonly string[] {
  if (value.length <= 253 && underscoreRegExp.test(value)) return nothing
  const errors: string[] = []
  if (byteLength(value) > 253) errors.push(maxLengthError(253))
  if (!underscoreRegExp.test(value)) {
    const words = subdomainWords.replace("'-' or '.'", "'_', '-' or '.'")
    errors.push(regexError(words, underscoreSubdomain, 'example.com'))
  }
  return errors
}

export function dns1035Label(value: string): readonly string[] {
  if (value.length <= 63 && dns1035RegExp.test(value)) return nothing
  const errors: string[] = []
  if (byteLength(value) > 63) errors.push(maxLengthError(63))
  if (!dns1035RegExp.test(value)) errors.push(regexError(dns1035Words, dns1035, 'my-name', 'abc-123'))
  return errors
}

/** Keys of labels, annotations, taints, finalizers: `[prefix/]name`. */
export function qualifiedName(value: string): readonly string[] {
  const slash = value.indexOf('/')
  if (slash < 0 && value.length > 0 && value.length <= 63 && qualifiedRegExp.test(value)) return nothing
  const errors: string[] = []
  let name = value
  if (slash >= 0) {
    if (value.indexOf('/', slash + 1) >= 0) {
      return [
        `a valid label key ${regexError(qualifiedWords, qualified, 'MyName', 'my.name', '123-abc')} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')`,
      ]
    }
    const prefix = value.slice(0, slash)
    name = value.slice(slash + 1)
    if (prefix === '') errors.push('prefix part must be non-empty')
    else for (const words of subdomainIn(prefix, 'bytes')) errors.push(`prefix part ${words}`)
  }
  if (name === '') errors.push('name part must be non-empty')
  else if (byteLength(name) > 63) errors.push(`name part ${maxLengthError(63, 'bytes')}`)
  if (!qualifiedRegExp.test(name)) {
    errors.push(`name part ${regexError(qualifiedWords, qualified, 'MyName', 'my.name', '123-abc')}`)
  }
  return errors
}

export function labelValue(value: string): readonly string[] {
  if (value.length <= 63 && labelValueRegExp.test(value)) return nothing
  const errors: string[] = []
  if (byteLength(value) > 63) errors.push(maxLengthError(63, 'bytes'))
  if (!labelValueRegExp.test(value)) {
    errors.push(regexError(labelValueWords, `(${qualified})?`, 'MyValue', 'my_value', '12345'))
  }
  return errors
}

export function portNumber(port: number): readonly string[] {
  return Number.isInteger(port) && port >= 1 && port <= 65535 ? nothing : [inclusiveRangeError(1, 65535)]
}

export function portName(value: string): readonly string[] {
  const errors: string[] = []
  if (value.length > 15) errors.push(maxLengthError(15))
  if (!portNameRegExp.test(value)) {
    errors.push('must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)')
  }
  if (!/[a-z]/.test(value)) errors.push('must contain at least one letter (a-z)')
  if (value.includes('--')) errors.push('must not contain consecutive hyphens')
  if (value.startsWith('-') || value.endsWith('-')) errors.push('must not begin or end with a hyphen')
  return errors
}

/** Since 1.34 any printable ASCII but `=`. */
export function envName(value: string): readonly string[] {
  if (value === '') return ['environment variable name must be non-empty']
  return envNameRegExp.test(value)
    ? nothing
    : ["a valid environment variable name must consist only of printable ASCII characters other than '='"]
}

function dotDot(value: string): readonly string[] {
  if (value === '.') return ["must not be '.'"]
  if (value === '..') return ["must not be '..'"]
  if (value.startsWith('..')) return ["must not start with '..'"]
  return nothing
}

/** Keys of ConfigMap and Secret data. */
export function configKey(value: string): readonly string[] {
  const errors: string[] = []
  if (byteLength(value) > 253) errors.push(maxLengthError(253))
  if (!configKeyRegExp.test(value)) {
    errors.push(
      regexError(
        "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
        '[-._a-zA-Z0-9]+',
        'key.name',
        'KEY_NAME',
        'key-name',
      ),
    )
  }
  errors.push(...dotDot(value))
  return errors
}

export function httpHeaderName(value: string): readonly string[] {
  return headerNameRegExp.test(value)
    ? nothing
    : [
        regexError(
          "a valid HTTP header must consist of alphanumeric characters or '-'",
          '[-A-Za-z0-9]+',
          'X-Header-Name',
        ),
      ]
}

/** RBAC names, and anything else that only has to be one segment of a URL path. */
export function pathSegment(value: string): readonly string[] {
  if (value === '.' || value === '..') return [`may not be '${value}'`]
  const errors: string[] = []
  for (const character of ['/', '%']) {
    if (value.includes(character)) errors.push(`may not contain '${character}'`)
  }
  return errors
}

/** The end of a generateName is random, so a trailing dash stands for a letter. */
const masked = (name: string, prefix: boolean): string =>
  prefix && name.length > 1 && name.endsWith('-') ? `${name.slice(0, -2)}a` : name

export const nameIsDnsSubdomain: NameCheck = (name, prefix) => dns1123Subdomain(masked(name, prefix))
export const nameIsDnsLabel: NameCheck = (name, prefix) => dns1123Label(masked(name, prefix))
export const nameIsPathSegment: NameCheck = (name, prefix) => {
  const errors = pathSegment(name)
  return prefix ? errors.filter((words) => !words.startsWith('may not be')) : errors
}
