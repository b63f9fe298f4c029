/**
 * Writes src/api/gateway/gen/crds.json: the CustomResourceDefinitions of the Gateway API's experimental channel.
 * Structure, limits and defaults are the published data; words and CEL rules are ours (gateway-words.ts,
 * gateway-rules.ts). Stops where the release has a rule that we have not.
 */
import { createHash } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parse } from 'yaml'
import { definitionRuleErrors, digestOf } from '../../src/api/cel/schema/definition-rules.ts'
import { rules } from './gateway-rules.ts'
import { deprecationWords, fieldWords, kindWords } from './gateway-words.ts'
import { fetchModules } from './modules.ts'

const module = 'sigs.k8s.io/gateway-api'
const release = 'v1.6.1'
const source = join(fetchModules([`${module}@${release}`]).get(module) ?? '', 'config/crd/experimental')

type Json = Record<string, unknown>
interface Version extends Json {
  readonly name: string
  readonly storage: boolean
  readonly schema: { readonly openAPIV3Schema: Json }
  readonly deprecated?: boolean
}
interface Definition extends Json {
  readonly kind: string
  readonly metadata: { readonly name: string; readonly annotations: Json; readonly labels?: Json }
  readonly spec: Json & { readonly names: { readonly kind: string }; readonly versions: readonly Version[] }
}

const isObject = (value: unknown): value is Json => typeof value === 'object' && value !== null && !Array.isArray(value)

const used = new Set<string>()

/** Our rule for each of the release's, found by what it says when it fails. */
function ownRules(upstream: readonly Json[], kind: string): Json[] {
  return upstream.map(({ message, rule: _, ...rest }) => {
    const text = String(message)
    const found = rules[text]
    const own = typeof found === 'string' ? found : found?.[kind]
    if (own === undefined) throw new Error(`Cannot write the rules of ${kind}: none for ${JSON.stringify(text)}`)
    used.add(text)
    return { ...rest, message: text, rule: own }
  })
}

/** A sentence of ours for a kind (the empty path) or one of its main fields. */
function wordsFor(kind: string, path: string): Json {
  const field = path.replace(/^\./, '')
  const words = path === '' ? kindWords[kind] : (fieldWords[`${kind}.${field}`] ?? fieldWords[`*.${field}`])
  return words === undefined ? {} : { description: words }
}

/** The schema without upstream's words, with ours where we have some. `path` is the field: `.spec.rules`. */
function strip(schema: Json, kind: string, path: string, isElement = false): Json {
  const out: Json = isElement ? {} : wordsFor(kind, path)
  for (const [word, value] of Object.entries(schema)) {
    if (word === 'description') continue
    if (word === 'x-kubernetes-validations') out[word] = ownRules(value as Json[], kind)
    else if (word === 'properties') {
      const properties = Object.entries(value as Record<string, Json>)
      out[word] = Object.fromEntries(properties.map(([name, below]) => [name, strip(below, kind, `${path}.${name}`)]))
    } else if (['items', 'additionalProperties', 'not'].includes(word) && isObject(value))
      out[word] = strip(value, kind, path, true)
    else if (['allOf', 'anyOf', 'oneOf'].includes(word))
      out[word] = (value as Json[]).map((nested) => strip(nested, kind, `${path}|`, true))
    else out[word] = value
  }
  return out
}

function own(definition: Definition): Json {
  const { kind } = definition.spec.names
  const stored = definition.spec.versions.find((v) => v.name === 'v1') ?? definition.spec.versions[0]
  return {
    apiVersion: definition.apiVersion,
    kind: definition.kind,
    metadata: {
      name: definition.metadata.name,
      annotations: definition.metadata.annotations,
      ...(definition.metadata.labels ? { labels: definition.metadata.labels } : {}),
    },
    spec: {
      ...definition.spec,
      versions: definition.spec.versions.map((version) => ({
        ...version,
        ...(version.deprecated
          ? { deprecationWarning: deprecationWords(kind, version.name, stored?.name ?? 'v1') }
          : {}),
        schema: { openAPIV3Schema: strip(version.schema.openAPIV3Schema, kind, '') },
      })),
    },
  }
}

/** Parts that come more than once are written once; `{"$shared": n}` stands in their places. */
function share(definitions: readonly Json[]): { readonly shared: unknown[]; readonly definitions: unknown[] } {
  const shareableCharsMin = 60
  const counts = new Map<string, number>()
  const count = (value: unknown): void => {
    if (typeof value !== 'object' || value === null) return
    const text = JSON.stringify(value)
    const seen = counts.get(text) ?? 0
    counts.set(text, seen + 1)
    if (seen === 0) for (const inner of Object.values(value)) count(inner)
  }
  for (const definition of definitions) count(definition)
  const shared: unknown[] = []
  const numbers = new Map<string, number>()
  const write = (value: unknown): unknown => {
    if (typeof value !== 'object' || value === null) return value
    const text = JSON.stringify(value)
    const isShared = text.length >= shareableCharsMin && (counts.get(text) ?? 0) > 1
    const known = numbers.get(text)
    if (known !== undefined) return { $shared: known }
    const written = Array.isArray(value)
      ? value.map(write)
      : Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, write(inner)]))
    if (!isShared) return written
    numbers.set(text, shared.length)
    shared.push(written)
    return { $shared: shared.length - 1 }
  }
  return { definitions: definitions.map(write), shared }
}

const files = readdirSync(source).filter((name) => /\.yaml$/.test(name) && name !== 'kustomization.yaml')
const published = files
  .map((name) => readFileSync(join(source, name), 'utf8'))
  .flatMap((text) => text.split(/^---$/m))
  .map((text) => parse(text) as Definition | null)
  .filter((object) => object?.kind === 'CustomResourceDefinition')
const definitions = published.map((definition) => own(definition as Definition))
const unused = Object.keys(rules).filter((message) => !used.has(message))
if (unused.length > 0) throw new Error(`Cannot place these rules, the release has none such: ${unused.join('; ')}`)

const schemas = (definitions as unknown as Definition[]).flatMap(({ spec }) =>
  spec.versions.map((v) => v.schema.openAPIV3Schema),
)
const complaints = schemas.flatMap((schema) => definitionRuleErrors(schema, ''))
if (complaints.length > 0)
  throw new Error(`Cannot use these rules: ${complaints.map(({ path, message }) => `${path}: ${message}`).join('\n')}`)
const checked = [...new Set(schemas.map(digestOf))]

const body = share(definitions)
// Changes when we change what we say of the same release, so that a server that knows better can tell.
const revision = createHash('sha256').update(JSON.stringify(body)).digest('hex').slice(0, 12)
const folder = new URL('../../src/api/gateway/gen/', import.meta.url)
mkdirSync(folder, { recursive: true })
/** A line for each part, so that a change shows. */
const lines = (values: readonly unknown[]): string => `[\n${values.map((v) => JSON.stringify(v)).join(',\n')}\n]`
const head = `"release":${JSON.stringify(release)},"revision":${JSON.stringify(revision)},"checked":${lines(checked)}`
const parts = `"shared":${lines(body.shared)},"definitions":${lines(body.definitions)}`
writeFileSync(new URL('crds.json', folder), `{${head},${parts}}\n`)
